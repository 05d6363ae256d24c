"""Every file that numbers come from, corrupted in every way: it is noticed, or it has no influence.

Noticed means one line that names the file and what to remove; removing just that, and starting again,
leads to the same numbers.
"""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cotdistill.common.errors import UserError
from cotdistill.jobs.train import train
from cotdistill.orchestration.workflow import Workflow
from cotdistill.runs.experiment import load
from cotdistill.runs.grid import Run
from cotdistill.tables.collect import collect
from cotdistill.tables.store import Tables
from cotdistill.training.trainer import Trainer

Corruption = Callable[[bytes], bytes]
PREPARED = "prepared/colours/small"
RUN = "runs/colours/small/dss/gold/1/0"
SIZES = {"steps": 6, "eval_every": 2, "log_every": 2, "checkpoint_every": 2}
# `content` is a digest of times, too
TIMES = ["evaluation_wall_s", "wall_s", "peak_memory_mb", "started_at", "finished_at", "content", "folder"]


def flipped(content: bytes, bit: int | None = None) -> bytes:
    """One bit flipped, in the middle unless said where."""
    bit = 4 * len(content) + 2 if bit is None else bit
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


WAYS: dict[str, Corruption] = {
    "truncated": lambda content: content[: len(content) // 2],
    "a bit flipped": flipped,
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "random bytes": lambda content: random.Random(len(content)).randbytes(len(content)),
}


class Site:
    """A results folder with one run, and the commands that read it."""

    def __init__(self, root: Path, config: Path, run: Run, command: Callable[..., str]) -> None:
        self.root, self.config, self.run, self.command = root, config, run, command

    def __call__(self, *names: str) -> str:
        """Run commands until one refuses; its line, or "" where all end well."""
        for name in names:
            more = {"train": ("--run", self.run.id), "evaluate": ("--run", self.run.id),
                    "prepare": ("--dataset", "colours", "--student", "small")}.get(name, ())  # fmt: skip
            if line := self.command(name, "--config", self.config, *more):
                return line
        return ""

    def drop(self, *names: str) -> None:
        """Remove files and folders, as a person or Snakemake does."""
        for name in names:
            path = self.root / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def table(self) -> pd.DataFrame:
        """The table of results, without times."""
        return Tables(load(self.config)).results.drop(columns=TIMES)


@pytest.fixture(scope="session")
def made(tiny: Any, once: Any) -> Path:
    """The results of a finished run, from prepared data to tables. Shared: copy it."""
    from cotdistill.jobs.evaluate import evaluate
    from cotdistill.report.comparison import write_comparison

    def build(folder: Path) -> None:
        config, run = tiny.config_file(folder, "dss", **SIZES)
        train(run)
        evaluate(run)
        experiment = load(config)
        collect(experiment)
        write_comparison(experiment)

    return once("corruption", build) / "tiny"


@pytest.fixture
def site(made: Path, tiny: Any, tmp_path: Path, command: Callable[..., str]) -> Site:
    """A copy of it, to corrupt."""
    shutil.copytree(made, tmp_path / "tiny")
    config, run = tiny.config_file(tmp_path, "dss", **SIZES)
    return Site(tmp_path / "tiny", config, run, command)


# what is done with the file, each time with the outputs removed that would make it again
COLLECT, COMPARE = ("collect", "compare"), ("compare",)
EVALUATE, TRAIN = ("evaluate", *COLLECT), ("train", "evaluate", *COLLECT)
METRICS = (f"{RUN}/metrics.json", f"{RUN}/predictions.jsonl")
USES: dict[str, list[tuple[tuple[str, ...], tuple[str, ...]]]] = {
    r"runs/.*/(config|environment|training)\.json|runs/.*/history\.jsonl|runs/.*/model(_last)?/.*":
        [((), COLLECT), (METRICS, EVALUATE)],
    r"runs/.*/(metrics\.json|predictions\.jsonl)": [((), COLLECT)],
    r"runs/.*/answers/.*": [((), COLLECT), (METRICS, EVALUATE)],
    r"prepared/.*": [((), COLLECT), ((RUN,), TRAIN)],
    r"[a-z]+\.parquet": [((), COMPARE)],
    r"results\.csv|tables/.*": [((), COMPARE)],  # nothing reads them
}  # fmt: skip
TABLES = ("results.parquet", "history.parquet", "measures.parquet", "examples.parquet", "samples.parquet")
FILES = [
    *(f"{RUN}/{name}" for name in (
        "config.json", "environment.json", "history.jsonl", "training.json", "metrics.json",
        "predictions.jsonl", "answers/model.json", "answers/model.jsonl", "answers/model_last.json",
        "answers/model_last.jsonl",
    )),
    *(f"{RUN}/{folder}/{name}" for folder in ("model", "model_last") for name in (
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    )),
    *(f"{PREPARED}/{name}" for name in (
        "manifest.json", "key.txt", "overlap.json", "train.arrow", "valid.arrow", "test.arrow",
        "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json",
    )),
    *TABLES,
]  # fmt: skip
UNREAD = [
    "results.csv",
    f"{PREPARED}/warnings.txt",
    *(f"tables/{name}" for name in (
        "comparison.csv", "comparison.html", "comparison.md", "comparison.tex", "evidence.csv",
        "samples.html", "samples.md", "verdict.md", "verdict.txt",
    )),
]  # fmt: skip


def test_the_table_of_files_is_complete(made: Path) -> None:
    found = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
    assert found == {*FILES, *UNREAD}


def uses(file: str) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    (found,) = [steps for pattern, steps in USES.items() if re.fullmatch(pattern, file)]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_a_corrupt_file_is_noticed_or_has_no_influence(site: Site, made: Path, file: str) -> None:
    whole, sound = site.table(), (made / file).read_bytes()
    numbers = {name: (made / name).read_bytes() for name in UNREAD[1:]}
    read = reader(file)
    tables = {read: read(load(site.config))}
    for dropped, names in uses(file):
        # files that are compared with a digest before they are parsed are all the same to it
        alike = re.search("model|tokenizer|arrow", file)
        for way in ["truncated", "a bit flipped"] if alike else WAYS:
            site.drop(*dropped)
            (site.root / file).write_bytes(WAYS[way](sound))
            line = site(*names)
            if file.endswith(".parquet"):
                line = refusal(read, site, tables[read])
            if line:
                named = str(site.root / file)
                assert line.startswith((f"{named}:", f"cannot read {named}:")), f"{way}: {line}"
                remedy = re.search(r"remove (\S+) to (prepare|train|evaluate|collect) again$", line)
                # it, a folder that holds it, or what Snakemake asks for of the job that makes it
                asked = named.replace("predictions.jsonl", "metrics.json")
                assert remedy and asked.startswith(remedy[1]), f"{way}: {line}"
            else:
                pd.testing.assert_frame_equal(site.table(), whole)
                assert {name: (site.root / name).read_bytes() for name in UNREAD[1:]} == numbers, way
            shutil.rmtree(site.root)
            shutil.copytree(made, site.root)


def reader(file: str) -> Callable[[Any], pd.DataFrame]:
    """What reads a table; the table of results for any other file."""
    name = Path(file).stem if file in TABLES else "results"
    return lambda experiment: getattr(Tables(experiment), name)


def refusal(read: Callable[..., pd.DataFrame], site: Site, expected: pd.DataFrame) -> str:
    """What is said of a table of results that does not read; "" where it reads as it was."""
    try:
        found = read(load(site.config))
    except UserError as error:
        return str(error)
    # what is no content of the table has no checksum, and no influence
    pd.testing.assert_frame_equal(found, expected)
    site.drop(*TABLES)
    assert site(*COLLECT) == ""
    return ""


AGAIN = {"prepare": ("prepare", *TRAIN), "train": TRAIN, "evaluate": EVALUATE, "collect": COLLECT}


@pytest.mark.slow
@pytest.mark.parametrize(
    "file", [f"{PREPARED}/train.arrow", f"{PREPARED}/test.arrow", f"{PREPARED}/manifest.json",
             f"{RUN}/history.jsonl", f"{RUN}/model/config.json", f"{RUN}/training.json",
             f"{RUN}/metrics.json", f"{RUN}/predictions.jsonl", "results.parquet"],
)  # fmt: skip
def test_doing_what_the_line_says_leads_to_the_same_numbers(
    site: Site, made: Path, numbers: Callable[[Run], Any], file: str
) -> None:
    whole, before = site.table(), numbers(site.run)
    dropped, names = uses(file)[-1]
    site.drop(*dropped)
    way = "truncated" if file.endswith(".parquet") else "a bit flipped"
    (site.root / file).write_bytes(WAYS[way]((made / file).read_bytes()))
    remedy = re.search(r"remove (\S+) to (\w+) again$", site(*names))
    assert remedy
    path = Path(remedy[1])
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert site(*AGAIN[remedy[2]]) == ""
    pd.testing.assert_frame_equal(site.table(), whole)
    assert numbers(site.run) == before


def test_predictions_that_are_gone_are_named_with_what_brings_them_back(site: Site) -> None:
    metrics, predictions = (site.root / name for name in METRICS)
    whole, before = site.table(), predictions.read_bytes()
    predictions.unlink()
    line = site(*COLLECT)
    assert line.startswith(f"cannot read {predictions}: ")
    assert line.endswith(f"remove {metrics} to evaluate again")
    metrics.unlink()
    assert site(*EVALUATE) == "" and predictions.read_bytes() == before
    pd.testing.assert_frame_equal(site.table(), whole)


@pytest.mark.slow
@pytest.mark.parametrize("file", [*METRICS, f"{RUN}/environment.json", f"{RUN}/history.jsonl"])
def test_no_flipped_bit_reaches_the_tables(site: Site, made: Path, file: str) -> None:
    experiment = load(site.config)
    sound, dice = (site.root / file).read_bytes(), random.Random(file)
    collect(experiment)
    tables = Tables(experiment).results, Tables(experiment).history
    for bit in dice.sample(range(8 * len(sound)), 40):
        (site.root / file).write_bytes(flipped(sound, bit))
        try:
            collect(experiment)
        except UserError as error:
            assert "\n" not in str(error)
            continue
        now = Tables(experiment)
        for found, expected in zip((now.results, now.history), tables, strict=True):
            pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize("file", TABLES)
def test_no_flipped_bit_leaves_a_table(site: Site, file: str) -> None:
    experiment = load(site.config)
    read = reader(file)
    sound, expected, dice = (site.root / file).read_bytes(), read(experiment), random.Random(file)
    for bit in dice.sample(range(8 * len(sound)), 80):
        (site.root / file).write_bytes(flipped(sound, bit))
        try:
            found = read(experiment)
        except UserError as error:
            assert "\n" not in str(error) and "collect again" in str(error)
            continue
        pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize("way", WAYS)
def test_a_frozen_grid_is_written_again(tiny: Any, tmp_path: Path, way: str) -> None:
    grid = Workflow(tiny.config(tmp_path, "dss"), "tests")
    grid.freeze()
    sound = Path(grid.grid).read_bytes()
    Path(grid.grid).write_bytes(WAYS[way](sound))
    grid.freeze()
    assert Path(grid.grid).read_bytes() == sound


# --- runs that are not finished


class Stopped(Exception):
    """The interruption of these tests."""


@pytest.fixture(scope="session")
def half(tiny: Any, once: Any) -> Path:
    """The same run, interrupted in its fifth step. Shared: copy it."""

    def build(folder: Path) -> None:
        original = Trainer.take_step

        def step(self: Trainer, number: int) -> Any:
            if number == 5:
                raise Stopped
            return original(self, number)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "take_step", step)
            with pytest.raises(Stopped):
                train(tiny.run(folder, "dss", **SIZES))

    return once("half", build) / "tiny"


