"""Texts that a student's tokenizer does not keep: refused with the row, counted, or stripped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import T5Config, T5ForConditionalGeneration

from cotdistill import data
from cotdistill.common.errors import UserError
from cotdistill.data.answers import is_right
from cotdistill.data.prepared import Prepared, read_warnings
from cotdistill.data.tokenizers import decode_texts
from cotdistill.jobs.prepare import prepare

TEXT = "predict: explain: So the answer is: yes no less more L(x,y) is R(x,y) Yes 1 2 3 cafe New York a b"
LINES = [f"{first} {second}" for first in TEXT.split() for second in TEXT.split()]

Prepare = Callable[..., Prepared]


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student in a folder with T5's own tokenizer class, whose pieces lack `<`, `{`, `=` and Chinese."""
    folder = tmp_path_factory.mktemp("hub")
    with open(folder / "spiece.model", "wb") as handle:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(LINES), model_writer=handle, vocab_size=90, hard_vocab_limit=False,
            pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2, num_threads=1,
        )  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "T5Tokenizer", "extra_ids": 100, "eos_token": "</s>", "pad_token": "<pad>",
        "unk_token": "<unk>",
    }))  # fmt: skip
    config = T5Config(vocab_size=300, d_model=16, d_ff=16, d_kv=8, num_heads=2, num_layers=1)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def row(label: str, number: int = 0, **more: Any) -> dict[str, Any]:
    return {"input": f"{number % 3 + 1} is less", "label": label, "rationale": "a is less than b.", **more}


@pytest.fixture
def prepare_rows(tiny: Any, tmp_path: Path, hub: Path) -> Prepare:
    """Prepare rows of one's own, for the student in the folder or one from scratch; gives the folder."""

    def make(
        train: list[dict[str, Any]], test: list[dict[str, Any]] | None = None, *, scratch: bool = False,
        answer: str = "text", **more: Any,
    ) -> Prepared:  # fmt: skip
        labels = ("2 * 1", "3") if answer == "equation" else ("yes", "no")
        good = [row(labels[number % 2], number) for number in range(6)]
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        for split, rows in {"train": train + good, "valid": good, "test": test or good}.items():
            lines = [json.dumps(each, ensure_ascii=False) + "\n" for each in rows]
            (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        dataset = {"name": "mine", "adapter": "custom", "path": str(folder), "answer": answer}
        student = None if scratch else {"name": "hub", "pretrained": str(hub)}
        more = {"max_target_tokens": 64, "evaluation": {"max_new_tokens": 30}} | more
        run = type(tiny)(folder).run(tmp_path / "results", dataset=dataset, student=student, **more)
        prepare(run.experiment, run.dataset, run.student, run.prepared)
        return Prepared(run.prepared)

    return make


def refused(call: Callable[[], Any], *wanted: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700
    for text in wanted:
        assert text in message, message


@pytest.mark.parametrize(("label", "wanted"), [
    ("<", "'<' (U+003C LESS-THAN SIGN)"),
    ("{", "'{' (U+007B LEFT CURLY BRACKET)"),
    ("你好", "'你' (U+4F60"),
    ("🙂", "(U+1F642 SLIGHTLY SMILING FACE)"),
    ("\u0301\u0308", "U+0301 COMBINING ACUTE ACCENT"),
    ("≠ ≤", "'≠' (U+2260 NOT EQUAL TO)"),
])  # fmt: skip
def test_a_label_that_is_empty_to_the_tokenizer_is_refused(prepare_rows: Prepare, label: str, wanted: str):
    refused(lambda: prepare_rows([row("yes"), row(label, id="mine-7")]), "dataset 'mine', train row 'mine-7'",
            "label", "is an empty text to the student's tokenizer", wanted, "add them to the")  # fmt: skip


@pytest.mark.parametrize("label", ["\u200b", "\x07", "\u200d\ufe0f"])
def test_a_label_that_shows_nothing_is_refused(prepare_rows: Prepare, label: str):
    refused(lambda: prepare_rows([row("yes"), row(label)]), "label", "empty")


def test_two_labels_that_are_empty_do_not_reach_an_untrained_student(prepare_rows: Prepare, tmp_path: Path):
    rows = [row("<", input="3 ? 5", rationale="3 is less."), row("{", input="5 ? 3", rationale="5 is more.")]
    refused(lambda: prepare_rows(rows), "train row 'custom-train-0'", "'<' (U+003C")
    assert not list((tmp_path / "results").rglob("*.arrow")), "nothing half-written"


@pytest.mark.parametrize("label", ["你好", "Ω", "日", "<>"])
def test_a_label_of_test_with_characters_unseen_in_training_is_refused(prepare_rows: Prepare, label: str):
    refused(lambda: prepare_rows([], [row("yes"), row(label)], scratch=True), "test row 'custom-test-1'",
            "is an empty text", "a scratch student's has those of the training split")  # fmt: skip


@pytest.mark.parametrize(("options", "wanted"), [
    (["L(x,y) = R(x,y)", "L(x,y) ≠ R(x,y)"], "'=' (U+003D EQUALS SIGN)"),
    (["1", "①"], "'①' (U+2460 CIRCLED DIGIT ONE)"),
    (["yes", "ｙes"], "'ｙ' (U+FF59 FULLWIDTH LATIN SMALL LETTER Y)"),
    (["New York", "New  York"], "'New York'"),
    (["less", "less<"], "'<' (U+003C"),
    (["yes", "yes\u200b"], "U+200B ZERO WIDTH SPACE"),
    (["a😀b", "a你b"], "'😀' (U+1F600"),
])  # fmt: skip
def test_two_options_of_a_row_that_become_one_are_refused(
    prepare_rows: Prepare, options: list[str], wanted: str
):
    refused(lambda: prepare_rows([row(options[0], options=[*options, "no"])]), "train row 'custom-train-0'",
            "options", "are one text to the student's tokenizer", wanted)  # fmt: skip


@pytest.mark.parametrize(("one", "other"), [("a < b", "a { b"), ("x²", "x2"), ("1", "①"), ("ab你", "ab好")])
def test_two_labels_of_an_open_set_that_become_one_are_refused(
    prepare_rows: Prepare, one: str, other: str
):
    refused(lambda: prepare_rows([row(one)], [row("yes"), row(other)]), "test row 'custom-test-1'", "labels",
            "(the latter of dataset 'mine', train row 'custom-train-0')", "are one text")  # fmt: skip


def test_an_empty_option_is_refused(prepare_rows: Prepare):
    refused(lambda: prepare_rows([row("yes", options=["yes", "<"])]), "option '<' is an empty text", "U+003C")


def test_labels_that_a_lower_casing_tokenizer_makes_one_are_refused(prepare_rows: Prepare, monkeypatch: Any):
    from cotdistill.students import scratch

    train_tokenizer = scratch.train_tokenizer

    def lower(texts: Any, vocabulary: int) -> Any:
        from tokenizers import normalizers

        made = train_tokenizer([text.lower() for text in texts], vocabulary)
        backend = made.backend_tokenizer
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), backend.normalizer])
        return made

    monkeypatch.setattr(scratch, "train_tokenizer", lower)
    refused(lambda: prepare_rows([row("US", rationale="us"), row("us")], scratch=True), "'us' and 'US'",
            "'U' (U+0055 LATIN CAPITAL LETTER U)")  # fmt: skip
    # the text before single_task's label is not written as it is read
    refused(lambda: prepare_rows([], scratch=True, method="single_task"), "method 'single_task'",
            "not read back behind ['So the answer is:']")  # fmt: skip


