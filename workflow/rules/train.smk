from cotdistill.orchestration import snakemake as jobs

jobs.mend()  # signals reach training, and silence of the scheduler loses no job


rule train:
    input:
        rules.prepare.output.manifest,
    output:
        f"{grid.run}/training.json",  # what is asked for comes first: Snakemake tries one after the other
        f"{grid.run}/config.json",
        f"{grid.run}/history.jsonl",
        f"{grid.run}/environment.json",
        directory(f"{grid.run}/model"),
        directory(f"{grid.run}/model_last"),
    params:
        job=grid.job("train"),
    log:
        grid.log("train", *grid.wildcards),
    benchmark:
        grid.benchmark("train", *grid.wildcards)
    threads: grid.asks(grid.threads)
    resources:
        cpus_per_task=grid.asks(grid.threads),  # `threads` is cut to the cores of the machine that submits
        gpu=grid.asks(grid.gpu),
        mem_mb=grid.asks(grid.mem_mb),
        runtime=grid.asks(grid.runtime),
    conda:
        "../../environment.yml"
    message:
        "train {params.job[id]}"
    shell:
        "exec cotdistill train {params.job[arguments]} > {log} 2>&1"


rule evaluate:
    input:
        rules.train.output[0],
    output:
        metrics=f"{grid.run}/metrics.json",
        predictions=f"{grid.run}/predictions.jsonl",
    params:
        job=grid.job(
            "evaluate", rationales=grid.experiment.evaluation.rationales, bins=grid.experiment.evaluation.bins
        ),
    log:
        grid.log("evaluate", *grid.wildcards),
    benchmark:
        grid.benchmark("evaluate", *grid.wildcards)
    threads: grid.asks(grid.threads_evaluate)
    priority: 1  # a run that is trained is finished before the next is begun
    resources:
        cpus_per_task=grid.asks(grid.threads_evaluate),
        gpu=grid.asks(grid.gpu_evaluate),
        mem_mb=grid.asks(grid.mem_mb),
        runtime=grid.asks(grid.runtime_evaluate),
    conda:
        "../../environment.yml"
    message:
        "evaluate {params.job[id]}"
    shell:
        "exec cotdistill evaluate {params.job[arguments]} > {log} 2>&1"
