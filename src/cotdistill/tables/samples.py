"""Choose a few test examples of each dataset and student, and put the runs' answers to them side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cotdistill.common.errors import UserError
from cotdistill.common.seeds import derive
from cotdistill.runs.documents import Answer, read_answers
from cotdistill.runs.grid import Run
from cotdistill.tables.columns import BLOCK

EXAMPLES = 5
"""test examples of each dataset and student"""
LONGEST = 400
"""characters of a text that are kept"""
TEACHER = "teacher"

_SHARED = [*BLOCK, "seed"]
"""axes of which all answers to an example share the value"""


@dataclass(frozen=True)
class Sample:
    """A test example with the answer of one run, or of the teacher."""

    input: str
    gold: str
    by: str
    """name of the method that answered, or `teacher`"""
    prediction: str
    """empty on the teacher's rows, as is `correct`"""
    correct: bool | None
    rationale: str
    """empty where there is none"""


def build_sample_rows(runs: Sequence[Run], data: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """Return the rows of the table `samples` (SAMPLE_COLUMNS): `EXAMPLES` examples a dataset and student.

    Shown are the methods that generate rationales, under the labels, fraction and seed that most of them
    have finished (the larger fraction, then the first in the grid, where several have as many).

    runs: finished, in the order of the grid, their files sound. data: checksum of each run's data by its
    id; runs that saw other data share no table. Raises UserError where a file cannot be read.
    """
    pairs: dict[tuple[str, str], dict[tuple[Any, ...], list[Run]]] = {}
    for run in runs:
        groups = pairs.setdefault((run.dataset.name, run.student.name), {})
        groups.setdefault((run.labels, run.fraction, run.seed, data.get(run.id)), []).append(run)
    rows = []
    for groups in pairs.values():
        group = max(groups, key=lambda found: (len(groups[found]), found[1]))
        rows += _build_rows(groups[group])
    return rows


def _build_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    answers = {run.method.name: read_answers(run.files.predictions) for run in runs}
    # a rationale that was asked for and is empty is an answer too
    written = {
        name: given
        for name, given in answers.items()
        if any(answer.rationale is not None for answer in given)
    }
    axes = {axis: runs[0].axes[axis] for axis in _SHARED}
    return [axes | asdict(cut_sample(sample)) for sample in choose_samples(written, EXAMPLES)]


def choose_samples(answers: Mapping[str, Sequence[Answer]], count: int, seed: int = 0) -> list[Sample]:
    """Return the rows of `count` examples that all runs have: the teacher's first, then one for each run.

    answers: of each run, by its name. Which examples are chosen depends on their ids and the seed alone, not
    on the order of runs or answers. Raises UserError when two runs give an example another input or gold
    label: they are not runs of one dataset.
    """
    by_id = {name: {answer.id: answer for answer in given} for name, given in answers.items()}
    if not by_id:
        return []
    common = set.intersection(*(set(found) for found in by_id.values()))
    ids = sorted(common, key=lambda identity: (derive("sample", seed=seed, example=identity), identity))
    return [
        sample
        for identity in ids[:count]
        for sample in _collect_samples({name: found[identity] for name, found in by_id.items()})
    ]


def _collect_samples(answers: Mapping[str, Answer]) -> list[Sample]:
    """Return the rows of one example, from each run's answer to it."""
    texts = {(answer.input, answer.gold) for answer in answers.values()}
    if len(texts) > 1:
        identity = next(iter(answers.values())).id
        raise UserError(f"example '{identity:.60}': two runs give it another input or gold label")
    ((text, gold),) = texts
    teachers = [answer.teacher_rationale for answer in answers.values() if answer.teacher_rationale]
    samples = [Sample(text, gold, TEACHER, "", None, teachers[0])] if teachers else []
    return samples + [
        Sample(text, gold, name, answer.prediction, answer.correct, answer.rationale or "")
        for name, answer in answers.items()
    ]


def cut_sample(sample: Sample) -> Sample:
    """Return the sample with texts of at most `LONGEST` characters, of one line, without control characters.

    Such a text can be encoded whatever a model wrote.
    """
    texts = (sample.input, sample.gold, sample.by, sample.prediction, sample.rationale)
    given, gold, by, prediction, rationale = map(_shorten, texts)
    return Sample(given, gold, by, prediction, sample.correct, rationale)


def _shorten(text: str) -> str:
    # `isprintable` refuses control and format characters, such as those that turn the writing direction
    one_line = " ".join("".join(c if c.isprintable() else " " for c in text[: 2 * LONGEST]).split())
    return one_line if len(one_line) <= LONGEST else one_line[: LONGEST - 1].rstrip() + "…"
