"""Students from scratch: weights and tokenizer follow from the seed and the text, and survive saving."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cotdistill import methods, students
from cotdistill.common.errors import UserError
from cotdistill.config.models import ScratchStudent, StudentEntry
from cotdistill.data.prepared import Prepared, check_joins
from cotdistill.data.tasks import SHARED_LITERALS, Task
from cotdistill.data.tokenizers import load_tokenizer
from cotdistill.jobs.prepare import list_own_literals
from cotdistill.methods import METHODS
from cotdistill.runs.grid import Run
from cotdistill.students import scratch

SMALL = ScratchStudent(d_model=16, d_ff=32, d_kv=4, heads=2, layers=1, vocabulary=250)
EQUATIONS = ["( 8.0 - 3.0 )", "( ( 4.0 + 12.0 ) * 3.0 )", "( 8142.0 / 6.0 )", "( 0.5 * 17.0 )"]
OPTIONS = ["bank", "doctor's office", "ice-cream shop", "new york city", "don't know", "co₂ level"]
TEXTS = ["0 1 2 3 4 5 6 7 8 9", *(f"predict: {a} So the answer is: {b}?" for a in EQUATIONS for b in OPTIONS)]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return scratch.train_tokenizer(TEXTS, 250)


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def loaded(tiny: Any, folder: Path, method: str, seed: int, **more: Any) -> Any:
    run = tiny.run(folder, method, seed=seed, **more)
    return students.load(run.student, {"vocabulary": 200}, run.repetition)


def test_every_method_of_a_seed_starts_from_the_same_weights(tiny: Any, tmp_path: Path):
    first = loaded(tiny, tmp_path, "dss", 0)
    torch.manual_seed(99)  # what was drawn before must not matter
    torch.rand(7)
    for method in METHODS.names():
        assert same(loaded(tiny, tmp_path, method, 0, labels="teacher", fraction=0.5), first)
    assert not same(loaded(tiny, tmp_path, "dss", 1), first)


def test_building_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    scratch.build(SMALL, 100, seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_outputs_are_tied_and_scaled_and_start_near_one(tokenizer: Any):
    model = scratch.build(ScratchStudent(), len(tokenizer), seed=1).eval()
    ids = tokenizer(TEXTS[0], return_tensors="pt").input_ids
    logits = model(input_ids=ids, decoder_input_ids=ids).logits
    assert model.lm_head.weight is model.shared.weight
    assert 0.3 < logits.std().item() < 3
    assert model.config.dropout_rate == 0.1 and model.config.feed_forward_proj == "gated-gelu"


def test_the_same_texts_give_the_same_tokenizer_bytes_in_every_process(
    python: Callable[..., str], tmp_path: Path
):
    texts = tmp_path / "texts.json"
    code = (
        "import hashlib, json, sys; from cotdistill.students.scratch import train_tokenizer; "
        f"texts = json.load(open({str(texts)!r})); "
        "print(hashlib.sha256(train_tokenizer(texts, 250).backend_tokenizer.to_str().encode()).hexdigest())"
    )
    texts.write_text(json.dumps(TEXTS))
    first = python("-c", code, PYTHONHASHSEED="1")
    texts.write_text(json.dumps(TEXTS[::-1] + TEXTS[:3]))  # order and repetition do not matter either
    second = python("-c", code, PYTHONHASHSEED="2")
    here = scratch.train_tokenizer(TEXTS, 250).backend_tokenizer.to_str()
    assert first == second == hashlib.sha256(here.encode()).hexdigest() + "\n"


def test_special_tokens_have_the_ids_of_t5(tokenizer: Any):
    assert [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id] == [0, 1, 2]
    assert tokenizer("red")["input_ids"][-1] == 1
    # NLI inputs join premise and hypothesis with the end token: one id, not four pieces
    ids = tokenizer("bank</s>doctor", add_special_tokens=False)["input_ids"]
    assert ids.count(1) == 1 and 2 not in ids
    assert len(tokenizer) <= 250


@pytest.mark.parametrize("text", EQUATIONS + OPTIONS)
def test_labels_survive_tokenising(tokenizer: Any, text: str):
    ids = tokenizer(text)["input_ids"]
    # normalisation is NFKC, as T5's
    assert tokenizer.decode(ids, skip_special_tokens=True) == text.replace("₂", "2")


def test_each_digit_is_a_piece_of_its_own(tokenizer: Any):
    pieces = tokenizer.tokenize("( 8142.0 / 6.0 )")
    assert all(sum(character.isdigit() for character in piece) <= 1 for piece in pieces)
    assert all(len(piece.strip("▁")) == 1 for piece in pieces if any(map(str.isdigit, piece)))


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from([*"0123456789.()+-*/ ", "bank", "doctor's", "city"]), max_size=30))
def test_any_text_of_known_characters_survives_up_to_its_spaces(tokenizer: Any, parts: list[str]):
    text = "".join(parts)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == " ".join(text.split())


def test_too_small_a_vocabulary_is_refused_in_one_line():
    with pytest.raises(UserError, match="no tokenizer of 32 pieces for this text") as caught:
        scratch.train_tokenizer(["".join(map(chr, range(200, 400)))], 32)
    assert "\n" not in str(caught.value)


def test_prefixes_and_texts_are_tokenised_apart(tokenizer: Any):
    literals = [*SHARED_LITERALS, "reflect: "]
    check_joins([*TEXTS, "  led by spaces", "(8 + 3)", "'quoted'", ""], tokenizer, literals)
    for literal in literals:
        joined = tokenizer(f"{literal.rstrip()} {TEXTS[0]}", add_special_tokens=False)["input_ids"]
        apart = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in (literal, TEXTS[0])]
        assert joined == apart[0] + apart[1]


def test_the_literals_of_all_methods_are_checked():
    assert {"predict: ", "explain: ", "So the answer is:"} == set(SHARED_LITERALS)
    built = [methods.build(name) for name in METHODS.names()]
    assert list_own_literals(built) == [], "those of the methods that are there are shared"
    mine = methods.build("finetune")
    mine.tasks = (Task("label", "reflect: ", ("label", "or so")),)
    assert list_own_literals([mine]) == ["or so", "reflect: "]


def test_a_tokenizer_that_joins_across_spaces_is_refused():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    pieces = [("<unk>", 0.0), *((chr(code), -5.0) for code in range(32, 127)), (": what", -1.0)]
    whole = Tokenizer(models.Unigram(pieces, unk_id=0))
    with pytest.raises(UserError, match="expected one that splits at spaces") as caught:
        check_joins(["what is it?"], PreTrainedTokenizerFast(tokenizer_object=whole), SHARED_LITERALS)
    assert "\n" not in str(caught.value)


def test_prepare_refuses_a_tokenizer_without_the_needed_tokens(
    monkeypatch: Any, tmp_path: Path, tokenizer: Any
):
    import copy

    other = copy.deepcopy(tokenizer)
    other.pad_token = "</s>"
    monkeypatch.setattr(scratch, "train_tokenizer", lambda texts, vocabulary: other)
    entry = StudentEntry(name="odd", scratch=SMALL)
    with pytest.raises(UserError, match="'odd': its tokenizer has pad_token '</s>'; expected '<pad>'"):
        students.make_tokenizer(entry, TEXTS, tmp_path / "tokenizer")


def test_a_saved_student_loads_bit_for_bit_also_with_the_auto_classes(tmp_path: Path, tokenizer: Any):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    model = scratch.build(SMALL, len(tokenizer), seed=7).eval()
    students.save(model, tokenizer, tmp_path / "model")
    again = students.load_saved(tmp_path / "model").eval()
    automatic = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model").eval()
    assert same(model, again) and same(model, automatic)
    for other in (again, automatic):
        assert other.lm_head.weight is other.shared.weight and other.config.scale_decoder_outputs
        assert other.dtype == torch.float32
    loaders = AutoTokenizer.from_pretrained, load_tokenizer
    tokenizers = [loader(tmp_path / "model") for loader in loaders]
    inputs = tokenizer(EQUATIONS, return_tensors="pt", padding=True)
    for other in tokenizers:
        assert other(EQUATIONS + OPTIONS)["input_ids"] == tokenizer(EQUATIONS + OPTIONS)["input_ids"]
        assert other.decode(inputs.input_ids[1]) == tokenizer.decode(inputs.input_ids[1])
    fields = {"input_ids": inputs.input_ids, "attention_mask": inputs.attention_mask}
    written = [m.generate(**fields, max_new_tokens=12, do_sample=False) for m in (model, again, automatic)]
    assert torch.equal(written[0], written[1]) and torch.equal(written[0], written[2])


def test_saving_twice_replaces_and_leaves_nothing_beside(tmp_path: Path, tokenizer: Any):
    for seed in (1, 2):
        model = scratch.build(SMALL, len(tokenizer), seed=seed)
        students.save(model, tokenizer, tmp_path / "model")
    assert same(students.load_saved(tmp_path / "model"), model)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_broken_tokenizer_is_refused_in_one_line(tmp_path: Path):
    (tmp_path / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(UserError, match="no tokenizer loads from here") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_prepared_pair_holds_the_tokenizer_of_its_texts(tiny: Any):
    prepared = Prepared(tiny.prepared)
    table, tokenizer = prepared.table("test"), prepared.tokenizer()
    for column in ("input", "label", "teacher_label", "rationale"):
        columns = table.column(column), table.column(f"{column}_ids")
        for text, ids in zip(*(values.to_pylist() for values in columns), strict=True):
            assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids
            assert tokenizer.decode(ids) == text
    assert prepared.manifest["vocabulary"] == len(tokenizer)
    assert prepared.manifest["sizes"] == {"train": 26, "valid": 8, "test": 8}


def test_seeds_of_a_run_never_depend_on_its_method(tiny: Any, tmp_path: Path):
    runs: list[Run] = [tiny.run(tmp_path, method) for method in METHODS.names()]
    assert len({run.hash for run in runs}) == len(runs)
