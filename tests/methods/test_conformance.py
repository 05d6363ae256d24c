"""What every registered method must hold; a new file in the methods folder is covered as it stands."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cotdistill import methods
from cotdistill.common.errors import UserError
from cotdistill.config.models import ScratchStudent
from cotdistill.data.batches import Batch, Collator
from cotdistill.data.prepared import Prepared
from cotdistill.methods import FIELDS, METHODS, Method
from cotdistill.students import scratch
from cotdistill.students.interface import Whole
from cotdistill.students.packed.learning import Learner
from tests.methods import plain

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in METHODS.names()),
    ("mi", {"variant": "paper"}),
    ("mi", {"variant": "paper", "pooling": "mean", "stop_gradient": False}),
    ("mi", {"beta": 0}),
    ("infonce", {"stop_gradient": True}),
    ("infonce", {"beta": 0}),
    ("gaussian", {"beta": 0}),
]
variants = pytest.mark.parametrize(("name", "settings"), VARIANTS)
names = pytest.mark.parametrize("name", METHODS.names())
ROWS = [0, 3, 5, 8, 11, 14, 17]


@pytest.fixture(scope="module")
def collator(tiny: Any) -> Collator:
    return Collator(Prepared(tiny.prepared), "train", "gold", 64, 48)


@pytest.fixture
def model(collator: Collator) -> torch.nn.Module:
    settings = ScratchStudent(d_model=16, d_ff=32, d_kv=4, heads=2, layers=1, dropout=0)
    return scratch.build(settings, len(collator.tokenizer), seed=1)


def build(name: str, settings: dict[str, Any] | None = None) -> Method:
    """The method, ready for the student of these tests."""
    method = methods.build(name, settings)
    method.equip(d_model=16, seed=5)
    return method


def batches(method: Method, collator: Collator) -> dict[str, Batch]:
    return {task.name: collator.batch(task, ROWS) for task in method.tasks}


def test_the_methods_of_the_papers_are_registered():
    assert {"finetune", "single_task", "dss", "mi"} <= set(METHODS.names())


@names
def test_default_settings_build_and_are_reported_in_full(name: str):
    from cotdistill.config.models import MethodEntry

    method = methods.build(name)
    entry = MethodEntry.model_validate(name)
    assert methods.resolve_settings(entry) == method.settings.model_dump()


@names
def test_tasks_are_named_and_hold_known_fields(name: str):
    tasks = methods.build(name).tasks
    assert tasks and len({task.name for task in tasks}) == len(tasks)
    for task in tasks:
        assert task.name.isidentifier()
        assert task.target, "a task without a target trains nothing"
        # what is not a field is a literal text: it must not be a misspelt field
        literals = [part for part in task.target if part not in FIELDS]
        assert all(" " in part for part in literals)
        assert set(task.target) & set(FIELDS)
        assert task.prefix == "" or task.prefix.endswith(" "), "the input is a word of its own"
    assert "label" in tasks[0].target, "the first task is the one that is evaluated"


@names
def test_the_label_is_read_from_what_the_first_task_writes(name: str, collator: Collator):
    method = methods.build(name)
    for row in ROWS:
        written = collator.target_ids(method.tasks[0], row).astype(int).tolist()
        text = collator.tokenizer.decode(written, skip_special_tokens=True).strip()
        assert method.read_label(text) == collator.tokenizer.decode(collator.fields["label"][row].tolist())


@variants
def test_terms_are_finite_and_their_gradient_reaches_the_student(
    name: str, settings: dict[str, Any], collator: Collator, model: Any
):
    method = build(name, settings)
    whole = batches(method, collator)
    found = Learner(model).add_gradients(whole, method, seed=1)
    for value in found.values():
        assert value.shape == () and value.isfinite() and not value.requires_grad
    terms = plain.terms(model, method, whole)
    assert list(found) == ["total", *terms]
    for term, part in terms.items():
        assert term.isidentifier()
        assert part.weight >= 0 and part.weight - part.weight == 0
    total = sum(part.weight * found[term].item() for term, part in terms.items())
    assert found["total"].item() == pytest.approx(total)
    for parameter in (model.shared, model.encoder, model.decoder):
        assert sum(p.grad.abs().sum().item() for p in parameter.parameters()) > 0


@variants
@pytest.mark.parametrize("cuts", [(3,), (1, 2), (2, 4, 6)])
def test_micro_batches_sum_to_the_batch(
    name: str, settings: dict[str, Any], cuts: tuple[int, ...], collator: Collator, model: Any
):
    """But for contrastive terms: they are to be the mean, over examples, of their micro-batches' own."""
    method = build(name, settings)
    whole = batches(method, collator)
    tokens = {task: batch.tokens for task, batch in whole.items()}
    learner = Learner(model)
    expected = {k: v.item() for k, v in learner.add_gradients(whole, method, 1).items()}
    gradients = plain.grads(model, method)
    model.zero_grad()
    found = dict.fromkeys(expected, 0.0)
    expected |= dict.fromkeys(method.contrastive, 0.0)
    edges = [0, *cuts, len(ROWS)]
    for start, stop in zip(edges, edges[1:], strict=False):
        part = {task: batch.take(range(start, stop)) for task, batch in whole.items()}
        share = (stop - start) / len(ROWS)
        for term, value in learner.add_gradients(part, method, 1, Whole(len(ROWS), tokens)).items():
            found[term] += value.item()
        for term in method.contrastive:
            expected[term] += share * plain.terms(model, method, part)[term].value.item()
    if method.contrastive:
        del found["total"], expected["total"]
    else:
        student = {name: value for name, value in gradients.items() if not name.startswith("own ")}
        for name, value in plain.grads(model, method).items():
            if name in student:
                torch.testing.assert_close(value, student[name], rtol=1e-4, atol=1e-6)
    assert found == pytest.approx(expected, rel=1e-5)


