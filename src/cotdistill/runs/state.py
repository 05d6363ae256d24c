"""The training state from which a stopped run continues exactly where it was.

It is kept in `<run>/state/<config hash>/`, outside every declared output (Snakemake deletes those before a
retry), with the hash of the config that wrote it, and is refused under another. Data order and dropout are
pure functions of the step, so weights, optimiser, step, best-so-far and the open log window are all of it. A
state is that of right after an optimiser step: a log line or a validation that is due at that step is still
to be done.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from cotdistill.common.errors import UserError
from cotdistill.common.files import atomic, hash_file, read_sealed, seal, write_json

KEPT = 2
"""states on disk: the newest, and the one before in case the newest is corrupt"""


@dataclass
class Progress:
    """How far a run is: the part of the state that is not tensors."""

    step: int = 0
    best_step: int = 0
    best_accuracy: float = -1.0
    best_digest: str = ""
    since_best: int = 0
    history_digest: str = ""
    seconds: float = 0.0
    names: list[str] = field(default_factory=list)
    """of the terms in the log window's columns"""


Restored = tuple[Progress, torch.Tensor]


class State:
    """The saved states of one run and config, `<run>/state/<config hash>/step-<n>`, of which two are kept."""

    def __init__(self, folder: Path, config_hash: str, origin: str = "") -> None:
        """Name the folder. origin: digest of the code and the data; a state with another is not used."""
        self.folder, self.hash, self.origin = folder, config_hash, origin

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
            save_file(_flatten_moments(model, optimizer), part / "optimizer.safetensors")
            save_file({"window": window.contiguous()}, part / "window.safetensors")
            write_json(part / "state.json", seal({
                "hash": self.hash, "origin": self.origin, "progress": asdict(progress),
                "device": next(model.parameters()).device.type,
                # safetensors has no checksums of its own
                "files": {path.name: hash_file(path) for path in sorted(part.glob("*.safetensors"))},
            }))
        for old in self._list_saved()[:-KEPT]:
            shutil.rmtree(old)

    def restore(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        check: Callable[[Progress], None] = lambda progress: None,
    ) -> Restored | None:
        """Load the newest state that is sound into model and optimiser; None where there is none.

        Returns the progress and the log window (steps, terms + 1). check: raises UserError where what belongs
        to a state (history, best checkpoint) is not sound. Raises UserError for a state of another config. A
        corrupt one is passed over with a warning.
        """
        for path in reversed(self._list_saved()):
            try:
                saved = self._read(path)
                if saved is None:
                    print(f"{path}: made by other code or from other data: starting over", flush=True)
                    return None
                progress = Progress(**saved["progress"])
                check(progress)
                tensors = load_file(path / "model.safetensors")
                moments = load_file(path / "optimizer.safetensors")
                window = load_file(path / "window.safetensors")["window"]
            except StateOfAnotherConfig:
                raise
            except Exception as error:  # noqa: BLE001 a half-written file raises whatever its reader raises
                print(f"warning: {path} is corrupt ({error}); falling back to the one before", flush=True)
                continue
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(tensors[name])
            _restore_moments(model, optimizer, moments)
            return progress, window
        return None

    def drop_after(self, step: int) -> None:
        """Remove the states after `step`, which are corrupt or of other code; new ones will be saved."""
        for path in self._list_saved():
            if int(path.name.split("-")[1]) > step:
                shutil.rmtree(path)

    def read_progresses(self) -> list[Progress]:
        """Return the progress of each saved state, oldest first; what cannot be read is left out."""
        found = []
        for path in self._list_saved():
            try:
                found.append(Progress(**read_sealed(path / "state.json", "it is left out")["progress"]))
            except (UserError, KeyError, TypeError):
                continue
        return found

    def _read(self, path: Path) -> dict[str, Any] | None:
        """Return the content of `state.json`, its files checked; None for a state of other code or data."""
        saved = read_sealed(path / "state.json", "it is left out")
        if saved["hash"] != self.hash:
            raise StateOfAnotherConfig(
                f"{path}: state of config {saved['hash']}, expected {self.hash}; "
                f"remove {self.folder} to start over"
            )
        if saved["origin"] != self.origin:
            return None
        for name, expected in saved["files"].items():
            if hash_file(path / name) != expected:
                raise UserError(f"{name} has other bytes than were written")
        return saved

    def _list_saved(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), key=lambda path: int(path.name.split("-")[1]))


class StateOfAnotherConfig(UserError):
    """A state folder that another config wrote."""


def _flatten_moments(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the optimiser's tensors by name, `<parameter>|<key>`, as safetensors can hold them."""
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}|{key}": value.contiguous()
        for parameter, values in optimizer.state.items()
        for key, value in values.items()
    }


def _restore_moments(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, flat: dict[str, torch.Tensor]
) -> None:
    """Put tensors by name, as `_flatten_moments` returns them, into the optimiser."""
    parameters = dict(model.named_parameters())
    for joined, value in flat.items():
        name, key = joined.rsplit("|", 1)
        parameter = parameters[name]
        # fused AdamW wants its step counter beside the parameter, the others on the CPU
        optimizer.state[parameter][key] = value.to(parameter.device)
