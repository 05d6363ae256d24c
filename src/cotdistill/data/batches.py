"""The examples of each training step, and the token ids of their inputs and targets.

The order is a pure function of (dataset, seed, step): a run that is stopped and started again, or that trains
with another method, gets the same examples at the same step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from cotdistill.common.seeds import derive
from cotdistill.data.prepared import Prepared, Ragged
from cotdistill.data.tasks import Task

IGNORED = -100
"""label of a target position that holds padding"""


@dataclass(frozen=True)
class Batch:
    """One task's examples as token ids, without padding.

    inputs, targets: an int64 tensor for each of B examples, the end token included. longest_target: tokens
    of the longest target of the whole batch, also where these examples are a part of it.
    """

    inputs: list[torch.Tensor]
    targets: list[torch.Tensor]
    longest_target: int

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: Sequence[int]) -> Batch:
        """Return these rows' examples as a part of the batch; `longest_target` is still the whole batch's."""
        parts = [[part[row] for row in rows] for part in (self.inputs, self.targets)]
        return Batch(parts[0], parts[1], self.longest_target)

    @property
    def tokens(self) -> int:
        """Number of target tokens."""
        return sum(map(len, self.targets))

    def pad(self, pad_token: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return input_ids (B, S), attention_mask (B, S) and labels (B, T), as transformers takes them.

        Padding is on the right: `pad_token` in inputs, 0 in the mask and IGNORED in labels. S is these
        examples' longest input, T the whole batch's longest target.
        """
        ids = pad_sequence(self.inputs, batch_first=True, padding_value=pad_token)
        lengths = torch.tensor([len(row) for row in self.inputs])
        mask = (torch.arange(ids.shape[1])[None, :] < lengths[:, None]).long()
        labels = pad_sequence(self.targets, batch_first=True, padding_value=IGNORED)
        labels = torch.nn.functional.pad(labels, (0, self.longest_target - labels.shape[1]), value=IGNORED)
        return ids, mask, labels


class Order:
    """The rows of each step: epochs, each in a new random order, cut into batches (the last may be small)."""

    def __init__(self, rows: Sequence[int], batch_size: int, dataset: str, seed: int) -> None:
        self.rows, self.batch_size = np.asarray(rows), batch_size
        self.dataset, self.seed = dataset, seed
        self.per_epoch = -(-len(self.rows) // batch_size)
        self._epoch, self._permuted = -1, self.rows

    def batch(self, step: int) -> np.ndarray:
        """Return the row numbers (B,) of step `step`, counted from 1."""
        epoch, place = divmod(step - 1, self.per_epoch)
        if epoch != self._epoch:
            seed = derive("example order", dataset=self.dataset, seed=self.seed, epoch=epoch)
            self._permuted = self.rows[np.random.Generator(np.random.PCG64(seed)).permutation(len(self.rows))]
            self._epoch = epoch
        return self._permuted[place * self.batch_size : (place + 1) * self.batch_size]

    def epoch(self, step: int) -> float:
        """Return the epochs completed after step `step`, the current one in part."""
        return step / self.per_epoch


class Collator:
    """Token ids of one split's examples, put together to inputs and targets of a task."""

    def __init__(
        self, prepared: Prepared, split: str, labels: str, max_input_tokens: int, max_target_tokens: int
    ) -> None:
        """Read the split's token ids. labels: 'gold' or 'teacher', the source of the target field `label`."""
        self.tokenizer = prepared.tokenizer()
        self.inputs = prepared.ragged(split, "input")
        self.fields: dict[str, Ragged] = {
            "label": prepared.ragged(split, "teacher_label" if labels == "teacher" else "label"),
            "rationale": prepared.ragged(split, "rationale"),
        }
        self.max_input_tokens, self.max_target_tokens = max_input_tokens, max_target_tokens
        self.end = int(self.tokenizer.eos_token_id)
        self._literals: dict[str, np.ndarray] = {}

    def input_ids(self, task: Task, row: int) -> np.ndarray:
        """Return prefix, input and end token, (S,) int64; one longer than `max_input_tokens` is cut."""
        prefix = self._literal(task.prefix)
        room = self.max_input_tokens - len(prefix) - 1
        ids = np.concatenate([prefix, self.inputs[row][: max(room, 0)], [self.end]])
        return ids.astype(np.int64, copy=False)

    def target_ids(self, task: Task, row: int) -> np.ndarray:
        """Return the target's fields and the end token as (T,) int64.

        A target longer than `max_target_tokens` loses the end of its first field, so that a label behind a
        long rationale is kept.
        """
        parts = [self.fields[f][row] if f in self.fields else self._literal(f) for f in task.target]
        room = self.max_target_tokens - 1
        rest = [token for part in parts[1:] for token in part][:room]
        first = parts[0][: room - len(rest)]
        return np.asarray([*first, *rest, self.end], dtype=np.int64)

    def batch(self, task: Task, rows: Sequence[int] | np.ndarray) -> Batch:
        """Return the task's examples for these rows."""
        inputs = [torch.from_numpy(self.input_ids(task, row)) for row in rows]
        targets = [torch.from_numpy(self.target_ids(task, row)) for row in rows]
        return Batch(inputs, targets, max(map(len, targets)))

    def _literal(self, text: str) -> np.ndarray:
        if text not in self._literals:
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
            self._literals[text] = np.asarray(ids, dtype=np.int64)
        return self._literals[text]

