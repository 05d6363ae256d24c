"""Methods: what a student is trained on and what it minimises. One file per method.

A method names its tasks (a prefix on the input and the fields that make the target) and turns the
outputs of those tasks into named, weighted loss terms. Adding a method is adding a file to this
folder with a `METHOD`; the conformance tests cover whatever is registered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from cotdistill.common.registry import Registry
from cotdistill.config.models import MethodEntry, Strict
from cotdistill.config.validation import validate

if TYPE_CHECKING:
    import torch

METHODS = Registry(__name__, "method")

FIELDS = ("label", "rationale")
"""fields of an example that a target may hold; `label` is the gold or the teacher's, as the run says"""


@dataclass(frozen=True)
class Task:
    """One pass of the student: `prefix` before the input, `target` the fields or literal texts to write."""

    name: str
    prefix: str
    target: tuple[str, ...]


@dataclass(frozen=True)
class Needs:
    """What a method's terms read beside each task's cross-entropy. What is not needed is not computed."""

    hidden: bool = False
    """the decoder's states"""
    logits: bool = False
    """all positions' logits: memory for B x T x V numbers, and as many gradients"""
    pooling: Literal["max", "mean"] | None = None
    """the probabilities pooled over positions"""
    padding: bool = False
    """positions include padding up to the longest target of the batch, as in a plain padded pass"""


@dataclass(frozen=True)
class TaskOutput:
    """What one task's pass gave on B examples of a batch.

    cross_entropy: scalar; summed over the parts of a batch it is the batch's token mean.
    share: these examples' part of the batch's, for terms that are means over examples.
    mask: (B, T), true where a target token is real.
    The rest is float32 and there where the method `needs` it: pooled: (B, V), each token's largest (or mean)
    probability over an example's positions; hidden: (B, T, d_model), the decoder's last states before
    the output layer; logits: (B, T, V), 0 where there is no position.
    """

    cross_entropy: torch.Tensor
    share: float
    mask: torch.Tensor
    pooled: torch.Tensor | None = None
    hidden: torch.Tensor | None = None
    logits: torch.Tensor | None = None


@dataclass(frozen=True)
class Term:
    """One named part of the loss: the loss is the sum of `weight * value`. A weight of 0 is only logged."""

    value: torch.Tensor
    weight: float


class Method:
    """Base of all methods; subclasses set `Settings`, `tasks` and `terms`."""

    Settings: ClassVar[type[Strict]] = Strict
    contrastive: ClassVar[frozenset[str]] = frozenset()
    """terms that compare the examples of a micro-batch with each other: how a batch is cut changes them"""
    reference: ClassVar[bool] = False
    """whether it is a published method that others are compared with; a subclass does not inherit it"""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls.reference = cls.__dict__.get("reference", False)

    def __init__(self, settings: Strict) -> None:
        self.settings: Any = settings
        self.learned: torch.nn.Module | None = None
        """what is trained beside the student and thrown away with it; None before `equip`"""

    def modules(self, d_model: int) -> torch.nn.Module | None:
        """Fresh modules that the terms learn with, for a student of this width; None where there are none."""
        return None

    def equip(self, d_model: int, seed: int) -> None:
        """Give the method its own modules, a function of `seed`; the global random state stays as it was."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.learned = self.modules(d_model)

    def _own(self) -> torch.nn.Module:
        if self.learned is None:
            raise RuntimeError(f"{type(self).__name__} has terms only once it is equipped")
        return self.learned

    @property
    def needs(self) -> Needs:
        """What `terms` reads of each task's pass."""
        return Needs()

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The passes of one step. The first is the one that is evaluated: its output holds the label."""
        raise NotImplementedError

    def terms(self, outputs: Mapping[str, TaskOutput]) -> dict[str, Term]:
        """Loss terms by name, from the outputs by task name."""
        raise NotImplementedError

    def read_label(self, text: str) -> str:
        """The label in what the first task generated."""
        return text

    @property
    def label_task(self) -> Task | None:
        """The task that writes a label alone, if there is one."""
        return next((task for task in self.tasks if task.target == ("label",)), None)

    @property
    def rationale_task(self) -> Task | None:
        """The task that writes a rationale alone, if there is one."""
        return next((task for task in self.tasks if task.target == ("rationale",)), None)


def settings_of(entry: MethodEntry, where: str = "methods") -> dict[str, Any]:
    """All settings of a method entry, defaults filled in. Raises UserError on an unknown or wrong one."""
    model = METHODS.module(entry.method).METHOD.Settings
    return validate(model, entry.settings, where).model_dump()


def is_proposed(entry: MethodEntry) -> bool:
    """Return whether a method entry is one that the comparison is about: no reference, and not switched off.

    A mutual-information term of weight 0 (`beta`) trains as the reference does. Raises UserError as
    `settings_of` does.
    """
    return not METHODS.module(entry.method).METHOD.reference and settings_of(entry).get("beta") != 0


def build(method: str, settings: Mapping[str, Any] | None = None) -> Method:
    """The method with its settings (defaults filled in). Raises UserError on unknown names."""
    cls: type[Method] = METHODS.module(method).METHOD
    return cls(validate(cls.Settings, dict(settings or {}), f"method '{method}'"))
