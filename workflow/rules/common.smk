# What the rule files share: `grid` (paths, parameters and resources) and the wildcards of a run's jobs.
# Parameters tell Snakemake what a job depends on beside its files: a changed one has the job done again.
from cotdistill.orchestration import planning

planning.pause_garbage_collection()

from cotdistill.orchestration import hold, patches, warm
from cotdistill.orchestration.planning import by_job
from cotdistill.orchestration.workflow import check_config_files, check_for_cluster, read_grid
from cotdistill.runs.folder import LAST, STRICT

patches.apply()  # signals reach training, and silence of the scheduler loses no job

check_config_files(workflow.configfiles or ["config.yaml"])
if not workflow.configfiles:  # a config file given by hand replaces the paper's grid, it is not merged into it
    configfile: "config.yaml"

grid = read_grid(config, workflow.configfiles)

wildcard_constraints:
    dataset="[^/]+",
    student="[^/]+",
    rest="[^/]+/[^/]+/[^/]+/[^/]+",  # method, labels, fraction, seed; one wildcard: see planning
