if grid.judged:

    rule judge:
        input:
            grid.list_run_files(grid.files.predictions, grid.files.metrics),
        output:
            grid.judged,
        params:
            grid=grid.grid,
            settings=grid.digest_settings("evaluation"),
            code=grid.fingerprint_stage("judge"),
        log:
            grid.name_log("judge"),
        conda:
            "../../environment.yml"
        message:
            "ask the judge for ratings of the rationales"
        localrule: True
        shell:
            "cotdistill judge --config {params.grid:q} > {log:q} 2>&1"


rule collect:
    input:
        grid.judged,
        grid.list_run_files(grid.files.metrics),  # which tells what the files beside it must be
    output:
        results=f"{grid.folder}/results.parquet",
        csv=f"{grid.folder}/results.csv",
        history=f"{grid.folder}/history.parquet",
        measures=f"{grid.folder}/measures.parquet",
        examples=f"{grid.folder}/examples.parquet",
        samples=f"{grid.folder}/samples.parquet",
    params:
        grid=grid.grid,
        settings=grid.digest_settings("experiment"),
        code=grid.fingerprint_stage("collect"),
        passes=grid.passes,
    log:
        grid.name_log("collect"),
    benchmark:
        grid.name_benchmark("collect")
    conda:
        "../../environment.yml"
    message:
        "collect all runs into one table"
    localrule: True
    shell:
        "cotdistill collect --config {params.grid:q} > {log:q} 2>&1"


rule compare:
    input:
        rules.collect.output,
    output:
        report(
            f"{grid.folder}/tables/comparison.html",
            caption="../report/comparison.rst",
            category="Comparison",
            labels={"table": "comparison", "format": "HTML"},
        ),
        report(
            f"{grid.folder}/tables/comparison.md",
            caption="../report/comparison.rst",
            category="Comparison",
            labels={"table": "comparison", "format": "Markdown"},
        ),
        report(
            f"{grid.folder}/tables/comparison.csv",
            caption="../report/comparison.rst",
            category="Comparison",
            labels={"table": "comparison", "format": "CSV"},
        ),
        report(
            f"{grid.folder}/tables/samples.html",
            caption="../report/samples.rst",
            category="Samples",
            labels={"table": "test examples"},
        ),
        f"{grid.folder}/tables/samples.md",
        f"{grid.folder}/tables/comparison.tex",
        f"{grid.folder}/tables/evidence.csv",
        multiext(f"{grid.folder}/tables/verdict", ".md", ".txt"),
    params:
        grid=grid.grid,
        settings=grid.digest_settings("experiment", "baseline", "relevant_difference"),
        code=grid.fingerprint_stage("compare"),
        passes=grid.passes,
    log:
        grid.name_log("compare"),
    benchmark:
        grid.name_benchmark("compare")
    conda:
        "../../environment.yml"
    message:
        "compare methods"
    localrule: True
    shell:
        "cotdistill compare --config {params.grid:q} > {log:q} 2>&1"


rule figures:
    input:
        rules.collect.output,
    output:
        [
            report(
                f"{grid.folder}/figures/{name}.png",
                caption=f"../report/{name}.rst",
                category="Figures",
                labels={"figure": name},
            )
            for name in grid.figures
        ],
        [f"{grid.folder}/figures/{name}.{kind}" for name in grid.figures for kind in ("pdf", "txt")],
    params:
        grid=grid.grid,
        settings=grid.digest_settings("experiment", "baseline"),
        code=grid.fingerprint_stage("figures"),
        passes=grid.passes,
    log:
        grid.name_log("figures"),
    benchmark:
        grid.name_benchmark("figures")
    conda:
        "../../environment.yml"
    message:
        "draw figures"
    localrule: True
    shell:
        "cotdistill figures --config {params.grid:q} > {log:q} 2>&1"


rule track:
    input:
        rules.collect.output.results,
        rules.collect.output.history,
        rules.collect.output.measures,
        rules.figures.output,
    output:
        f"{grid.folder}/tracked.json",
    params:
        grid=grid.grid,
        settings=grid.digest_settings("experiment", "baseline", "tracking"),
        code=grid.fingerprint_stage("track"),
        stores=grid.stores,
    log:
        grid.name_log("track"),
    benchmark:
        grid.name_benchmark("track")
    conda:
        "../../environment.yml"
    message:
        "write the runs into MLflow"
    localrule: True
    shell:
        "cotdistill track --config {params.grid:q} > {log:q} 2>&1"
