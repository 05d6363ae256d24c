"""Option scores against one full forward pass per option, and the distinct options of an example."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cotdistill import methods, students
from cotdistill.common import stopping
from cotdistill.common.files import read_json, read_jsonl
from cotdistill.data.prepared import Prepared
from cotdistill.evaluation import option_scores
from cotdistill.inference import options
from cotdistill.inference.generate import Generator
from cotdistill.jobs.evaluate import evaluate
from cotdistill.jobs.prepare import prepare
from cotdistill.jobs.train import train
from cotdistill.runs import answers as stored
from cotdistill.runs.documents import Answer
from cotdistill.runs.grid import Run
from cotdistill.students.packed import scoring
from cotdistill.students.packed.passes import Passes

COLOURS = ["red", "dark blue", "green with grey dots", "dark blue with dots", "red"]
NUMBERS = ["one", "two or three"]


@pytest.fixture(scope="module")
def root(tiny: Any, once: Any) -> Path:
    """42 rows with options: some have five with a repetition, some two, some none."""

    def build(folder: Path) -> None:
        for split in ("train", "valid", "test"):
            lines = [json.loads(line) for line in (tiny.data / f"{split}.jsonl").read_text().splitlines()]
            for number, line in enumerate(lines):
                if number % 4 == 1:
                    line.update(label=NUMBERS[number % 3 % 2], options=NUMBERS)
                elif number % 4 != 3:
                    line["options"] = COLOURS
            file = folder / "data" / f"{split}.jsonl"
            file.parent.mkdir(exist_ok=True)
            file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        run = make(type(tiny)(folder / "data"), folder)
        prepare(run.experiment, run.dataset, run.student, folder / "prepared")

    return once("with-options", build)


def make(tiny: Any, results: Path, method: str = "dss", **more: Any) -> Run:
    return tiny.run(results, method, evaluation={"batch_size": 3, "rationales": False}, **more)


@pytest.fixture
def of(tiny: Any, root: Path, tmp_path: Path) -> Any:
    """The run of a method on these rows, in a folder of the test."""
    kind = type(tiny)(root / "data", root / "prepared")
    return lambda method="dss", **more: make(kind, tmp_path, method, **more)


def generator(run: Run) -> Generator:
    return Generator(run, Prepared(run.prepared), methods.build(run.method.method), "packed")


def scored_answers(made: Generator, model: Any, journal: Any = None) -> list[Answer]:
    scorer = options.OptionScorer(made.prepared, "test", "packed", 1, made.run.training.max_target_tokens)
    return made.answer(model, "test", journal, scorer)


def sums_of(made: Generator, model: Any, journal: Any = None) -> list[list[float]]:
    return [answer.option_log_likelihoods for answer in scored_answers(made, model, journal)]


def options_of(made: Generator, model: Any) -> list[list[str]]:
    return [answer.options for answer in scored_answers(made, model)]


def brute_force(model: Any, made: Generator, row: dict[str, Any], prefix: str) -> list[float]:
    """The sum over an option's tokens: one unpadded input and one option at a time, log-softmax by hand."""
    scores = []
    ids = torch.tensor([made.tokenizer(prefix + row["input"])["input_ids"]])
    for option in dict.fromkeys(row["options"]):
        target = made.tokenizer(option)["input_ids"]
        logits = model(input_ids=ids, decoder_input_ids=torch.tensor([[0, *target[:-1]]])).logits[0]
        parts = logits.double().log_softmax(-1)
        scores.append(sum(float(parts[place, token]) for place, token in enumerate(target)))
    return scores


@torch.no_grad()
@pytest.mark.parametrize(("method", "prefix"), [("dss", "predict: "), ("finetune", "")])
@pytest.mark.parametrize("most", [2, 1024])
def test_log_likelihoods_are_those_of_a_pass_for_each_option(
    of: Any, monkeypatch: Any, method: str, prefix: str, most: int
):
    run = of(method)
    monkeypatch.setattr(scoring, "MOST", most)
    torch.manual_seed(7)
    model = students.load(run.student, Prepared(run.prepared).manifest, run.repetition).eval()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    made = generator(run)
    found = scored_answers(made, model)
    rows = made.prepared.table("test").to_pylist()
    assert {len(answer.option_log_likelihoods) for answer in found} == {0, 2, 4}
    spread, lengths = 0.0, set()
    for row, answer in zip(rows, found, strict=True):
        assert answer.options == list(dict.fromkeys(row["options"]))
        sums = brute_force(model, made, row, prefix)
        assert answer.option_log_likelihoods == pytest.approx(sums, rel=1e-4)
        tokens = [len(made.tokenizer(option)["input_ids"]) for option in answer.options]
        assert answer.option_tokens == tokens, "the end token among them"
        means = [total / n for total, n in zip(sums, tokens, strict=True)]
        assert option_scores.compute_scores(answer, "mean") == pytest.approx(means, rel=1e-4)
        spread = max([spread, *option_scores.normalise(sums)])
        lengths |= set(tokens)
    assert spread > 0.7, "these weights tell options apart"
    assert len(lengths) > 2, "a score that counts no tokens would be told from the mean"


