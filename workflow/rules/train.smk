from cotdistill.jobs import snakemake as jobs

jobs.mend()  # signals reach training, and silence of the scheduler loses no job


rule train:
    input:
        rules.prepare.output.manifest,
    output:
        f"{grid.run}/config.json",
        f"{grid.run}/history.jsonl",
        f"{grid.run}/environment.json",
        directory(f"{grid.run}/model"),
        directory(f"{grid.run}/model_last"),
        marker=f"{grid.run}/training.json",
    params:
        grid=grid.grid,
        hash=grid.run_hash,
        code=grid.run_code("train"),
        id=lambda w: grid.find(w).id,
    log:
        grid.log("train", *grid.axes),
    benchmark:
        grid.benchmark("train", *grid.axes)
    threads: grid.threads
    resources:
        cpus_per_task=grid.threads,  # `threads` is cut to the cores of the machine that submits
        gpu=grid.gpu,
        mem_mb=grid.mem_mb,
        runtime=grid.runtime,
    conda:
        "../../environment.yml"
    message:
        "train {params.id}"
    shell:
        "exec cotdistill train --config {params.grid} --run {params.id} --expect {params.hash} > {log} 2>&1"


rule evaluate:
    input:
        rules.train.output,
    output:
        metrics=f"{grid.run}/metrics.json",
        predictions=f"{grid.run}/predictions.jsonl",
    params:
        grid=grid.grid,
        hash=grid.run_hash,
        code=grid.run_code("evaluate"),
        rationales=grid.experiment.evaluation.rationales,
        bins=grid.experiment.evaluation.bins,
        id=lambda w: grid.find(w).id,
    log:
        grid.log("evaluate", *grid.axes),
    benchmark:
        grid.benchmark("evaluate", *grid.axes)
    threads: grid.threads_evaluate
    priority: 1  # a run that is trained is finished before the next is begun
    resources:
        cpus_per_task=grid.threads_evaluate,
        gpu=grid.gpu_evaluate,
        mem_mb=grid.mem_mb,
        runtime=grid.runtime_evaluate,
    conda:
        "../../environment.yml"
    message:
        "evaluate {params.id}"
    shell:
        "exec cotdistill evaluate --config {params.grid} --run {params.id} --expect {params.hash} > {log} 2>&1"
