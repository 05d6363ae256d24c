if grid.fetched:

    rule fetch:
        output:
            grid.fetched,
        params:
            grid=grid.grid,
        log:
            grid.name_log("fetch"),
        conda:
            "../../environment.yml"
        message:
            "download and verify the published data"
        localrule: True
        shell:
            "cotdistill fetch --config {params.grid:q} > {log:q} 2>&1"


rule prepare:
    input:
        grid.fetched,
        by_job(grid.list_data_files),
        by_job(grid.list_student_files),
    output:
        manifest=f"{grid.prepared}/manifest.json",
        splits=[f"{grid.prepared}/{split}.arrow" for split in ("train", "valid", "test")],
        tokenizer=directory(f"{grid.prepared}/tokenizer"),
    params:
        grid=grid.grid,
        settings=by_job(grid.digest_data_settings),
        warnings=by_job(grid.digest_warning_settings),
        root=by_job(grid.find_data_root),
        code=by_job(grid.fingerprint_preparation),
    log:
        grid.name_log("prepare", "dataset", "student"),
    benchmark:
        grid.name_benchmark("prepare", "dataset", "student")
    resources:
        mem_mb=4000,
        runtime=120,
    conda:
        "../../environment.yml"
    message:
        "prepare {wildcards.dataset} for {wildcards.student}"
    localrule: True
    shell:
        "cotdistill prepare --config {params.grid:q} --dataset {wildcards.dataset:q}"
        " --student {wildcards.student:q}"
        " > {log:q} 2>&1"
