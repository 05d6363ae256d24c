"""Choose an engine for a student, and make its parts.

Parts are imported by name, so that the fingerprint of a stage's code (`runs.code`) names those that it runs:
an edit of option scoring does not train again.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cotdistill.students.interface import Learner, Scorer, Writer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ENGINES = ("packed", "reference")


def choose(setting: str, device: str) -> str:
    """Return the engine for a setting of `training.engine` on a kind of device, 'cpu' or 'cuda'.

    `auto` is packed where that was measured to be faster: on a CPU. On a GPU nobody has measured yet.
    """
    if setting != "auto":
        return setting
    return "packed" if device == "cpu" else "reference"


def list_possible(setting: str, device: str) -> tuple[str, ...]:
    """Return the engines that `choose` may return; a device of 'auto' may be a CPU or a GPU."""
    devices = ("cpu", "cuda") if device == "auto" else (device,)
    return tuple(dict.fromkeys(choose(setting, kind) for kind in devices))


def name_module(engine: str, part: str) -> str:
    """Return the name, below the package, of an engine's part: learning, writing or scoring."""
    return f"students.{engine}.{part}"


def make_learner(engine: str, model: PreTrainedModel, precision: str = "fp32") -> Learner:
    """Return the part that computes gradients. precision: fp32, or bf16 for matrix products."""
    learner: Learner = _part(engine, "learning").Learner(model, precision)
    return learner


def make_writer(engine: str, model: PreTrainedModel, precision: str = "fp32") -> Writer:
    """Return the part that generates. The model's weights must not change while it is used."""
    writer: Writer = _part(engine, "writing").Writer(model, precision)
    return writer


def make_scorer(engine: str, writer: Writer) -> Scorer:
    """Return the part that scores targets for inputs that `writer` has read."""
    scorer: Scorer = _part(engine, "scoring").Scorer(writer)
    return scorer


def _part(engine: str, part: str) -> Any:
    return importlib.import_module(f"cotdistill.{name_module(engine, part)}")
