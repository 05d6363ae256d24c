"""Groups of examples: which text a group shares, how many there are, and splits that no group crosses."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotdistill.common.errors import UserError
from cotdistill.data import SPLITS, adapter, load
from cotdistill.data.adapters import ADAPTERS
from cotdistill.data.groups import LONGEST, count_groups, cut_disjoint, name_group
from cotdistill.data.rows import Row

Lines = Callable[[Path, list[Any]], None]


def groups_of(rows: list[Row]) -> list[str]:
    return [row.get("group", "") for row in rows]


# --- what a group is


@given(st.text())
def test_a_name_is_short_and_the_same_for_the_same_text(text: str) -> None:
    assert len(name_group(text)) <= LONGEST and name_group(text) == name_group(str(text))
    assert name_group(text + "x" * LONGEST) != name_group(text + "y" * LONGEST)


@given(st.lists(st.sampled_from(["", "a", "b", "c"])))
def test_each_example_without_a_name_is_a_group_of_its_own(names: list[str]) -> None:
    assert count_groups(names) == len({name or number for number, name in enumerate(names)})


@pytest.mark.parametrize("name", ["esnli", "anli1"])
def test_hypotheses_on_one_premise_are_a_group(name: str, made_root: Path, lines: Lines) -> None:
    premises = ["A man has 1 hat.", "a man  has 1 HAT.", "A man has 2 hats.", "p " * 500]
    rows = [{"premise": premise, "hypothesis": "He sings.", "label": 0} for premise in premises]
    lines(made_root / f"{name}/{name}_test.json", rows)
    first, same, other, long = groups_of(adapter(name).read(made_root)["test"])
    assert first == same != other and len(long) == 16


def test_problems_that_open_alike_are_a_story(made_root: Path, lines: Lines) -> None:
    texts = [
        "Mary is baking a cake. The recipe calls for 12 cups.\nHow many cups?",
        "Mary is baking a cake. She put in 2 cups.\nWho bakes?",
        "Mary had 3 cakes and ate 2.\nHow many are left?",
        "Mary had 4 cakes and ate all.\nHow many are left?",
    ]
    lines(made_root / "svamp/svamp_test.json", [{"input": text, "label": "( 3.0 - 2.0 )"} for text in texts])
    assert groups_of(adapter("svamp").read(made_root)["test"]) == [
        "mary is baking a cake", "mary is baking a cake", "mary had cakes and ate", "mary had cakes and ate",
    ]  # fmt: skip


def test_a_creature_of_the_demo_is_a_group() -> None:
    for rows in adapter("demo").read(Path("nowhere")).values():
        assert all(row["input"].endswith(f" of a {row['group']}?") for row in rows)


@pytest.mark.parametrize("name", ADAPTERS.names())
def test_a_group_is_never_left_out(name: str, made_root: Path) -> None:
    path = made_root.parent / "custom" if adapter(name).needs_path else None
    for rows in load(name, made_root, path=path).values():
        assert all(isinstance(group, str) and len(group) <= LONGEST for group in rows["group"])


# --- a column of one's own


@pytest.fixture
def own(tmp_path: Path, lines: Lines) -> Callable[..., Path]:
    """Writes train, valid and test of a custom dataset with these values of `group`."""

    def write(**groups: list[Any]) -> Path:
        for split in SPLITS:
            values = groups.get(split, [f"{split} {number}" for number in range(4)])
            lines(tmp_path / f"own/{split}.jsonl", [
                {"input": f"{split} {number}", "label": "yes", "rationale": "r", **({} if value is None else
                 {"group": value})} for number, value in enumerate(values)
            ])  # fmt: skip
        return tmp_path / "own"

    return write


def test_a_group_of_ones_own_is_a_text_or_a_whole_number(own: Callable[..., Path]) -> None:
    splits = load("custom", path=own(test=["story", " story ", 3, "3", 0, "", None, "l" * 99]))
    assert splits["test"]["group"][:7] == ["story", "story", "3", "3", "0", "", ""]
    assert splits["test"]["group"][7] == name_group("l" * 99) and count_groups(splits["test"]["group"]) == 6


@pytest.mark.parametrize(
    ("value", "found"), [(True, "bool"), (1.5, "float"), ([1], "list"), ({}, "dict")]
)  # fmt: skip
def test_another_group_is_refused_by_file_and_line(value: Any, found: str, own: Callable[..., Path]) -> None:
    folder = own(test=["a", value])
    with pytest.raises(UserError) as caught:
        load("custom", path=folder)
    assert str(caught.value) == (
        f"{folder / 'test.jsonl'}:2: column 'group': expected text or a whole number, found {found}"
    )


@pytest.mark.parametrize("column", ["groups", "Group", "group_id", "cluster", "cluster_id"])
def test_a_column_that_is_nearly_a_group_is_refused(column: str, own: Callable[..., Path]) -> None:
    folder = own()
    file = folder / "test.jsonl"
    file.write_text(file.read_text().replace('"group"', f'"{column}"'))
    with pytest.raises(UserError, match=f"unknown column '{column}'; did you mean 'group'"):
        load("custom", path=folder)


# --- splits that no group crosses


def make_rows(groups: list[int], split: str) -> list[Row]:
    """Return a row for each group; 0 is none."""
    return [
        Row(id=f"{split}-{number}", input="q", label="a", rationale="r", teacher_label="a", options=[],
            group=str(group) if group else "")
        for number, group in enumerate(groups)
    ]  # fmt: skip


SMALL = st.lists(st.integers(0, 40), min_size=1, max_size=60)


@given(SMALL, SMALL, SMALL, st.lists(st.integers(0, 60), max_size=10))
def test_no_group_is_in_two_splits_and_no_row_is_lost(
    train: list[int], valid: list[int], test: list[int], extra: list[int]
) -> None:
    came = {"train": make_rows(train, "a"), "valid": make_rows(valid, "b"), "test": make_rows(test, "c")}
    more = make_rows(extra, "d")
    try:
        made = cut_disjoint(came, more, "any")
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 300
        return
    where = {split: {group for group in groups_of(rows) if group} for split, rows in made.items()}
    assert (
        not where["train"] & where["test"] | where["train"] & where["valid"] | where["valid"] & where["test"]
    )
    pool = [row["id"] for split in SPLITS for row in came[split]]
    ids = [row["id"] for split in SPLITS for row in made[split]]
    assert Counter(identity for identity in ids if identity[0] != "d") == Counter(pool)
    for split in ("valid", "test"):
        assert 0.9 * len(came[split]) <= len(made[split]) <= len(came[split])
        assert not any(row["id"][0] == "d" for row in made[split])
    held_out = where["valid"] | where["test"]
    assert {row["id"] for row in more if row.get("group") not in held_out} <= set(ids)


def test_a_group_is_dealt_by_its_name_alone() -> None:
    def cut(order: list[int]) -> dict[str, set[str]]:
        parts = {"train": order[:60], "valid": order[60:80], "test": order[80:]}
        made = cut_disjoint({split: make_rows(part, split) for split, part in parts.items()}, [], "any")
        return {split: set(groups_of(rows)) for split, rows in made.items()}

    order = [number % 50 + 1 for number in range(100)]
    assert cut(order) == cut(order[::-1]) == cut(sorted(order))


@pytest.mark.parametrize(
    ("groups", "said"),
    [([0, 0, 0, 0], "no row has a group"), ([1, 1, 1, 1], "1 groups of up to 12 rows do not fill")],
)
def test_a_dataset_that_cannot_be_cut_is_refused(groups: list[int], said: str) -> None:
    with pytest.raises(UserError, match=f"dataset 'mine': split 'group-disjoint': {said}"):
        cut_disjoint({split: make_rows(groups, split) for split in SPLITS}, [], "mine")


def test_a_row_of_asdiv_that_tells_a_held_out_story_is_left_out(made_root: Path, lines: Lines) -> None:
    names = [f"Ann{letter}" for letter in "abcdefghijklmnopqrst"]
    for split, count in {"train": 24, "test": 4}.items():
        lines(made_root / f"svamp/svamp_{split}.json", [
            {"input": f"{names[i % 20]} has {i} pears and buys 2.\nHow many?", "label": f"( {i}.0 + 2.0 )"}
            for i in range(count)
        ])  # fmt: skip
    lines(made_root / "asdiv/asdiv_train.json", [
        {"Body": f"{name} has 7 pears and buys 2.", "Question": "How?", "Formula": "7+2=9", "Answer": "9"}
        for name in names
    ])  # fmt: skip
    outputs = json.dumps(["Add. The answer is (7 + 2)."] * len(names))
    for file in (made_root / "asdiv/llm").glob("*.json"):
        file.unlink()
    (made_root / "asdiv/llm/train_CoT_0.json").write_text(outputs)
    splits = load("asdiv", made_root, disjoint=True)
    held_out = set(splits["test"]["group"]) | set(splits["valid"]["group"])
    assert held_out and not held_out & set(splits["train"]["group"])
    kept = [identity for identity in splits["train"]["id"] if identity.startswith("asdiv")]
    assert len(kept) == len(names) - len(held_out)
    assert not any(i.startswith("asdiv") for i in [*splits["test"]["id"], *splits["valid"]["id"]])


# --- the published data

# groups of train, valid and test as published, and of the group-disjoint split, whose sizes are the same
GOLDEN = {
    "svamp": ((255, 62, 117), (203, 19, 67)),
    "anli1": ((319, 844, 846), (502, 521, 500)),
    "esnli": ((2776, 3319, 3323), (3174, 3121, 3121)),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_groups_of_the_published_data(name: str, dss_root: Path) -> None:
    published, disjoint = load(name, dss_root), load(name, dss_root, disjoint=True)
    counts = [
        tuple(count_groups(splits[split]["group"]) for split in SPLITS) for splits in (published, disjoint)
    ]
    assert tuple(counts) == GOLDEN[name]
    assert [len(published[split]) for split in SPLITS] == [len(disjoint[split]) for split in SPLITS]
    where = [set(disjoint[split]["group"]) for split in SPLITS]
    assert not where[0] & where[1] | where[0] & where[2] | where[1] & where[2]


def test_no_story_of_svamp_is_in_train_and_test_once_cut(dss_root: Path) -> None:
    def count_shared(disjoint: bool) -> int:
        splits = load("svamp", dss_root, disjoint=disjoint)
        bodies = {
            split: [
                re.sub(r"[0-9][0-9,.]*", "#", text.rpartition("\n")[0].lower())
                for text in splits[split]["input"]
            ]
            for split in SPLITS
        }
        return sum(body in {*bodies["train"], *bodies["valid"]} for body in bodies["test"])

    assert count_shared(False) > 100 and count_shared(True) == 0


def test_the_teachers_outputs_move_with_their_rows(dss_root: Path) -> None:
    published, disjoint = load("svamp", dss_root), load("svamp", dss_root, disjoint=True)
    rows = [{row["id"]: row for split in SPLITS for row in splits[split]} for splits in (published, disjoint)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("name", ["svamp", "anli1", "esnli", "demo", "cqa"])
def test_the_documented_groups_are_those_of_the_data(name: str, dss_root: Path) -> None:
    text = Path(__file__).parents[2].joinpath("docs/data.md").read_text(encoding="utf-8")
    table = text.split("## Groups of examples")[1].split("## ")[0]
    (cells,) = re.findall(rf"^\| `{name}`.*?\|.*?\|(.*)\|$", table, re.MULTILINE)[:1]
    groups = load(name, dss_root)["test"]["group"][:]
    largest = max(Counter(group or number for number, group in enumerate(groups)).values())
    assert [int(cell.replace(",", "")) for cell in cells.split("|")] == [
        len(groups), count_groups(groups), largest,
    ]  # fmt: skip
