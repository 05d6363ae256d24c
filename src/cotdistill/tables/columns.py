"""Name the columns of the tables, and the axes of the grid that tables are grouped by."""

from __future__ import annotations

from typing import Literal

from cotdistill.data.overlap import KINDS
from cotdistill.data.rows import SPLITS
from cotdistill.runs.grid import AXES

CELL = [axis for axis in AXES if axis != "seed"]
"""a cell of the grid: one combination of dataset, student, method, labels and fraction, with all its seeds"""
BLOCK = [axis for axis in CELL if axis != "method"]
"""a block: cells that are compared with one another, as only their method differs"""
SETTING = [axis for axis in BLOCK if axis != "dataset"]
"""a setting: blocks that are summed up over datasets, as only their dataset differs"""

OVERLAP = {
    (kind, other): f"test_{kind}_in_{other}" for other in ("train", "valid") for kind in KINDS
}
"""the columns of how many test inputs stand in another split, whole, see `cotdistill.data.overlap`"""

# column -> pandas type, in the order of the table; the types hold even when every run is missing
RESULT_COLUMNS = {
    "run": "str",
    "experiment": "str",
    "dataset": "str",
    "student": "str",
    "method": "str",
    "labels": "str",
    "fraction": "float64",
    "seed": "int64",
    "status": "str",
    "adapter": "str",
    "split": "str",
    "pretrained": "str",
    "objective": "str",
    "proposed": "bool",
    "method_settings": "str",
    "config_hash": "str",
    "accuracy": "float64",
    "correct": "Int64",
    "n_test": "Int64",
    "n_groups": "Int64",
    "step": "Int64",
    "valid_accuracy": "float64",
    "collapsed": "boolean",
    "mean_confidence": "float64",
    "accuracy_published": "float64",
    "step_published": "Int64",
    "n_train": "Int64",
    "n_valid": "Int64",
    "teacher_accuracy_train": "float64",
    "teacher_accuracy_valid": "float64",
    "teacher_accuracy_test": "float64",
    "wall_s": "float64",
    "evaluation_wall_s": "float64",
    "peak_memory_mb": "float64",
    "git_commit": "str",
    "data_checksum": "str",
    **{f"ids_{split}": "str" for split in SPLITS},
    **dict.fromkeys(OVERLAP.values(), "Int64"),
    "device": "str",
    "cpu": "str",
    "kernels": "str",
    "started_at": "str",
    "finished_at": "str",
    "content": "str",
    "folder": "str",
}
_AXES = {axis: RESULT_COLUMNS[axis] for axis in AXES}
HISTORY_COLUMNS = {
    **_AXES,
    "run": "str",
    "step": "int64",
    "epoch": "float64",
    "metric": "str",
    "value": "float64",
}
MEASURE_COLUMNS = {**_AXES, "run": "str", "measure": "str", "value": "float64"}
EXAMPLE_COLUMNS = {
    **_AXES,
    "run": "str",
    "example": "str",
    "group": "str",
    "correct": "bool",
    "confidence": "float64",
    "option_correct": "boolean",
    "option_confidence": "float64",
}
SAMPLE_COLUMNS = {
    **{axis: kind for axis, kind in _AXES.items() if axis != "method"},
    "input": "str",
    "gold": "str",
    "by": "str",
    "prediction": "str",
    "correct": "boolean",
    "rationale": "str",
}

Role = Literal["baseline", "proposed", "other"]


def get_role(method: str, proposed: bool, baseline: str) -> Role:
    """Return what a method is in a comparison.

    method, baseline: names in the config. proposed: of the table of results.
    """
    if method == baseline:
        return "baseline"
    return "proposed" if proposed else "other"
