"""The job that prepares a (dataset, student) pair: parse and tokenise it once for all its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from cotdistill import data, methods, students
from cotdistill.common.errors import UserError
from cotdistill.common.files import digest, remove_leftovers, write_text
from cotdistill.config.models import DatasetEntry, Experiment, StudentEntry
from cotdistill.data.checks import Demands, check_splits
from cotdistill.data.overlap_report import find_overlap, list_overlap_warnings, write_overlap
from cotdistill.data.prepared import CHECKED, WARNINGS, Prepared, check_joins, is_current, write_prepared
from cotdistill.data.splits import compute_checksum, digest_ids, measure_teacher
from cotdistill.data.tasks import SHARED_LITERALS
from cotdistill.data.token_warnings import Aim, Limits, list_length_warnings, list_text_warnings
from cotdistill.data.tokenizers import load_tokenizer
from cotdistill.methods import Method
from cotdistill.runs.code import compute_preparation_code, digest_preparation_settings
from cotdistill.runs.grid import Run, expand


def prepare(experiment: Experiment, dataset: DatasetEntry, student: StudentEntry, folder: Path) -> bool:
    """Parse and tokenise a pair into `folder`, atomically; return whether there was anything to do.

    A folder that is sound and was made by this code from the same rows, settings and checkpoint is kept. Its
    warnings are written anew either way: they depend on settings of the runs that the data do not depend on.
    Raises UserError on bad data, a bad student, or a tokenizer that does not fit a method's texts.
    """
    disjoint = dataset.split == "group-disjoint"
    splits = data.load(dataset.adapter, experiment.data_root, path=dataset.path, disjoint=disjoint)
    answer = dataset.answer or data.adapter(dataset.adapter).answer
    runs = _find_runs(experiment, dataset, student)
    used = {run.method.name: methods.build(run.method.method, run.method.settings) for run in runs}
    found = check_splits(dataset.name, splits, _find_demands(runs, used, dataset, answer))
    found += data.find_unread(dataset.adapter, experiment.data_root, path=dataset.path)
    checksum, source = compute_checksum(splits), students.describe_source(student)
    overlap = find_overlap(folder, splits, checksum)
    found += list_overlap_warnings(dataset.name, overlap)
    settings = digest_preparation_settings(dataset, student)
    key = digest([settings, compute_preparation_code(dataset, student), checksum, source])
    built = [methods.build(entry.method, entry.settings) for entry in experiment.methods]
    own = list_own_literals(built)
    if is_current(folder, key):
        remove_leftovers(folder.parent, folder.name)
        # a method that was added to the grid since may have texts of its own
        check_joins(splits["train"][:CHECKED]["input"], load_tokenizer(folder / "tokenizer"), own)
        write_overlap(folder, overlap, checksum)
        _write_warnings(dataset, student, folder, runs, used, found)
        return False
    about = {
        "dataset": dataset.name,
        "adapter": dataset.adapter,
        "student_name": student.name,
        "student": source,
        "answer": answer,
        "split": dataset.split,
        "checksum": checksum,
        "split_ids": digest_ids(splits),
        "teacher": measure_teacher(splits, answer),
    }
    write_prepared(folder, key, about, splits, partial(students.make_tokenizer, student), own)
    write_overlap(folder, overlap, checksum)
    _write_warnings(dataset, student, folder, runs, used, found)
    return True


def _find_runs(experiment: Experiment, dataset: DatasetEntry, student: StudentEntry) -> list[Run]:
    """Return the grid's runs of a pair."""
    pair = (dataset.name, student.name)
    return [run for run in expand(experiment) if (run.dataset.name, run.student.name) == pair]


def _find_demands(
    runs: Sequence[Run], used: Mapping[str, Method], dataset: DatasetEntry, answer: str
) -> Demands:
    """Return what the runs of a pair take from its rows. used: their methods, by name."""
    rationales = tuple(
        name for name, method in used.items() if any("rationale" in task.target for task in method.tasks)
    )
    teacher_labels = any(run.labels == "teacher" for run in runs)
    return Demands(answer, rationales, teacher_labels, data.adapter(dataset.adapter).needs_release)


def _write_warnings(
    dataset: DatasetEntry, student: StudentEntry, folder: Path, runs: Sequence[Run],
    used: Mapping[str, Method], found: Sequence[str],
) -> None:  # fmt: skip
    """Write what a person should know of the pair. Raises UserError where a method can never be right.

    used: the methods of `runs`, by name. found: warnings of the rows themselves.
    """
    made = Prepared(folder)
    try:
        lines = [*list_text_warnings(made), *_list_run_warnings(made, runs, used)]
    except UserError as error:
        raise UserError(f"dataset '{dataset.name}', student '{student.name}': {error}") from error
    lines = [*found, *(f"{dataset.name}, {student.name}: {line}" for line in lines)]
    # one line each, whatever stands in the texts that they quote
    write_text(folder / WARNINGS, "".join(f"{' '.join(line.split())}\n" for line in lines))


def _list_run_warnings(made: Prepared, runs: Sequence[Run], used: Mapping[str, Method]) -> list[str]:
    """Return the warnings that depend on the settings of the pair's runs, the same for all of them."""
    if not runs:
        return []
    training, evaluation = runs[0].training, runs[0].experiment.evaluation
    limits = Limits(training.max_input_tokens, training.max_target_tokens, evaluation.max_new_tokens)
    aims = [Aim(name, tuple(method.tasks), method.read_label) for name, method in used.items()]
    return list_length_warnings(made, limits, aims, list(dict.fromkeys(run.labels for run in runs)))


def list_own_literals(built: Sequence[Method]) -> list[str]:
    """Return the prefixes and literal target texts of these methods that no published method has."""
    texts = {text for method in built for task in method.tasks for text in task.literals}
    return sorted(texts - set(SHARED_LITERALS))
