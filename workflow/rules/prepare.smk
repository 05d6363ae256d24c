if grid.fetched:

    rule fetch:
        output:
            grid.fetched,
        params:
            grid=grid.grid,
        log:
            grid.log("fetch"),
        conda:
            "../../environment.yml"
        message:
            "download and verify the published data"
        localrule: True
        shell:
            "cotdistill fetch --config {params.grid} > {log} 2>&1"


rule prepare:
    input:
        grid.fetched,
        grid.data_files,
        grid.student_files,
    output:
        manifest=f"{grid.prepared}/manifest.json",
        splits=expand(f"{grid.prepared}/{{split}}.arrow", split=["train", "valid", "test"], allow_missing=True),
        tokenizer=directory(f"{grid.prepared}/tokenizer"),
    params:
        grid=grid.grid,
        settings=grid.data_settings,
        root=grid.data_root,
        code=grid.data_code,
    log:
        grid.log("prepare", "dataset", "student"),
    benchmark:
        grid.benchmark("prepare", "dataset", "student")
    resources:
        mem_mb=4000,
        runtime=120,
    conda:
        "../../environment.yml"
    message:
        "prepare {wildcards.dataset} for {wildcards.student}"
    localrule: True
    shell:
        "cotdistill prepare --config {params.grid} --dataset {wildcards.dataset} --student {wildcards.student}"
        " > {log} 2>&1"
