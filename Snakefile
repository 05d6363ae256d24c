# The experiment: prepare -> train -> evaluate -> collect -> compare, figures, track.
# Run it with `make reproduce`, or `snakemake --configfile config/demo.yaml`. Settings: config.yaml.
include: "workflow/rules/common.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/results.smk"

report: "workflow/report/workflow.rst"

onstart:
    planning.resume_garbage_collection()
    hold.hold_until_exit(grid.experiment)  # one Snakemake a grid, on whichever machine and in whichever folder
    grid.freeze()
    grid.note_deleted()
    if workflow.local_exec:
        warm.begin()  # one import of torch for all jobs
    else:
        check_for_cluster(workflow.configfiles)

onerror:
    grid.write_partial_results(log)

rule all:
    default_target: True
    input:
        grid.deleted,  # Snakemake asks for no missing file while what was made of it stands
        rules.compare.output,
        rules.figures.output,
        rules.track.output,