def test_an_equation_that_changes_its_value_is_refused_and_another_spelling_is_not(prepare_rows: Prepare):
    train = [row("( 1.0 + 2.0 )"), row("(1.0+2.0)"), row("2 * 1")]
    equal = [row("1"), row("2")]
    refused(lambda: prepare_rows(train, [row("(1 + 29)")], scratch=True, answer="equation"), "'9' (U+0039",
            "another equation")  # fmt: skip
    assert prepare_rows(train, equal, scratch=True, answer="equation").manifest["answer"] == "equation"


def test_what_differs_without_harm_is_counted(prepare_rows: Prepare):
    made = prepare_rows([row("café"), row("New York"), row("New  York")], [row("café", id="c"), row("yes")])
    warnings = "\n".join(read_warnings(made.folder))
    assert "mine, hub: test: 1 of 2 gold labels are another text once tokenised" in warnings
    assert "such as 'café' as 'caf' (row 'c')" in warnings
    assert "1 gold labels differ from another in white space alone" in warnings
    assert "tokens unknown to the student's tokenizer" in warnings and "label " in warnings
    assert "café" not in (made.folder / "manifest.json").read_text(encoding="utf-8")


def test_teacher_labels_and_padding_in_inputs_are_counted(prepare_rows: Prepare):
    made = prepare_rows([row("yes", teacher_label="{"), row("no", id="p", input="a <pad> b")])
    warnings = "\n".join(read_warnings(made.folder))
    assert "train: 1 of 8 teacher labels are empty once tokenised, such as '{'" in warnings
    assert "train: 1 of 8 inputs hold '<pad>', which a student reads as a control token (row 'p')" in warnings


