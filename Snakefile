# The experiment: prepare -> train -> evaluate -> collect -> compare, figures, track.
# Run it with `make reproduce`, or `snakemake --configfile config/demo.yaml`. Settings: config.yaml.
import gc

gc.disable()  # no garbage arises while jobs are planned; to look for it among so many objects takes long

from cotdistill.orchestration import warm
from cotdistill.orchestration.workflow import Workflow

if not workflow.configfiles:  # a config file given by hand replaces the paper's grid, it is not merged into it
    configfile: "config.yaml"

grid = Workflow(config, where=", ".join(map(str, workflow.configfiles)))

wildcard_constraints:
    dataset="[^/]+", student="[^/]+", cell="[^/]+/[^/]+/[^/]+/[^/]+",  # method, labels, fraction, seed

include: "workflow/rules/prepare.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/results.smk"

report: "workflow/report/workflow.rst"

onstart:
    gc.enable()
    grid.freeze()
    if workflow.local_exec:
        warm.begin()  # one import of torch for all jobs

onerror:
    grid.partial()

rule all:
    default_target: True
    input:
        rules.compare.output,
        rules.figures.output,
        rules.track.output,
