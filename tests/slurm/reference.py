"""Train and evaluate runs one after another in this process, as on a laptop: `reference.py CONFIG RUN...`."""

import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

from cotdistill.jobs.evaluate import evaluate
from cotdistill.jobs.prepare import prepare
from cotdistill.jobs.train import train
from cotdistill.runs.experiment import load
from cotdistill.runs.grid import find

experiment = load(sys.argv[1])
runs = [find(experiment, name) for name in sys.argv[2:]]
for run in runs:
    if not run.prepared.exists():
        prepare(experiment, run.dataset, run.student, run.prepared)
print("prepared", flush=True)
for run in runs:
    train(run)
    evaluate(run)
