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
from cotdistill.tables.measures import flatten_measures

WORDS = st.sampled_from(["a", "the", "cat", "Sat", "on", "2.5", "mat.", "n_o", "'s", "is"])
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
    assert measure_repetition("a b c") is measure_repetition("") is None, "there is no 4-gram"
    assert measure_repetition("a b c d e") == 0
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


SAME = {
    "Chinese": "鸟住在巢里，因为它会飞。",
    "Chinese with English": "它叫 bako，是一种 bird，所以是 nest。",
    "Japanese": "トリは巣にすむので、答えは巣です。",
    "Thai": "นกอาศัยอยู่ในรัง",
    "Khmer": "បក្សីរស់នៅក្នុងសំបុក",
    "Lao": "ນົກອາໄສຢູ່ໃນຮັງ",
    "Burmese": "ငှက်သည်အသိုက်တွင်နေသည်။",
    "Korean": "새는 둥지에 살기 때문에 둥지 이다",
    "Arabic": "الطَّائِرُ يعيش في العش، إذن عش",
    "Hebrew": "הציפור גרה בקן ולכן קֵן",
    "Hindi": "चिड़िया घोंसले में रहती है।",
    "Russian": "Птица живёт в гнезде, значит гнездо.",
    "Greek": "Το πουλί ζει σε ΦΩΛΙΆ",
}


@pytest.mark.parametrize("language", SAME)
def test_equal_texts_are_alike_in_every_language(language: str):
    text = SAME[language]
    found = measure([answer(text, text)], "text", lambda r, o: "")
    assert found["bleu"] == pytest.approx(100)
    assert found["rouge1"] == found["rouge2"] == found["rougeL"] == 1
    assert found["words"] == found["words_teacher"] >= 4
    # a loop is one, however its script parts words
    assert measure_repetition(" ".join([text] * 10)) > 0.6
    other = measure([answer(text, "wholly other words of Latin letters")], "text", lambda r, o: "")
    assert other["rouge1"] == other["rougeL"] == 0 and other["bleu"] < 10


@pytest.mark.parametrize("loop", ["因为" * 20, "所以，" * 20, "เพราะ" * 20, "ので" * 20])
def test_a_loop_without_spaces_is_repetition(loop: str):
    assert measure_repetition(loop) > 0.8


def test_characters_are_those_of_the_tokenizer_for_chinese():
    import sacrebleu

    own, teachers = "我喜欢吃苹果，因为它很甜。Apple 2.5 好", "我很喜欢吃甜苹果，因为它好吃。Apple 2.5"
    found = measure([answer(own, teachers)], "text", lambda r, o: "")
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu([own], [[teachers]], tokenize="zh").score)
    assert found["bleu_signature"].endswith("|characters of scripts without spaces apart")
    assert "scripts without spaces" in found["rouge_signature"]


ASCII = st.text(st.characters(codec="ascii"), max_size=60)
LONG_ENOUGH = ASCII.map("{} so it is red".format)


@settings(deadline=None)
@given(st.lists(st.tuples(ASCII, LONG_ENOUGH), min_size=1, max_size=4))
def test_numbers_of_ascii_texts_are_what_they_were(pairs: list[tuple[str, str]]):
    """The rules of before: white space parts words, and ROUGE's tokens are runs of letters and digits."""
    import sacrebleu

    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rouge1", "rouge2", "rougeL"])
    own, teachers = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    found = measure([answer(*pair) for pair in pairs], "text", lambda r, o: "")
    assert found["bleu"] == sacrebleu.corpus_bleu(own, [teachers]).score
    version = sacrebleu.__version__
    assert found["bleu_signature"] == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{version}"
    assert found["rouge_signature"] == "F1, lower case, [a-z0-9]+ tokens, no stemming, as rouge-score 0.1.2"
    for name in ("rouge1", "rouge2", "rougeL"):
        scores = [scorer.score(second, first)[name].fmeasure for first, second in pairs]
        assert found[name] == pytest.approx(sum(scores) / len(scores))
    assert found["words"] == sum(len(text.split()) for text in own) / len(own)
    split = [text.split() for text in own]
    grams = [[tuple(words[k : k + 4]) for k in range(len(words) - 3)] for words in split if len(words) > 3]
    kept = [len(set(each)) / len(each) for each in grams]
    assert found["repetition"] == (pytest.approx(1 - sum(kept) / len(kept)) if kept else None)


NOTHING = {"bleu", "rouge1", "rouge2", "rougeL"}


@pytest.mark.parametrize(("own", "teachers", "absent"), [
    ("so red", "", {*NOTHING, "words_teacher", "repetition"}),
    ("😀😀", "😀😀", {*NOTHING, "words", "words_teacher", "repetition"}),
    ("👨\u200d👩\u200d👧 ❤️", "🎉 🎉 🎉 🎉 🎉", {*NOTHING, "words", "words_teacher", "repetition"}),
    ("a b c d", "。，、！", {*NOTHING, "words_teacher"}),
    ("red", "red", {"bleu", "rouge2", "repetition"}),
    ("红", "红", {"bleu", "rouge2", "repetition"}),
    ("so red it is", "so red", {"bleu"}),
    ("", "it is red so", {"repetition"}),
])  # fmt: skip
def test_what_cannot_be_measured_is_absent_with_a_reason(own: str, teachers: str, absent: set[str]):
    found = measure([answer(own, teachers)], "text", lambda r, o: "red")
    numbers = {*NOTHING, "words", "words_teacher", "repetition"}
    assert {name for name in numbers if found[name] is None} == absent
    assert set(found["reasons"]) >= absent and all(found["reasons"].values())
    assert not {f"rationale/{name}" for name in absent} & set(flatten_measures({"rationale": found}))


def test_texts_too_short_do_not_count_as_zero():
    found = measure([answer("a b a b a b", "a b"), answer("x", "x")], "text", lambda r, o: "")
    assert found["repetition"] == measure_repetition("a b a b a b") > 0
    assert found["reasons"]["repetition"] == "1 of 2 rationales are left out: fewer than 4 words"
    assert found["rouge2"] == pytest.approx(1 / 3) and "1 of 2" in found["reasons"]["rouge2"]


def test_a_label_set_that_is_open_states_nothing_that_is_known():
    found = measure([answer("so red it is", "")], "text", adapter("custom").stated_label, open_labels=False)
    assert found["states_label"] is found["faithful_prediction"] is found["faithful_gold"] is None
    assert "no answer has options" in found["reasons"]["states_label"]
    assert adapter("svamp").reads_open_labels and not adapter("custom").reads_open_labels


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
    ("custom", "所以答案是咖啡杯。", ["杯子", "咖啡杯", "银行"], "咖啡杯"),
    ("custom", "因为他去银行，不去公园。", ["银行", "公园"], ""),
    ("custom", "杯子在咖啡杯里", ["咖啡", "咖啡杯"], "咖啡杯"),
    ("custom", "答えはネストです", ["ネスト", "リーフ"], "ネスト"),
    ("custom", "คำตอบคือรัง", ["รัง", "ถ้ำ"], "รัง"),
    ("custom", "所以是cup。", ["cup", "nest"], "cup"),
    ("custom", "इसलिए उत्तर घोंसला है।", ["घोंसला", "गुफा"], "घोंसला"),
    ("custom", "वह कि है", ["क", "ख"], ""),
    ("custom", "le cafe\u0301 noir", ["caf\xe9", "th\xe9"], "caf\xe9"),
    ("custom", "Ответ: ГНЕЗДО.", ["гнездо", "риф"], "гнездо"),
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