@torch.no_grad()
def test_bf16_is_near(of: Any):
    run, low = of(), of(precision="bf16")
    model = students.load(run.student, Prepared(run.prepared).manifest, run.repetition).eval()
    exact, near = (sums_of(generator(each), model) for each in (run, low))
    assert exact != near
    for first, second in zip(exact, near, strict=True):
        assert second == pytest.approx(first, rel=0.01)


def test_encoder_runs_once_over_each_input_and_the_decoder_over_each_beginning(of: Any, monkeypatch: Any):
    run = of()
    model = students.load(run.student, Prepared(run.prepared).manifest, run.repetition)
    sizes, passes, encoder, decoder = [], [], Passes.encode, Passes.decode

    def encode(self: Passes, x: Any, layout: Any) -> Any:
        sizes.append(len(layout.lengths))
        return encoder(self, x, layout)

    def decode(self: Passes, x: Any, layout: Any, *more: Any) -> Any:
        passes.append(len(x))
        return decoder(self, x, layout, *more)

    monkeypatch.setattr(Passes, "encode", encode)
    monkeypatch.setattr(Passes, "decode", decode)
    made = generator(run)
    sums_of(made, model)
    assert sizes == [3, 3, 2], "eight examples in threes, for generation and all options"
    beginnings = 0
    for row in made.prepared.table("test").to_pylist():
        tokens = [made.tokenizer(option)["input_ids"] for option in row["options"]]
        beginnings += len({tuple(ids[:end]) for ids in tokens for end in range(len(ids))})
    assert len(passes) <= 3 and sum(passes) == beginnings


def test_methods_that_write_more_than_the_label_have_no_option_scores(of: Any):
    run = of("single_task")
    model = students.load(run.student, Prepared(run.prepared).manifest, run.repetition).eval()
    assert not any(sums_of(generator(run), model))


def test_an_open_label_set_has_no_option_scores(tiny: Any, tmp_path: Path):
    run = tiny.run(tmp_path, "dss")
    model = students.load(run.student, Prepared(run.prepared).manifest, run.repetition).eval()
    assert not any(sums_of(generator(run), model))


def ids_of(rows: list[list[str]]) -> list[list[list[int]]]:
    """By a tokenizer that knows lower-case letters alone, and drops what it does not know."""
    return [[[ord(c) for c in text if c.islower()] for text in row] for row in rows]


def test_options_that_are_tokenised_alike_are_one_and_bear_the_gold_text():
    rows = [["a b", "ab", "c", "a b"], ["a b", "ab"], [], ["abcdef", "abcdeg"]]
    found = options.list_distinct(rows, ids_of(rows), ["ab", "a b", "x", "abcdeg"], 1, 4)
    assert found[0] == {(97, 98, 1): "ab", (99, 1): "c"}
    assert found[1] == {(97, 98, 1): "a b"} and found[2] == {}
    assert found[3] == {(97, 98, 99, 1): "abcdeg"}, "cut as labels are"
    assert options.list_distinct([[]], [[]], ["x"], 1, 4) == [{}]


def test_a_run_keeps_its_option_scores_and_measures_them(of: Any):
    run = of()
    train(run)
    metrics = evaluate(run)
    lines = read_jsonl(run.folder / "predictions.jsonl")
    made, model = generator(run), students.load_saved(run.folder / "model")
    assert [line["option_log_likelihoods"] for line in lines] == sums_of(made, model)
    for line in lines:
        assert line["option_probabilities"] == option_scores.normalise(line["option_log_likelihoods"])
    assert [line["options"] for line in lines] == options_of(made, model)
    assert "options" not in metrics.measures["calibration"], "some of these rows have none"
    assert "options" not in metrics.measures
    last = read_jsonl(run.folder / "answers" / "model_last.jsonl")
    same = read_json(run.folder / "training.json")["files"]
    if same["model/model.safetensors"] != same["model_last/model.safetensors"]:
        assert all(line["option_log_likelihoods"] == [] for line in last), "published needs accuracy alone"


def test_a_stop_in_the_midst_of_option_scoring_loses_no_batch(of: Any, monkeypatch: Any):
    run = of()
    train(run)
    model = students.load_saved(run.folder / "model")
    whole = sums_of(generator(run), model)
    calls: list[int] = []
    work = Generator._generate_batch

    def counted(self: Generator, *arguments: Any) -> Any:
        calls.append(len(calls))
        return work(self, *arguments)

    def stop() -> None:
        if len(calls) == 2:
            raise stopping.Preempted("asked to stop")

    monkeypatch.setattr(Generator, "_generate_batch", counted)
    monkeypatch.setattr(stopping, "check", stop)
    with pytest.raises(stopping.Preempted):
        sums_of(generator(run), model, stored.open_journal(run, "model", "answers"))
    assert len(calls) == 2
    monkeypatch.setattr(stopping, "check", lambda: None)
    again = sums_of(generator(run), model, stored.open_journal(run, "model", "answers"))
    assert len(calls) == 3 and again == whole, "to the last bit"
