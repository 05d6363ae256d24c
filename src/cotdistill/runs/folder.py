"""Name the files of a run's folder. No other module spells these names."""

from __future__ import annotations

from pathlib import Path

STRICT, LAST = "model", "model_last"
"""the two checkpoints, by folder: the best on validation, and that of the last step"""
CHECKPOINTS = (STRICT, LAST)
WEIGHTS = "model.safetensors"
"""the file of a checkpoint's weights, in its folder"""
REMOVED = "removed.json"
"""the file that says why a checkpoint's folder holds no weights any more"""


class RunFiles:
    """The paths in one run's folder, by what they hold.

    Also serves for a path with Snakemake's wildcards, such as `results/demo/runs/{dataset}/{student}/{rest}`.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.config = self.folder / "config.json"
        """settings that the numbers depend on, with their hash"""
        self.history = self.folder / "history.jsonl"
        """a line for each logged step and each validation"""
        self.environment = self.folder / "environment.json"
        """versions, hardware, commit, data, time and memory"""
        self.training = self.folder / "training.json"
        """what training ended with; written last, so it marks the run as trained"""
        self.metrics = self.folder / "metrics.json"
        """the results on test; marks the run as done"""
        self.predictions = self.folder / "predictions.jsonl"
        """an answer for each test example"""
        self.failure = self.folder / "failure.txt"
        """the error that the last job ended with"""
        self.answers = self.folder / "answers"
        """test answers of both checkpoints, a cache"""
        self.states = self.folder / "state"
        """a training state for each config that was trained here, and the lease of the process that writes"""

    def checkpoint(self, name: str) -> Path:
        """Return the `save_pretrained` folder of one of CHECKPOINTS."""
        return self.folder / name

    @property
    def outputs(self) -> tuple[Path, ...]:
        """The files and folders that training writes, in the order of writing: `training` comes last."""
        models = map(self.checkpoint, CHECKPOINTS)
        return (self.config, self.history, self.environment, *models, self.training)
