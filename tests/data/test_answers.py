"""Equations from generated text: right where Python is, total and fast on anything else."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cotdistill.common.errors import UserError
from cotdistill.data.answers import MAX_LENGTH, evaluate_equation, is_right

numbers = st.one_of(
    st.integers(0, 10_000).map(str), st.decimals(0, 1000, places=2).map(str), st.sampled_from(["5.", ".25"])
)


def _compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    space = st.sampled_from(["", " "])
    binary = st.tuples(inner, space, st.sampled_from("+-*/"), space, inner).map("".join)
    return st.one_of(binary, binary.map("({})".format), inner.map("-{}".format), inner.map("( {} )".format))


@given(st.recursive(numbers, _compound, max_leaves=8))
def test_plain_arithmetic_has_pythons_value(text: str) -> None:
    try:
        wanted = eval(text, {"__builtins__": {}})  # noqa: S307  (text made of digits and operators above)
    except ZeroDivisionError:
        assert evaluate_equation(text) is None
    else:
        found = evaluate_equation(text)
        assert found is not None and math.isclose(found, wanted, rel_tol=1e-9, abs_tol=1e-9)


@given(st.one_of(st.text(), st.text("0123456789.+-*/() "), st.integers(), st.none(), st.binary()))
@example("\x00")
@example("((28 - 13) and (28 - 15))")
def test_anything_else_gives_none_or_a_finite_number(text: object) -> None:
    found = evaluate_equation(text)
    assert found is None or (isinstance(found, float) and math.isfinite(found))


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", 7), ("( 7.0 + 2.0 )", 9), ("8-3-2", 3), ("8/4/2", 1), ("2+3*4", 14), ("-2*-3", 6), ("2 - -3", 5),
     ("-(1+2)", -3), ("--1", 1), ("+1", 1), ("1\n+ 2", 3), ("(((5)))", 5), ("1/4", 0.25)],
)  # fmt: skip
def test_values(text: str, value: float) -> None:
    assert evaluate_equation(text) == value


@pytest.mark.parametrize(
    "text",
    ["", " ", "()", "(", ")", ")(", "1)", "(1", "1 2", "2(3)", "(2)(3)", "1+", "*1", "1 + * 2", "1//2",
     "2**3", "9**9**9", "1,2", "(14, 21)", "1e5", "1_000", "0x10", "x", "some - 8", "7x = 14", "(1) and (2)",
     "1/0",
     "1/(2-2)", "٣+١", "１", "1\u00a0+ 2", "nan", "inf", "True", "__import__('os')", "9" * 400, "1.2.3",
     "*".join(["9" * 200] * 2), "1" + "0" * 300 + "*" + "1" + "0" * 300, "1+1\x00"],
)  # fmt: skip
def test_everything_else_has_no_value(text: str) -> None:
    assert evaluate_equation(text) is None


@pytest.mark.parametrize(
    "text",
    ["(" * 100_000, "(" * 400 + "1" + ")" * 400, "-" * 999 + "1", "9**9**9", "1+" * 499 + "1",
     " " * 10**6, "1" * 10**6],
)  # fmt: skip
def test_hostile_text_takes_no_time(text: str) -> None:
    start = time.perf_counter()
    evaluate_equation(text)
    assert time.perf_counter() - start < 0.5


def test_length_limit() -> None:
    text = "1" + "+1" * ((MAX_LENGTH - 1) // 2)
    assert evaluate_equation(text) == (len(text) + 1) // 2
    assert evaluate_equation(text + "+1") is None


def test_matching() -> None:
    assert is_right("text", "nest", "nest") and not is_right("text", "Nest", "nest")
    assert not is_right("text", "", "nest")
    assert is_right("equation", "(2 + 7)", "( 7.0 + 2.0 )") and not is_right("equation", "7", "( 7.0 + 2.0 )")
    assert not is_right("equation", "", "") and not is_right("equation", "x", "x")
    with pytest.raises(UserError, match="unknown answer kind 'txt'; did you mean 'text'"):
        is_right("txt", "a", "a")
