"""The job that prepares a (dataset, student) pair: parse and tokenise it once for all its runs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from cotdistill import data, methods, students
from cotdistill.common.files import digest, remove_leftovers
from cotdistill.config.models import DatasetEntry, Experiment, StudentEntry
from cotdistill.data.prepared import CHECKED, check_joins, is_current, write_prepared
from cotdistill.data.splits import compute_checksum, measure_teacher
from cotdistill.data.tasks import SHARED_LITERALS
from cotdistill.data.tokenizers import load_tokenizer
from cotdistill.methods import Method
from cotdistill.runs.code import compute_preparation_code, digest_preparation_settings


def prepare(experiment: Experiment, dataset: DatasetEntry, student: StudentEntry, folder: Path) -> bool:
    """Parse and tokenise a pair into `folder`, atomically; return whether there was anything to do.

    A folder that is sound and was made by this code from the same rows, settings and checkpoint is kept.
    Raises UserError on bad data, a bad student, or a tokenizer that does not fit a method's texts.
    """
    splits = data.load(dataset.adapter, experiment.data_root, path=dataset.path)
    answer = dataset.answer or data.adapter(dataset.adapter).answer
    checksum, source = compute_checksum(splits), students.describe_source(student)
    settings = digest_preparation_settings(dataset, student)
    key = digest([settings, compute_preparation_code(dataset, student), checksum, source])
    built = [methods.build(entry.method, entry.settings) for entry in experiment.methods]
    own = list_own_literals(built)
    if is_current(folder, key):
        remove_leftovers(folder.parent, folder.name)
        # a method that was added to the grid since may have texts of its own
        check_joins(splits["train"][:CHECKED]["input"], load_tokenizer(folder / "tokenizer"), own)
        return False
    about = {
        "dataset": dataset.name,
        "adapter": dataset.adapter,
        "student_name": student.name,
        "student": source,
        "answer": answer,
        "checksum": checksum,
        "teacher": measure_teacher(splits, answer),
    }
    write_prepared(folder, key, about, splits, partial(students.make_tokenizer, student), own)
    return True


def list_own_literals(built: Sequence[Method]) -> list[str]:
    """Return the prefixes and literal target texts of these methods that no published method has."""
    texts = {text for method in built for task in method.tasks for text in task.literals}
    return sorted(texts - set(SHARED_LITERALS))
