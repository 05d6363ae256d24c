"""Rationale measures against the reference packages and counts by hand; what rationales state."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotdistill.data import adapter, release
from cotdistill.data.adapters import ADAPTERS
from cotdistill.data.answers import is_right
from cotdistill.evaluation import rationale_quality, rouge
from cotdistill.evaluation.rationale_quality import measure, measure_repetition
from cotdistill.runs.documents import Answer

WORDS = st.sampled_from(["a", "the", "cat", "Sat", "on", "2.5", "mat.", "ñ", "'s", "is"])
SENTENCES = st.lists(WORDS, max_size=25).map(" ".join)


def answer(rationale: str, teachers: str, prediction: str = "red", gold: str = "red", **more: Any) -> Answer:
    return Answer("1", "x", gold, prediction, prediction == gold, 0.5, rationale=rationale,
                  teacher_rationale=teachers, **more)  # fmt: skip


@settings(deadline=None)
@given(SENTENCES, SENTENCES)
def test_rouge_is_that_of_rouge_score(own: str, teachers: str):
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rouge1", "rouge2", "rougeL"])
    wanted = scorer.score(teachers, own)
    pair = rouge.tokenise(own), rouge.tokenise(teachers)
    assert rouge.rouge_n(*pair, 1) == pytest.approx(wanted["rouge1"].fmeasure)
    assert rouge.rouge_n(*pair, 2) == pytest.approx(wanted["rouge2"].fmeasure)
    assert rouge.rouge_l(*pair) == pytest.approx(wanted["rougeL"].fmeasure)


def test_likeness_to_the_teacher():
    import sacrebleu

    own = ["a bako is a bird, so nest.", "a soso is a fish", "no teacher here"]
    teachers = ["a bako is a bird, so nest.", "a soso is a snake, so hiss.", ""]
    found = measure([answer(*pair) for pair in zip(own, teachers, strict=True)], "text", lambda r, o: "")
    assert (found["n"], found["n_teacher"]) == (3, 2)
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(own[:2], [teachers[:2]]).score)
    assert found["bleu_signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert found["words"] == pytest.approx((7 + 5 + 3) / 3) and found["words_teacher"] == 7
    assert (found["states_label"], found["faithful_gold"], found["faithful_prediction"]) == (0, None, None)


def test_without_rationales_there_is_nothing_to_measure():
    assert measure([Answer("1", "x", "a", "a", True, 0.5)], "text", lambda r, o: "") is None
    found = measure([answer("so red", "")], "text", lambda r, o: "")
    assert found["n_teacher"] == 0 and found["bleu"] is None and found["rouge1"] is None


def test_repetition_is_seq_rep_4():
    assert measure_repetition("a b c") == measure_repetition("") == measure_repetition("a b c d e") == 0
    assert measure_repetition("a b c d a b c d") == pytest.approx(1 - 4 / 5)
    assert measure_repetition("a " * 100) == pytest.approx(1 - 1 / 97)


def test_faithfulness_is_a_fraction_of_the_rationales_that_state_a_label():
    rows = [
        answer("red", "", prediction="red"),
        answer("blue", "", prediction="red"),
        answer("blue", "", prediction="blue"),
        answer("", "", prediction="red"),
    ]
    found = measure(rows, "text", lambda rationale, options: rationale)
    assert found["states_label"] == 0.75
    assert found["faithful_prediction"] == pytest.approx(2 / 3)
    assert found["faithful_gold"] == pytest.approx(1 / 3)


def test_a_label_that_the_tokenizer_spells_otherwise_is_the_same():
    row = Answer("1", "x", "a  b", "a b", True, 0.5, rationale="so a  b", teacher_rationale="")
    found = measure([row], "text", lambda rationale, options: "a  b")
    assert (found["faithful_prediction"], found["faithful_gold"]) == (1, 1)


def test_equations_agree_by_value():
    rows = [answer("10 - 3 = 7", "", prediction="( 9 - 2 )", gold="( 10.0 - 3.0 )"),
            answer("10 - 3 = 7", "", prediction="__import__('os')", gold="( 9.0 + 2.0 )")]  # fmt: skip
    found = measure(rows, "equation", adapter("svamp").stated_label)
    assert (found["states_label"], found["faithful_prediction"], found["faithful_gold"]) == (1, 0.5, 0.5)


OPTIONS = ["cup", "coffee cup", "farmer's market", "play tag"]
NLI = ["entailment", "neutral", "contradiction"]


@pytest.mark.parametrize(("name", "rationale", "options", "label"), [
    ("demo", "a bako is a bird, so nest.", ["nest", "hive"], "nest"),
    ("demo", "a bako is a bird, so nest", ["nest", "hive"], "nest"),
    ("demo", "a bako is a bird, so reef.", ["nest", "hive"], ""),
    ("demo", "nest.", ["nest"], ""),
    ("cqa", "It is hot. Of the above choices, only coffee cups are hot.", OPTIONS, "coffee cup"),
    ("cqa", "A cup. Of the above choices, only the Farmer's market is open.", OPTIONS, "farmer's market"),
    ("cqa", "Of the above choices, only cups and play tag fit.", OPTIONS, ""),
    ("cqa", "cup", OPTIONS, ""),
    ("cqa", "Of the above choices, only cupboards fit.", OPTIONS, ""),
    ("custom", "He would play tag.", OPTIONS, "play tag"),
    ("custom", "It is so.", [], ""),
    ("esnli", "The woman is not necessarily young.", NLI, "neutral"),
    ("esnli", "One cannot sit and run.", NLI, "contradiction"),
    ("esnli", "Running implies moving.", NLI, "entailment"),
    ("esnli", "An old man is a man.", NLI, ""),
    ("anli1", "The premise does not mention it.", NLI, "neutral"),
    ("svamp", "So he had 12 - 10 = 2 tickets left. He is 7.", [], "12 - 10"),
    ("svamp", "So 10 - (3 + 6) is it.", [], "10 - (3 + 6)"),
    ("svamp", "There are 6 more.", [], ""),
    ("svamp", "A well-known (-3) man.", [], ""),
    ("asdiv", "7 * 36 is 252.", [], "7 * 36"),
])  # fmt: skip
def test_stated_labels(name: str, rationale: str, options: list[str], label: str):
    assert adapter(name).stated_label(rationale, options) == label


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_can_be_read(text: str):
    for name in ADAPTERS.names():
        for options in ([], OPTIONS, NLI):
            label = adapter(name).stated_label(text, options)
            assert label == "" or label in options or not options


@pytest.mark.parametrize("name", ADAPTERS.names())
def test_reading_takes_linear_time(name: str):
    """Ten times the text must not take a hundred times as long."""
    import time

    pieces = ["1+", "(", "1 ", "not ", ", so ", "cup ", "Of the above choices", " ", "1" * 20 + "(-", "does "]
    for piece in pieces:
        seconds = []
        for count in (3_000, 30_000):
            text = piece * count
            best = min(_timed(time.process_time, adapter(name).stated_label, text) for _ in range(3))
            seconds.append(best)
        assert seconds[1] < 40 * max(seconds[0], 0.002), piece


def _timed(clock: Any, read: Any, text: str) -> float:
    started = clock()
    read(text, OPTIONS)
    return clock() - started


# the teacher's rationales of the test split: the share in which a label is read, and of these the
# shares in which it is the teacher's label and the gold label
TEACHER = {
    "demo": (1.0, 0.9190, 1.0),
    "cqa": (0.8468, 0.9807, 0.7979),
    "svamp": (0.9596, 0.8737, 0.7526),
    "anli1": (0.2737, 0.6790, 0.6236),
    "esnli": (0.2949, 0.9872, 0.6431),
}


@pytest.mark.parametrize("name", TEACHER)
def test_what_is_read_from_the_teachers_rationales(name: str):
    source = adapter(name)
    if source.needs_release and not os.environ.get("COTDISTILL_DATA"):
        pytest.skip("COTDISTILL_DATA names no folder of the published data")
    root = release.resolve_root() if source.needs_release else Path()
    rows = [row for row in source.read(root)["test"] if row["rationale"]]
    read = [(row, label) for row in rows if (label := source.stated_label(row["rationale"], row["options"]))]
    teachers = sum(is_right(source.answer, label, row["teacher_label"]) for row, label in read) / len(read)
    gold = sum(is_right(source.answer, label, row["label"]) for row, label in read) / len(read)
    assert (len(read) / len(rows), teachers, gold) == pytest.approx(TEACHER[name], abs=5e-4)


def test_measuring_loads_no_torch(python: Any):
    code = "import sys, cotdistill.evaluation.protocols as p; sys.exit('torch' in sys.modules)"
    python("-c", code)
    assert rationale_quality.GRAM == 4