@variants
def test_own_modules_follow_the_seed_and_leave_the_random_state(name: str, settings: dict[str, Any]):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, again, other = (methods.build(name, settings) for _ in range(3))
    for method, seed in ((first, 1), (again, 1), (other, 2)):
        method.equip(8, seed)
    assert torch.equal(torch.get_rng_state(), state)
    if first.learned is None:
        return
    values, same, others = (
        torch.cat([p.flatten() for p in each.learned.parameters()]) for each in (first, again, other)
    )
    assert torch.equal(values, same) and not torch.equal(values, others)


@variants
def test_what_a_method_learns_with_gets_a_gradient_where_its_term_weighs(
    name: str, settings: dict[str, Any], collator: Collator, model: Any
):
    method = build(name, settings)
    whole = batches(method, collator)
    Learner(model).add_gradients(whole, method, seed=1)
    for parameter in method.learned.parameters() if method.learned is not None else []:
        assert (parameter.grad is None) == (method.settings.beta == 0)
        assert parameter.grad is None or parameter.grad.isfinite().all() and parameter.grad.any()


def test_a_method_is_given_what_it_needs_and_no_more(collator: Collator, model: Any, monkeypatch: Any):
    for name, settings in VARIANTS:
        method, seen = build(name, settings), []
        original = method.terms

        def terms(outputs: Any, seen: Any = seen, original: Any = original) -> Any:
            seen.extend(outputs.values())
            return original(outputs)

        monkeypatch.setattr(method, "terms", terms)
        Learner(model).add_gradients(batches(method, collator), method, seed=1)
        for output in seen:
            assert (output.hidden is not None) == method.needs.hidden
            assert (output.logits is not None) == method.needs.logits
            assert (output.pooled is not None) == (method.needs.pooling is not None)


@names
def test_cross_entropy_is_the_mean_over_target_tokens(name: str, collator: Collator, model: Any):
    method = build(name)
    task = method.tasks[0]
    batch = collator.batch(task, ROWS)
    input_ids, attention_mask, labels = batch.pad()
    expected = model(input_ids=input_ids, attention_mask=attention_mask, labels=labels).loss
    found = Learner(model).add_gradients(batches(method, collator), method, seed=1)
    assert found[task.name].item() == pytest.approx(expected.item(), rel=1e-5)


@names
def test_an_unknown_setting_is_refused_in_one_line(name: str):
    with pytest.raises(UserError, match=f"method '{name}'.*unknown key 'nonsense'") as caught:
        methods.build(name, {"nonsense": 1})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("dss", {"alpha": 1.5}), ("dss", {"alpha": True}), ("mi", {"beta": -1}), ("mi", {"variant": "publishd"}),
     ("mi", {"stop_gradient": "False"}), ("mi", {"pooling": "median"}), ("infonce", {"beta": -1}),
     ("gaussian", {"beta": float("nan")})],
)  # fmt: skip
def test_a_wrong_setting_is_refused_in_one_line(name: str, settings: dict[str, Any]):
    with pytest.raises(UserError, match=next(iter(settings))) as caught:
        methods.build(name, settings)
    assert "\n" not in str(caught.value)


def test_an_unknown_method_is_refused_with_the_near_name():
    with pytest.raises(UserError, match="did you mean 'finetune'"):
        methods.build("fine_tune")


@pytest.mark.parametrize(
    ("method", "prefixes"),
    [("finetune", [""]), ("single_task", [""]), ("dss", ["predict: ", "explain: "]),
     ("mi", ["predict: ", "explain: "])],
)  # fmt: skip
def test_prefixes_are_the_published_ones(method: str, prefixes: list[str]):
    assert [task.prefix for task in methods.build(method).tasks] == prefixes


@pytest.mark.parametrize(
    ("settings", "weights"),
    [({}, (0.5, 0.5, 0.1)), ({"alpha": 0.25, "beta": 2}, (0.25, 0.75, 2.0)), ({"beta": 0}, (0.5, 0.5, 0.0))],
)
def test_weights_of_mi(settings: dict[str, Any], weights: tuple[float, ...], collator: Collator, model: Any):
    method = build("mi", settings)
    whole = batches(method, collator)
    terms = plain.terms(model, method, whole)
    found = {name: term.weight for name, term in terms.items()}
    assert found == dict(zip(["label", "rationale", "mutual_information"], weights, strict=True))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("ann paints red. So the answer is: red", "red"),
        ("So the answer is: red So the answer is: dark blue ", "dark blue"),
        ("ann paints red", ""),
        ("ann paints red. So the answer is:", ""),
        ("So the answer is red", ""),
        ("", ""),
    ],
)
def test_single_task_reads_the_label_behind_the_last_bridge(text: str, label: str):
    assert methods.build("single_task").read_label(text) == label


def test_rationale_tasks():
    found = {name: methods.build(name).rationale_task for name in ("finetune", "single_task", "dss", "mi")}
    assert {name: task and task.prefix for name, task in found.items()} == {
        "finetune": None, "single_task": None, "dss": "explain: ", "mi": "explain: ",
    }  # fmt: skip