@pytest.mark.parametrize("scratch", [True, False])
def test_end_tokens_at_the_end_are_stripped(prepare_rows: Prepare, scratch: bool):
    plain = [row("yes", teacher_label="no", options=["yes", "no"])]
    ends = {"label": "yes</s>", "teacher_label": "no </s></s> ", "rationale": plain[0]["rationale"] + "</s>",
            "options": ["yes</s>", "no"]}  # fmt: skip
    rows = [prepare_rows(each, scratch=scratch).table("train").to_pylist()[0]
            for each in (plain, [plain[0] | ends])]  # fmt: skip
    assert rows[0] == rows[1]


@pytest.mark.parametrize(("changes", "wanted"), [
    ({"rationale": "a</s> is less"}, "column 'rationale' holds '</s>'"),
    ({"rationale": "<pad> is less"}, "column 'rationale' holds '<pad>'"),
    ({"rationale": "a <unk> is less"}, "column 'rationale' holds '<unk>'"),
    ({"rationale": "a <extra_id_3>"}, "column 'rationale' holds '<extra_id_3>'"),
    ({"teacher_label": "<pad>yes</s>"}, "column 'teacher_label' holds '<pad>'"),
    ({"label": "<unk>"}, "column 'label' holds '<unk>'"),
    ({"label": "yes", "options": ["yes", "no<extra_id_0>"]}, "column 'option' holds '<extra_id_0>'"),
    ({"label": "</s>"}, "label '</s>' is nothing but the end token"),
    ({"label": "yes", "options": ["yes", "yes</s>"]}, "two options are one without '</s>'"),
])  # fmt: skip
def test_other_special_tokens_in_what_is_to_be_written_are_refused(
    prepare_rows: Prepare, changes: dict[str, Any], wanted: str
):
    refused(lambda: prepare_rows([row("yes"), row("yes", id="r-1") | changes]), "train row 'r-1'", wanted)


def test_special_tokens_of_other_students_are_text(prepare_rows: Prepare):
    made = prepare_rows([row("yes", rationale="fill <extra_id_3> in")], scratch=True)
    (text,) = decode_texts(made.tokenizer(), [made.ragged("train", "rationale")[0]])
    assert text == "fill <extra_id_3> in"


def test_inputs_may_hold_the_end_token_and_sentinels(prepare_rows: Prepare):
    made = prepare_rows([row("yes", input="a is less</s>b is more"), row("no", input="a <extra_id_0> b")])
    assert 1 in made.ragged("train", "input")[0]
    assert not [line for line in read_warnings(made.folder) if "control token" in line]


@pytest.mark.parametrize("text", ["▁a is less", " ▁ is less", "▁▁"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_an_input_that_begins_as_a_space_is_written_is_refused_with_its_row(
    prepare_rows: Prepare, text: str, split: str
):
    bad = row("yes", id="bad", input=text)
    parts = {"train": [row("no")], "test": [row("yes")]}
    parts[split].append(bad)
    refused(lambda: prepare_rows(**parts), f"dataset 'mine', {split} row 'bad'", "'▁' (U+2581)")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text("ab< ①1你Ａ\u200b", min_size=1, max_size=4).filter(str.strip), min_size=2))
def test_what_is_prepared_can_be_told_apart(prepare_rows: Prepare, labels: list[str]):
    options = list(dict.fromkeys(labels))
    try:
        made = prepare_rows([row(options[0], options=options)])
    except UserError:
        return
    texts = decode_texts(made.tokenizer(), made.table("train").to_pylist()[0]["options_ids"])
    assert all(texts) and len(set(texts)) == len(options)


@pytest.mark.parametrize("text", ["", " ", "\n", "\u3000"])
def test_an_empty_answer_is_never_right(text: str):
    assert not is_right("text", text, text) and not is_right("equation", text, text)


def test_a_line_of_the_file_is_one_line_of_warning(prepare_rows: Prepare):
    made = prepare_rows([row("no\nyesé"), row("yes")], [row("no\nyesé")])
    assert any("such as 'no\\nyesé'" in line for line in read_warnings(made.folder))


def test_published_data_are_prepared_as_they_were(tiny: Any, tmp_path: Path, dss_root: Path):
    for name in ("svamp", "anli1"):
        run = type(tiny)(tiny.data).run(tmp_path, dataset={"name": name}, max_target_tokens=256,
                                        max_input_tokens=512)  # fmt: skip
        prepare(run.experiment, run.dataset, run.student, run.prepared)
        made, splits = Prepared(run.prepared), data.load(name, dss_root)
        tokenizer = made.tokenizer()
        for column in ("input", "label", "rationale"):
            texts = splits["test"][column][:50]
            rows = [made.ragged("test", column)[number].tolist() for number in range(50)]
            assert rows == tokenizer(texts, add_special_tokens=False)["input_ids"]
