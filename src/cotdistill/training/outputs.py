"""What training leaves, kept where no retry deletes it, and put in its places.

Snakemake deletes a job's declared outputs before it runs the job again (a requeue, a retry, a job that it
does not know to have finished). So a finished run stands in `<run>/state/<hash>/finished/` until it is
evaluated, and the declared outputs are links to it: the same bytes, on disk once.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cotdistill.config.grid import Run, lease_folder, state_folder
from cotdistill.errors import UserError
from cotdistill.files import atomic, file_sha256, link, read_sealed, sweep, tree_sha256
from cotdistill.jobs.lease import gone, holders

WEIGHTS = "model.safetensors"
CHECKPOINTS = ("model", "model_last")
OUTPUTS = ("config.json", "history.jsonl", "environment.json", *CHECKPOINTS, "training.json")
"""in the order of writing: `training.json` comes last and marks the run as trained"""


def trained(run: Run) -> bool:
    """Whether the run's outputs are all there. Raises UserError where they are another config's."""
    if not all((run.folder / name).exists() for name in OUTPUTS):
        return False
    try:
        found = read_marker(run)["hash"]
    except (UserError, KeyError, TypeError):
        return False  # half-deleted at this moment, or corrupt: to be written again
    if found != run.hash:
        raise UserError(
            f"{run.folder} holds a run of another config (hash {found}, expected {run.hash}); "
            "remove the folder to train again"
        )
    return True


@contextlib.contextmanager
def writing(run: Run) -> Iterator[Path]:
    """A temporary folder for the outputs, which becomes `finished/`."""
    with atomic(_finished(run)) as part:
        part.mkdir()
        yield part


def restore(run: Run, origin: str) -> bool:
    """Put a finished run's outputs in their places; False where there is none.

    origin: digest of code and data; what others made is left alone. Raises UserError when the run
    folder cannot be written.
    """
    folder = _finished(run)
    if not _sound(folder, origin):
        return False
    sweep(run.folder)
    for name in OUTPUTS:
        link(folder / name, run.folder / name)
        for path in [run.folder / name, *(run.folder / name).rglob("*")]:
            os.utime(path)  # new for Snakemake, or it would find its inputs newer
    return True


def forget(run: Run) -> None:
    """Drop states and the finished copy: the run is evaluated and nothing will be tried again.

    Does nothing while a process holds the run's lease: what is there is that one's.
    """
    if all(gone(found) for found in holders(lease_folder(run))):
        shutil.rmtree(lease_folder(run), ignore_errors=True)


def read_marker(run: Run) -> dict[str, Any]:
    """`training.json`, which tells that a run is trained. Raises UserError when absent or corrupt."""
    return read_sealed(run.folder / "training.json", _remedy(run))


def check(run: Run) -> None:
    """Raises UserError where a file of the run is not what training wrote."""
    for name, expected in read_marker(run).get("files", {}).items():
        path = run.folder / name
        try:
            found = file_sha256(path)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}; {_remedy(run)}") from error
        if found != expected:
            raise UserError(
                f"{path}: corrupt: its bytes are not those that training wrote; {_remedy(run)}"
            )


def weights(run: Run, checkpoint: str) -> str:
    """SHA-256 of a checkpoint's weights as training wrote them. Raises UserError where that is not told."""
    path = run.folder / "training.json"
    try:
        return str(read_marker(run)["files"][f"{checkpoint}/{WEIGHTS}"])
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path}: names no weights of '{checkpoint}'; expected their SHA-256; {_remedy(run)}"
        ) from error


def _remedy(run: Run) -> str:
    return f"remove {run.folder} to train again"


def _finished(run: Run) -> Path:
    return state_folder(run) / "finished"


def _sound(folder: Path, origin: str) -> bool:
    if not folder.is_dir():
        return False
    try:
        marker = read_sealed(folder / "training.json", "training again")
        if marker["origin"] != origin:
            return False
        sound = marker["files"] == {
            name: found for name, found in tree_sha256(folder).items() if name != "training.json"
        }
    except (UserError, OSError, KeyError, TypeError):
        sound = False
    if not sound:
        print(f"warning: {folder} is corrupt; training again", flush=True)
    return sound
