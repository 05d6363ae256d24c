"""The training state from which a stopped run goes on exactly where it was.

It lives in `<run>/state/<config hash>/`, outside every declared output (Snakemake deletes those before
a retry), bears the hash of the config that wrote it and is refused to another. Data order and dropout
are pure functions of the step, so weights, optimiser, step, best-so-far and the open log window are
all of it.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from cotdistill.errors import UserError
from cotdistill.files import atomic, read_json, write_json


@dataclass
class Progress:
    """How far a run is: the part of the state that is not tensors."""

    step: int = 0
    best_step: int = 0
    best_accuracy: float = -1.0
    since_best: int = 0
    seconds: float = 0.0


class State:
    """Reads and writes `<run>/state/step-<n>`; keeps the newest two."""

    def __init__(self, folder: Path, config_hash: str) -> None:
        self.folder, self.hash = folder, config_hash

    def save(
        self,
        progress: Progress,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        window: torch.Tensor,
    ) -> None:
        """Write a state, atomically, and drop all but the newest two."""
        with atomic(self.folder / f"step-{progress.step}") as part:
            part.mkdir()
            tensors = {name: p.detach().contiguous() for name, p in model.named_parameters()}
            save_file(tensors, part / "model.safetensors")
            save_file(_flat(model, optimizer), part / "optimizer.safetensors")
            save_file({"window": window.contiguous()}, part / "window.safetensors")
            write_json(part / "state.json", {"hash": self.hash, "progress": asdict(progress)})
        for old in self._saved()[:-2]:
            shutil.rmtree(old)

    def restore(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[Progress, torch.Tensor] | None:
        """Load the newest state that reads well into model and optimiser; None where there is none.

        Raises UserError for a state of another config. A corrupt one is passed over with a warning.
        """
        for path in reversed(self._saved()):
            try:
                saved: dict[str, Any] = read_json(path / "state.json")
                if saved["hash"] != self.hash:
                    raise StateOfAnotherConfig(
                        f"{path}: state of config {saved['hash']}, expected {self.hash}; "
                        f"remove {self.folder} to start over"
                    )
                tensors = load_file(path / "model.safetensors")
                moments = load_file(path / "optimizer.safetensors")
                window = load_file(path / "window.safetensors")["window"]
                progress = Progress(**saved["progress"])
            except StateOfAnotherConfig:
                raise
            except Exception as error:  # noqa: BLE001 a torn file raises whatever its reader raises
                print(f"warning: {path} is corrupt ({error}); falling back to the one before", flush=True)
                continue
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(tensors[name])
            _unflat(model, optimizer, moments)
            return progress, window
        return None

    def _saved(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), key=lambda path: int(path.name.split("-")[1]))


class StateOfAnotherConfig(UserError):
    """A state folder that another config wrote."""


def _flat(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimiser's tensors as `<parameter>|<key>`."""
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}|{key}": value.contiguous()
        for parameter, values in optimizer.state.items()
        for key, value in values.items()
    }


def _unflat(model: torch.nn.Module, optimizer: torch.optim.Optimizer, flat: dict[str, torch.Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for joined, value in flat.items():
        name, key = joined.rsplit("|", 1)
        parameter = parameters[name]
        # fused AdamW wants its step counter beside the parameter, the others on the CPU
        optimizer.state[parameter][key] = value.to(parameter.device)