def state_files(root: Path) -> list[str]:
    """The newest state, the history and one best checkpoint, relative to the state's folder."""
    best = max(root.glob("best-*")).name
    return [
        *(f"step-4/{name}" for name in (
            "model.safetensors", "optimizer.safetensors", "window.safetensors", "state.json"
        )),
        "history.jsonl", *(f"{best}/{path.name}" for path in sorted((root / best).iterdir())),
    ]  # fmt: skip


# a best checkpoint's files, from the sixth on, are all checked alike, by digest
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "way"),
    [(number, way) for number in range(10) for way in WAYS if number < 5 or way == "a bit flipped"],
)
def test_a_run_goes_on_from_what_is_sound(
    half: Path, made: Path, tiny: Any, tmp_path: Path, numbers: Callable[[Run], Any], capsys: Any,
    number: int, way: str,
) -> None:  # fmt: skip
    run, whole = tiny.run(tmp_path / "half", "dss", **SIZES), tiny.run(tmp_path, "dss", **SIZES)
    shutil.copytree(half / RUN, run.folder)
    shutil.copytree(made / RUN, whole.folder)
    names = state_files(run.state)
    assert len(names) == 10
    file = run.state / names[number]
    file.write_bytes(WAYS[way](file.read_bytes()))
    train(run)
    assert f"warning: {run.state / 'step-4'} is corrupt" in capsys.readouterr().out
    assert numbers(run) == numbers(whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["training.json", "history.jsonl", "model_last/config.json"])
def test_a_finished_copy_that_is_corrupt_is_trained_again(
    tiny: Any, tmp_path: Path, made: Path, numbers: Callable[[Run], Any], capsys: Any, name: str
) -> None:
    run, whole = tiny.run(tmp_path / "again", "dss", **SIZES), tiny.run(tmp_path, "dss", **SIZES)
    shutil.copytree(made / RUN, whole.folder)
    train(run)
    file = run.state / "finished" / name
    file.write_bytes(flipped(file.read_bytes()))
    for path in run.folder.iterdir():  # as Snakemake does before it starts a job again
        if path.name != "state":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    train(run)
    assert "finished is corrupt; training again" in capsys.readouterr().out
    assert numbers(run) == numbers(whole)
