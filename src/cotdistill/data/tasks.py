"""Tasks: what a student reads and what it is to write."""

from __future__ import annotations

from dataclasses import dataclass

FIELDS = ("label", "rationale")
"""fields of an example that a target may hold; `label` is the gold or the teacher's, as the run says"""

SHARED_LITERALS = ("So the answer is:", "explain: ", "predict: ")
"""prefixes and literal texts of the published methods. A scratch student's tokenizer learns these, and no
other method's, so that a new method does not change the students of the methods that are there"""


@dataclass(frozen=True)
class Task:
    """One pass of the student: `prefix` before the input, `target` the fields or literal texts to write."""

    name: str
    prefix: str
    target: tuple[str, ...]

    @property
    def literals(self) -> list[str]:
        """The texts that are no field: the prefix, and what is between the target's fields."""
        return [text for text in (self.prefix, *self.target) if text and text not in FIELDS]


def limit_answer(task: Task, max_new_tokens: int, max_target_tokens: int) -> int:
    """Return the most tokens that a student writes for a task, be it a label alone or a longer target."""
    return max_new_tokens if task.target == ("label",) else max_target_tokens
