"""The outputs of training, kept where no retry deletes them, and linked to their places.

Snakemake deletes a job's declared outputs before it runs the job again (a requeue, a retry, a job that it
does not know to have finished). So a finished run is kept in `<run>/state/<hash>/finished/` until it is
evaluated, and the declared outputs are links to it: the same bytes, on disk once.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cotdistill.common.errors import UserError
from cotdistill.common.files import atomic, check_hash, hash_tree, link, read_json, sweep, write_json
from cotdistill.runs.documents import Training
from cotdistill.runs.folder import CHECKPOINTS, LAST, REMOVED, STRICT, WEIGHTS, RunFiles
from cotdistill.runs.grid import Run
from cotdistill.runs.lease import is_gone, list_holders

KEPT = {"both": CHECKPOINTS, "best": (STRICT,), "last": (LAST,), "none": ()}
"""the checkpoints that stay, by `training.keep`"""


def are_written(run: Run) -> bool:
    """Whether the run's outputs are all there. Raises UserError where they were made with another config."""
    if not all(path.exists() for path in run.files.outputs):
        return False
    try:
        found = read_training(run).hash
    except UserError:
        return False  # half-deleted at this moment, or corrupt: to be written again
    if found != run.hash:
        raise UserError(
            f"{run.folder} holds a run of another config (hash {found}, expected {run.hash}); "
            "remove the folder to train again"
        )
    return True


@contextlib.contextmanager
def open_for_writing(run: Run) -> Iterator[RunFiles]:
    """Yield the paths of a temporary folder to write the outputs to; it becomes `finished/`."""
    with atomic(_find_finished(run)) as part:
        part.mkdir()
        yield RunFiles(part)


def restore(run: Run, origin: str) -> bool:
    """Put a finished run's outputs in their places; return False where there is no finished run.

    origin: digest of code, data and initial weights; a finished run with another is left alone. Raises
    UserError when the run folder cannot be written.
    """
    finished = RunFiles(_find_finished(run))
    if not _is_sound(finished, origin):
        return False
    sweep(run.folder)
    for source, target in zip(finished.outputs, run.files.outputs, strict=True):
        link(source, target)
        for path in [target, *target.rglob("*")]:
            os.utime(path)  # new for Snakemake, or it would find its inputs newer
    return True


def forget(run: Run) -> None:
    """Remove the run's own state and finished copy, which nothing needs once it is evaluated.

    States of other configs are kept: a config that is restored continues from its own. Does nothing while a
    process holds the run's lease, because it may be using them.
    """
    left = list_holders(run.files.states)
    if not all(is_gone(found) for found in left):
        return
    shutil.rmtree(run.state, ignore_errors=True)
    for found in left:
        found.path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it is not there, or holds other configs' states
        run.files.states.rmdir()


def trim(run: Run) -> None:
    """Remove the weights that `training.keep` does not name: nothing needs them once the run is evaluated.

    The folder, a declared output, stays with the rest and says what was removed. It does so before the
    weights go, so that a process killed in between leaves a whole checkpoint. Does nothing while a process
    holds the run's lease.
    """
    if not all(is_gone(found) for found in list_holders(run.files.states)):
        return
    for checkpoint in CHECKPOINTS:
        weights = run.files.checkpoint(checkpoint) / WEIGHTS
        if checkpoint in KEPT[run.training.keep] or not weights.is_file():
            continue
        write_json(weights.with_name(REMOVED), {
            "removed": WEIGHTS, "sha256": find_weights(run, checkpoint),
            "why": f"training.keep: {run.training.keep}", "remedy": _name_remedy(run),
        })  # fmt: skip
        weights.unlink()


def is_removed(run: Run, checkpoint: str) -> bool:
    """Whether a checkpoint's folder has no weights any more because `trim` removed them."""
    folder = run.files.checkpoint(checkpoint)
    return (folder / REMOVED).is_file() and not (folder / WEIGHTS).is_file()


def find_checkpoint(run: Run, checkpoint: str) -> Path | None:
    """Return the folder with a checkpoint's weights, its own or one with the same; None if removed."""
    wanted = find_weights(run, checkpoint)
    for name in (checkpoint, *CHECKPOINTS):
        if not is_removed(run, name) and find_weights(run, name) == wanted:
            return run.files.checkpoint(name)
    return None


def read_training(run: Run) -> Training:
    """Read `training.json`. Raises UserError when absent or corrupt."""
    return Training.read(run.files.training, _name_remedy(run))


def was_written_under(run: Run, path: Path) -> bool:
    """Return whether a JSON document of the run's folder was written under the run's config.

    False where there is none, as while Snakemake deletes it; what an earlier config left is to be made again.
    """
    try:
        found = read_json(path)
    except UserError:
        return False
    return isinstance(found, dict) and found.get("hash") == run.hash


def list_trained(runs: Iterable[Run]) -> list[Run]:
    """Return the runs that are trained under their config."""
    # most of a new grid are not: to look costs less than to open
    there = [run for run in runs if os.path.exists(run.files.training)]
    return [run for run in there if was_written_under(run, run.files.training)]


def check(run: Run) -> None:
    """Raise UserError where a file of the run is not what training wrote; what `trim` removed may lack."""
    removed = {f"{name}/{WEIGHTS}" for name in CHECKPOINTS if is_removed(run, name)}
    for name, expected in read_training(run).files.items():
        if name in removed:
            continue
        fault = "corrupt: its bytes are not those that training wrote"
        check_hash(run.folder / name, expected, fault, _name_remedy(run))


def note_start(run: Run, hardware: dict[str, Any]) -> None:
    """Keep the time of the run's first start, and the machines of all starts, in its state folder.

    hardware: of this start, see `jobs.hardware`; one that is there already is not added again.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    earlier = read_machines(run)
    if read_start(run) is None or hardware not in earlier:
        started = {"started_at": read_start(run) or now, "machines": [*earlier, hardware]}
        write_json(_find_started(run), started)


def read_start(run: Run) -> str | None:
    """Return the ISO date and time that `note_start` kept; None where none is readable."""
    try:
        return str(read_json(_find_started(run))["started_at"])
    except (UserError, KeyError, TypeError):
        return None


def read_machines(run: Run) -> list[dict[str, Any]]:
    """Return the machines that `note_start` kept, in the order of the starts; [] where none are readable."""
    try:
        return [dict(each) for each in read_json(_find_started(run))["machines"]]
    except (UserError, KeyError, TypeError, ValueError):
        return []


def find_weights(run: Run, checkpoint: str) -> str:
    """Return the SHA-256 of a checkpoint's weights as training wrote them.

    Raises UserError where `training.json` does not name it.
    """
    try:
        return read_training(run).files[f"{checkpoint}/{WEIGHTS}"]
    except KeyError as error:
        raise UserError(
            f"{run.files.training}: names no weights of '{checkpoint}'; expected their SHA-256; "
            f"{_name_remedy(run)}"
        ) from error


def _name_remedy(run: Run) -> str:
    return f"remove {run.folder} to train again"


def _find_started(run: Run) -> Path:
    return run.state / "started.json"


def _find_finished(run: Run) -> Path:
    return run.state / "finished"


def _is_sound(finished: RunFiles, origin: str) -> bool:
    if not finished.folder.is_dir():
        return False
    try:
        marker = Training.read(finished.training, "training again")
        if marker.origin != origin:
            return False
        found = hash_tree(finished.folder)
        del found[finished.training.name]
        sound = marker.files == found
    except (UserError, OSError, KeyError):
        sound = False
    if not sound:
        print(f"warning: {finished.folder} is corrupt; training again", flush=True)
    return sound
