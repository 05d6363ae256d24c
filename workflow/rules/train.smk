rule train:
    input:
        rules.prepare.output.manifest,
    output:
        training=grid.files.training,  # what is asked for comes first: Snakemake tries one after the other
        config=grid.files.config,
        history=grid.files.history,
        environment=grid.files.environment,
        model=directory(grid.files.checkpoint(STRICT)),
        model_last=directory(grid.files.checkpoint(LAST)),
    params:
        grid=grid.grid,
        expect=by_job(grid.hash_run),
        code=by_job(grid.fingerprint_training),
    log:
        grid.name_log("train", *grid.wildcards),
    benchmark:
        grid.name_benchmark("train", *grid.wildcards)
    threads: grid.request(grid.count_threads)
    resources:
        cpus_per_task=grid.request(grid.count_threads),  # `threads` is cut to the submitting machine's cores
        gpu=grid.request(grid.count_gpus),
        mem_mb=grid.request(grid.count_mem_mb),
        runtime=grid.request(grid.count_minutes),
    conda:
        "../../environment.yml"
    message:
        "train {wildcards.dataset}/{wildcards.student}/{wildcards.rest}"
    shell:
        "exec cotdistill train --config {params.grid:q}"
        " --run {wildcards.dataset:q}/{wildcards.student:q}/{wildcards.rest:q} --expect {params.expect:q}"
        " > {log:q} 2>&1"


rule evaluate:
    input:
        rules.train.output.training,
    output:
        metrics=grid.files.metrics,
        predictions=grid.files.predictions,
    params:
        grid=grid.grid,
        expect=by_job(grid.hash_run),
        code=by_job(grid.fingerprint_evaluation),
        rationales=grid.experiment.evaluation.rationales,
        free_running=grid.experiment.evaluation.free_running,
        bins=grid.experiment.evaluation.bins,
        option_score=grid.experiment.evaluation.option_score,
        keep=by_job(grid.find_kept),
    log:
        grid.name_log("evaluate", *grid.wildcards),
    benchmark:
        grid.name_benchmark("evaluate", *grid.wildcards)
    threads: grid.request(grid.count_threads_to_evaluate)
    priority: 1  # a run that is trained is finished before the next is begun
    resources:  # little: the training job has answered test
        cpus_per_task=grid.request(grid.count_threads_to_evaluate),
        gpu=grid.request(grid.count_gpus_to_evaluate),
        mem_mb=grid.request(grid.count_mem_mb_to_evaluate),
        runtime=grid.request(grid.count_minutes_to_evaluate),
    conda:
        "../../environment.yml"
    message:
        "evaluate {wildcards.dataset}/{wildcards.student}/{wildcards.rest}"
    shell:
        "exec cotdistill evaluate --config {params.grid:q}"
        " --run {wildcards.dataset:q}/{wildcards.student:q}/{wildcards.rest:q} --expect {params.expect:q}"
        " > {log:q} 2>&1"
