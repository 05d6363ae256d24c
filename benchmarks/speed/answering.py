"""Part `evaluation`: a test set answered in both ways by one student, after a short training.

The student is one model for both, so its answers can be compared as well; they are counted where they differ.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import published
from benchmarks.speed import children, ways
from benchmarks.speed.children import Child, Gone
from benchmarks.speed.students import ENGINES, Cell, rows_of, run_of

GENERATE, SCORE = "generate", "score"


def measure(
    what: str, folder: Path, cell: Cell, ends: str, rounds: int, seconds: float, steps: int = 50,
    rate: float = 1e-3,
) -> dict[str, Any]:  # fmt: skip
    """Seconds of each way's pass over the test set, in turns, after `steps` steps at learning rate `rate`.

    ends: one of ENDS. `published` generates, computes the loss and decodes; `published options` scores every
    example's options, which the published codes do not do, as one would with the same library; an engine
    generates and compares; `<engine> with options` scores the options too.
    """
    order = {"work": "evaluation", "cell": cell.dump(), "steps": steps, "rate": rate,
             "ends": ends}  # fmt: skip
    with contextlib.ExitStack() as stack:

        def start(way: str, trains: bool = False) -> Child:
            child = Child(f"{what}, {way}", {**order, "way": way, "trains": trains}, folder)
            stack.callback(child.end)
            child.told()  # it is ready
            return child

        try:
            first, *others = ENGINES
            made = {first: start(first, trains=True)}  # the others read the model that it has trained
            made |= {way: start(way) for way in (*others, "published")}
            theirs = made["published"]
            turns = {"published": (theirs, GENERATE), "published options": (theirs, SCORE)}
            for engine in ENGINES:
                turns |= {engine: (made[engine], GENERATE), f"{engine} with options": (made[engine], SCORE)}
            times: dict[str, list[float]] = {name: [] for name in turns}
            began = time.perf_counter()
            while len(times[first]) < rounds and (
                len(times[first]) < 2 or time.perf_counter() - began < seconds
            ):
                found = {name: child.turn(work) for name, (child, work) in turns.items()}
                for name, told in found.items():
                    times[name].append(told["seconds"])
        except Gone as gone:
            return gone.found
    answers, theirs_chosen = found["published"]["answers"], found["published options"]["chosen"]
    different = {
        engine: {
            "answers": _different(answers, found[engine]["answers"]),
            "options": _different(theirs_chosen, found[f"{engine} with options"]["chosen"]),
        }
        for engine in ENGINES
    }
    return {
        "cell": cell.dump(), "ends": ends, "seconds": times, "examples": len(answers),
        "training_steps": steps, "different": different,
        "mean_answer_tokens": found["published"]["tokens"] / len(answers),
    }  # fmt: skip


def _different(first: list[str], second: list[str]) -> int:
    return sum(a != b for a, b in zip(first, second, strict=True))


def serve(folder: Path, order: dict[str, Any], cell: Cell, threads: int) -> None:
    """In a child: one way's passes over the test set, a pass a turn."""
    torch.set_num_threads(threads)
    run = run_of(
        folder, cell, steps=max(order["steps"], 1), threads=threads, device=ways.device().type,
        rate=order["rate"],
    )  # fmt: skip
    saved = folder / "evaluated"
    if order["way"] not in ENGINES:
        _published(run, cell, saved)
        return
    if order["trains"]:
        _train(run, order["way"], saved, order["steps"], order["ends"])
    _ours(run, order["way"], saved)


def _train(run: Any, engine: str, saved: Path, steps: int, ends: str) -> None:
    """Train a student for a few steps and save it."""
    from cotdistill import students

    ours = ways.Ours(run, engine)
    for number in range(1, steps + 1):
        ours.step(number)
    tokenizer = ours.prepared.tokenizer()
    if ends == "never":
        ours.model.lm_head.weight.data[tokenizer.eos_token_id] *= -1
    students.save(ours.model, tokenizer, saved)


def _ours(run: Any, engine: str, saved: Path) -> None:
    from cotdistill import students
    from cotdistill.data.prepared import Prepared
    from cotdistill.inference.options import OptionScorer
    from cotdistill.training import devices

    devices.reuse_memory()
    prepared = Prepared(run.prepared)
    model = students.load_saved(saved).to(ways.device())
    generator = ways.make_generator(run, prepared, engine)
    end, longest = int(generator.tokenizer.eos_token_id), run.training.max_target_tokens
    children.tell({"ready": True})
    for work in children.turns():
        start = ways.synchronised()
        with ways.deterministic():
            options = OptionScorer(prepared, "test", engine, end, longest) if work == SCORE else None
            answers = generator.answer(model, "test", None, options)
        told = {"seconds": ways.synchronised() - start, "answers": [each.prediction for each in answers]}
        if work == SCORE:
            told["chosen"] = [_best(each.options, each.option_log_likelihoods) for each in answers]
        children.tell(told)


def _best(options: list[str], scores: list[float]) -> str:
    return options[max(range(len(options)), key=scores.__getitem__)] if options else ""


def _published(run: Any, cell: Cell, saved: Path) -> None:
    from cotdistill.data.prepared import Prepared
    from cotdistill.students import pretrained

    prepared = Prepared(run.prepared)
    tokenizer, texts = prepared.tokenizer(), rows_of(prepared, "test")
    options = prepared.table("test").column("options").to_pylist()
    data = published.tokenise(texts, tokenizer, cell.method)
    with tempfile.TemporaryDirectory() as temporary:
        trainer = published.trainer(
            pretrained.load(str(saved)), tokenizer, data, cell.method, Path(temporary), batch=cell.batch,
            steps=1, precision=cell.precision,
        )  # fmt: skip
        children.tell({"ready": True})
        for work in children.turns():
            start = ways.synchronised()
            if work == SCORE:
                scores = published.option_scores(trainer, data, options, tokenizer)
                told: dict[str, Any] = {"seconds": ways.synchronised() - start}
                told["chosen"] = [_best(*pair) for pair in zip(options, scores, strict=True)]
            else:
                answers = published.answers(trainer, data, tokenizer)
                told = {"seconds": ways.synchronised() - start, "answers": answers}
                lengths = tokenizer(answers, add_special_tokens=False)["input_ids"]
                told["tokens"] = sum(map(len, lengths))
            children.tell(told)
