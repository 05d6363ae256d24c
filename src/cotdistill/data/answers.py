"""Whether an answer is right: as text, or as the value of an equation.

Generated text is hostile: equations go through a small parser of our own, never through `eval`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Literal

from cotdistill.common.errors import make_unknown_error

Kind = Literal["text", "equation"]

MAX_LENGTH = 1000
"""characters; a longer text is not read (answers of 64 generated tokens stay far below)"""

# thousands: "1,000" and "1,234,567.5", but not "1,20" or "0,123", which others write for 1.2 and 0.123
_THOUSANDS = r"[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9,])(?:\.[0-9]*)?"
# a dollar sign right before a number is its unit, and changes no value
_TOKEN = re.compile(rf"[ \t\r\n]*(?:\$(?=[0-9.]))?({_THOUSANDS}|[0-9]+\.?[0-9]*|\.[0-9]+|[-+*/()])")
_SIGNS = str.maketrans({"\u2212": "-", "\u00d7": "*", "\u00f7": "/"})
"""the signs of print for minus, times and divided by"""
_NEGATE = "~"
_RANK = {"+": 1, "-": 1, "*": 2, "/": 2, _NEGATE: 3}


def evaluate_equation(text: object) -> float | None:
    """Return the value of plain arithmetic, or None for anything else. Never raises.

    Plain arithmetic: decimal numbers in ASCII digits, with commas between thousands or without, a dollar sign
    right before a number, `+ - * /` or the signs of print (see _SIGNS), a sign before an operand, parentheses
    and spaces. No powers, names, calls, other commas, exponents or underscores; no `%`, which may mean a
    hundredth or nothing, and no `=`, as either side may be the answer. Numbers are floats, as in the gold
    equations of SVAMP. A division by zero, or an infinite value at any step, gives None. Time and memory are
    linear in the text, of which at most `MAX_LENGTH` characters are accepted.
    """
    if not isinstance(text, str) or len(text) > MAX_LENGTH:
        return None
    try:
        return _evaluate(split_equation(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        return None


def split_equation(text: str) -> list[str]:
    """Return the numbers, without commas, the operators and the parentheses of arithmetic, in their order.

    Raises ValueError where the text holds anything else.
    """
    text = text.translate(_SIGNS).strip(" \t\r\n")
    tokens, position = [], 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError("not arithmetic")
        tokens.append(match[1].replace(",", ""))
        position = match.end()
    return tokens


def _evaluate(tokens: list[str]) -> float:
    # operator precedence with two explicit stacks: nesting costs list entries, not Python frames
    values: list[float] = []
    pending: list[str] = []
    operand_next = True
    for token in tokens:
        if operand_next:
            if token == "(":
                pending.append(token)
            elif token == "-":
                pending.append(_NEGATE)
            elif token[0] in "0123456789.":
                values.append(_check_finite(float(token)))
                operand_next = False
            elif token != "+":  # a plus sign before an operand changes nothing
                raise ValueError("an operand is missing")
        elif token == ")":
            while pending[-1:] not in ([], ["("]):
                _apply(pending.pop(), values)
            if not pending:
                raise ValueError("a parenthesis too many")
            pending.pop()
        elif token in _RANK:
            while pending and _RANK.get(pending[-1], 0) >= _RANK[token]:
                _apply(pending.pop(), values)
            pending.append(token)
            operand_next = True
        else:
            raise ValueError("an operator is missing")
    if operand_next or "(" in pending:
        raise ValueError("the expression is not complete")
    while pending:
        _apply(pending.pop(), values)
    return values[0]


def _apply(operator: str, values: list[float]) -> None:
    right = values.pop()
    if operator == _NEGATE:
        values.append(-right)
        return
    left = values.pop()
    if operator == "+":
        result = left + right
    elif operator == "-":
        result = left - right
    elif operator == "*":
        result = left * right
    else:
        result = left / right
    values.append(_check_finite(result))


def _check_finite(value: float) -> float:
    if not math.isfinite(value):
        raise OverflowError("not finite")
    return value


def _is_same_text(prediction: str, gold: str) -> bool:
    # an empty answer is none, also beside a gold label of which a tokenizer left nothing
    return prediction == gold and bool(prediction.strip())


def _is_same_value(prediction: str, gold: str) -> bool:
    # `==` and not math.isclose: it is what both published codes do, so accuracies stay comparable, and
    # on PaLM's answers for SVAMP a tolerance changes no verdict (586 of 800, 148 of 200 either way)
    found, wanted = evaluate_equation(prediction), evaluate_equation(gold)
    return found is not None and found == wanted


MATCHERS: dict[str, Callable[[str, str], bool]] = {"text": _is_same_text, "equation": _is_same_value}
"""answer kind -> is `prediction` right, given `gold`"""


def is_right(kind: str, prediction: str, gold: str) -> bool:
    """Whether `prediction` is right: the same string ('text') or an equal value ('equation').

    An empty text is wrong, and so is an equation without a value, even beside a gold answer without one.
    Raises UserError for an unknown kind.
    """
    if kind not in MATCHERS:
        raise make_unknown_error("answer kind", kind, MATCHERS)
    return MATCHERS[kind](prediction, gold)
