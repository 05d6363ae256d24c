"""Methods: what a student is trained on and what it minimises. One file per method.

A method names its tasks (a prefix on the input and the fields that make the target) and turns the outputs of
those tasks into named, weighted loss terms. Adding a method is adding a file with a `METHOD` to this folder;
the conformance tests cover whatever is registered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from cotdistill.common.registry import Registry
from cotdistill.config.models import MethodEntry, Strict
from cotdistill.config.validation import validate
from cotdistill.data.tasks import FIELDS, Task
from cotdistill.students.interface import Needs, TaskOutput, Term

if TYPE_CHECKING:
    import torch

__all__ = ["FIELDS", "METHODS", "Method", "Needs", "Task", "TaskOutput", "Term", "build", "resolve_settings"]

METHODS = Registry(__name__, "method")


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
        """Return new modules that the terms learn with, for a student of width `d_model`, or None."""
        return None

    def equip(self, d_model: int, seed: int) -> None:
        """Give the method its own modules, drawn from `seed`; the global random state is not changed."""
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
        """Return the loss terms by name, from the outputs by task name."""
        raise NotImplementedError

    def read_label(self, text: str) -> str:
        """Return the label in the text that the first task generated; by default all of it."""
        return text

    @property
    def label_task(self) -> Task | None:
        """The task that writes a label alone, if there is one."""
        return next((task for task in self.tasks if task.target == ("label",)), None)

    @property
    def rationale_task(self) -> Task | None:
        """The task that writes a rationale alone, if there is one."""
        return next((task for task in self.tasks if task.target == ("rationale",)), None)


def resolve_settings(entry: MethodEntry, where: str = "methods") -> dict[str, Any]:
    """Return all settings of a method entry, defaults filled in. Raises UserError on an unknown or wrong one.

    where: the place of the entry, for the message.
    """
    model = METHODS.module(entry.method).METHOD.Settings
    return validate(model, entry.settings, where).model_dump()


def is_proposed(entry: MethodEntry) -> bool:
    """Return whether a method entry is one that the comparison is about: no reference, and not switched off.

    A mutual-information term of weight 0 (`beta`) trains as the reference does. Raises UserError as
    `resolve_settings` does.
    """
    return not METHODS.module(entry.method).METHOD.reference and resolve_settings(entry).get("beta") != 0


def build(method: str, settings: Mapping[str, Any] | None = None) -> Method:
    """Return the method with its settings, defaults filled in. Raises UserError on unknown names."""
    cls: type[Method] = METHODS.module(method).METHOD
    return cls(validate(cls.Settings, dict(settings or {}), f"method '{method}'"))
