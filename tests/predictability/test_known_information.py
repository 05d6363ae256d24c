"""Critics and controls against samples whose mutual information is known."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Hashable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cotdistill.common.errors import UserError
from cotdistill.evaluation.predictability import CANDIDATES, CEILING, critic
from cotdistill.evaluation.predictability.controls import cut_into_halves, join_units, shuffle_within
from cotdistill.evaluation.predictability.critic import Found, find_partners
from cotdistill.evaluation.predictability.measure import check_ceiling

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import known_information  # noqa: E402

Pair = tuple[torch.Tensor, torch.Tensor]


def correlated(n: int, d: int, rho: float, seed: int) -> Pair:
    """Gaussian pairs, each coordinate of one side correlated with one of the other, both sides mixed."""
    random = np.random.default_rng(seed)
    z, v = known_information.draw_gaussian(d, rho)(n, seed)
    # information does not change under invertible maps of a side
    left, right = (random.standard_normal((d, d)) + 2 * np.eye(d) for _ in range(2))
    return torch.from_numpy(z @ left), torch.from_numpy(v @ right + 5)


def find(pair: Pair, seed: int = 0) -> Found:
    return find_partners(*pair, cut_into_halves(range(len(pair[0])), seed), seed)


def nats_of(draw: known_information.Draw, n: int, seeds: int) -> float:
    """The mean that is found over draws, in nats."""
    return CEILING * float(np.mean([known_information.measure(draw, n, seed).share for seed in range(seeds)]))


def test_clusters_in_many_dimensions_are_not_overrated():
    """A Gaussian fit of these says 18 nats: 7 kinds hold log 7 = 1.95."""
    found = nats_of(known_information.draw_classes(7), 256, 4)
    assert 0.85 * math.log(7) < found <= math.log(7)


@pytest.mark.parametrize("case", known_information.CASES)
def test_no_more_is_found_than_there_is(case: str):
    known, draw = known_information.CASES[case]
    assert nats_of(draw, 256, 3) < known + 0.03


@pytest.mark.parametrize(("n", "d", "rho"), [(1024, 1, 0.9), (1024, 2, 0.7), (1024, 5, 0.5)])
def test_known_information_well_below_the_ceiling_is_found(n: int, d: int, rho: float):
    known = known_information.tell_gaussian(d, rho)
    assert nats_of(known_information.draw_gaussian(d, rho), n, 3) == pytest.approx(known, rel=0.15)


@pytest.mark.parametrize(("n", "d"), [(256, 1), (256, 64), (1000, 20)])
def test_of_independent_samples_nothing_is_found(n: int, d: int):
    found = [find(correlated(n, d, 0.0, seed), seed) for seed in range(8)]
    assert abs(np.mean([each.share for each in found])) < 0.01
    assert np.mean([each.retrieval for each in found]) == pytest.approx(1 / CANDIDATES, abs=0.01)


@pytest.mark.parametrize("n", [2 * CANDIDATES, 255, 256, 257, 700])
def test_equal_sides_come_near_the_ceiling_and_not_above(n: int):
    z, _ = correlated(n, 20, 0.0, n)
    found = find((z, z.clone()))
    assert 0.8 < found.share <= 1 and 0.8 < found.retrieval <= 1


def test_the_ceiling_is_one_whatever_the_number_of_examples(monkeypatch: pytest.MonkeyPatch):
    sizes, original = set(), critic.Critic.score

    def score(self: critic.Critic, z: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        sizes.add(z.shape[1])
        return original(self, z, v)

    monkeypatch.setattr(critic.Critic, "score", score)
    for n in (128, 200, 256, 513):
        find(correlated(n, 3, 0.5, n))
    assert sizes == {CANDIDATES}


def test_share_and_retrieval_are_their_definitions():
    """Against loops over rows and candidates."""
    scores = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scores[0, 1] = 2.0
    gains, hits = critic._compute_gains(scores), critic._find_hits(scores)
    for batch in range(2):
        for row in range(5):
            own = scores[batch, row]
            mean = sum(math.exp(each) for each in own) / 5
            assert gains[batch, row] == pytest.approx(float(own[row]) - math.log(mean))
            best = max(own.tolist())
            ties = [place for place in range(5) if own[place] == best]
            assert hits[batch, row] == (1 / len(ties) if row in ties else 0)


def test_what_is_not_linear_is_seen():
    random = np.random.default_rng(4)
    z = random.standard_normal((1500, 1))
    v = z**2 + 0.3 * random.standard_normal((1500, 1))
    assert find((torch.from_numpy(z), torch.from_numpy(v))).share * CEILING > 0.3


def test_critics_are_read_on_rows_that_they_were_not_fitted_to():
    """In-sample, 100 directions of 256 unrelated rows would be found perfectly."""
    random = np.random.default_rng(5)
    z, v = (torch.from_numpy(random.standard_normal((256, 100))) for _ in range(2))
    assert find((z, v)).share < 0.03


def test_the_same_again_and_the_random_state_as_it_was():
    pair = correlated(150, 6, 0.8, 2)
    state = torch.get_rng_state()
    assert find(pair) == find(pair)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("still", [(True, False), (False, True), (True, True)])
def test_a_side_that_stands_still_tells_nothing(still: tuple[bool, bool]):
    random = np.random.default_rng(6)
    moving = [torch.from_numpy(random.standard_normal((130, 5))) for _ in still]
    z, v = (torch.full((130, 5), 0.1) if each else x for each, x in zip(still, moving, strict=True))
    assert find((z, v)) == Found(pytest.approx(0), pytest.approx(1 / CANDIDATES))


def test_more_dimensions_than_samples_and_copies_of_one_direction_are_no_trouble():
    random = np.random.default_rng(8)
    wide = torch.from_numpy(random.standard_normal((130, 300)))
    flat = torch.from_numpy(random.standard_normal((130, 1)) @ random.standard_normal((1, 300)))
    for pair in ((wide, flat), (flat, wide), (wide.float(), wide.float()), (flat, 2 * flat)):
        assert math.isfinite(find(pair).share)


def test_a_half_with_too_few_rows_is_refused():
    with pytest.raises(ValueError, match=f"at least {CANDIDATES}"):
        find(correlated(2 * CANDIDATES - 1, 2, 0.5, 0))


@pytest.mark.parametrize("distinct", [2, 7, 40])
def test_functions_of_few_inputs_never_tell_more_than_there_are_inputs(distinct: int):
    """However few rows: rows of one input have one score, so that no critic can tell them apart."""
    random = np.random.default_rng(distinct)
    rows = random.integers(0, distinct, 300)
    z, v = (torch.from_numpy(random.standard_normal((distinct, 30))[rows]) for _ in range(2))
    for halves in (cut_into_halves(range(300), 1), cut_into_halves(rows.tolist(), 1)):
        if min(map(len, halves)) >= CANDIDATES:
            found = find_partners(z, v, halves, 1)
            assert found.share * CEILING <= math.log(distinct) + 1e-9
            check_ceiling(found, distinct, "here")


def test_an_estimate_above_what_can_be_stops_with_a_line():
    check_ceiling(Found(1.0, 1.0), CANDIDATES, "run: test")
    said = r"^run: test, states: predictability of 4\.16 nats, expected at most log\(40\) = 3\.69 of 40 "
    with pytest.raises(UserError, match=f"{said}distinct examples; .*evaluation\\.predictability"):
        check_ceiling(Found(1.0, 1.0), 40, "run: test, states")


KEYS = st.lists(st.integers(0, 12), min_size=1, max_size=60)


@given(KEYS, st.integers(0, 5))
def test_halves_part_all_rows_and_no_unit(units: list[int], seed: int):
    first, second = (half.tolist() for half in cut_into_halves(units, seed))
    assert sorted(first + second) == list(range(len(units)))
    assert not {units[row] for row in first} & {units[row] for row in second}
    largest = max(units.count(unit) for unit in units)
    assert abs(len(first) - len(second)) <= largest


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=60), st.integers(0, 5))
def test_shuffling_keeps_classes_and_moves_all_that_can_be(rows: list[tuple[int, int]], seed: int):
    classes, units = [row[0] for row in rows], [row[1] for row in rows]
    permutation, moved = shuffle_within(classes, units, seed)
    order = permutation.tolist()
    assert sorted(order) == list(range(len(rows)))
    assert all(classes[row] == classes[other] for row, other in enumerate(order))
    assert moved == pytest.approx(np.mean([units[row] != units[other] for row, other in enumerate(order)]))
    for kind in set(classes):
        members = [row for row in range(len(rows)) if classes[row] == kind]
        largest = max(sum(units[row] == unit for row in members) for unit in set(units))
        if 2 * largest <= len(members):
            assert all(units[row] != units[order[row]] for row in members)


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(["", "x", "y"])), min_size=1))
def test_units_join_rows_that_share_an_input_or_a_group(rows: list[tuple[str, str]]):
    """Against repeated merging of sets."""
    found = join_units(*zip(*rows, strict=True))
    expected: list[Hashable] = list(range(len(rows)))
    for _ in rows:
        for a, one in enumerate(rows):
            for b, two in enumerate(rows):
                if one[0] == two[0] or (one[1] and one[1] == two[1]):
                    expected = [expected[a] if each == expected[b] else each for each in expected]
    assert [[a == b for a in found] for b in found] == [[a == b for a in expected] for b in expected]


def test_a_control_has_the_class_and_no_more():
    """Pairs share a class of 8 and a direction of their own: shuffled within it, the class alone is left."""
    random = np.random.default_rng(3)
    kind = random.integers(0, 8, 1024)
    own, centres = random.standard_normal((1024, 6)), 4 * random.standard_normal((8, 6))
    z = torch.from_numpy(np.hstack([centres[kind], own]))
    v = torch.from_numpy(np.hstack([centres[kind], own + 0.3 * random.standard_normal((1024, 6))]))
    permutation, moved = shuffle_within(kind.tolist(), range(1024), 0)
    every, _ = shuffle_within([0] * 1024, range(1024), 0)
    assert moved == 1
    nats = [CEILING * find(pair).share for pair in ((z, v), (z, v[permutation]), (z, v[every]))]
    assert nats[0] > math.log(8) + 0.5
    assert 0.7 * math.log(8) < nats[1] < math.log(8) + 0.02
    assert abs(nats[2]) < 0.05


def test_the_numbers_are_read_without_torch():
    code = "import cotdistill.evaluation.predictability, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
