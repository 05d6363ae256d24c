"""Turn a pydantic fault into one line: what, where, expected, and the near key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from cotdistill.common.errors import UserError, show_value, suggest
from cotdistill.config.addresses import mask_secrets
from cotdistill.config.names import explain_type

T = TypeVar("T", bound=BaseModel)

UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
"""pydantic's words for an unknown key, of a model and of a dataclass"""


def validate(model: type[T], value: Any, where: str, prefix: str = "") -> T:
    """Return `model` filled from `value`. Raises UserError with the first fault in one line."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise UserError(format_first_fault(model, error, where, prefix)) from error


def format_first_fault(model: type, error: ValidationError, where: str, prefix: str = "") -> str:
    """Return the first fault of a failed validation: where it is, what was expected and found, the near key.

    It is one line, whatever was found, and holds no password of an address.

    model: a pydantic model, or a dataclass that a TypeAdapter checks.
    """
    # a default that is made of other keys is not missing: those are wrong
    faults = [fault for fault in error.errors() if fault["type"] != "default_factory_not_called"]
    # an unknown key is the likeliest cause of everything else that is wrong: name it first
    fault = next((f for f in faults if f["type"] in UNKNOWN_KEY), faults[0])
    location = prefix + _join_location(fault["loc"])
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    if fault["type"] in UNKNOWN_KEY:
        owner = _find_owner(model, fault["loc"][:-1])
        keys = list(_list_fields(owner))
        known = f" (known: {', '.join(keys)})" if keys else ""
        return f"{where}: unknown key '{location}'{suggest(str(fault['loc'][-1]), keys)}{known}{more}"
    if fault["type"] == "missing":
        return f"{where}: '{location}' is missing{more}"
    message = _shorten_bound(fault).removeprefix("Value error, ")
    message = message[0].lower() + message[1:] if message[:2] not in ("T5", "ML") else message
    found = "" if isinstance(fault["input"], (dict, BaseModel)) else f", found {_show_found(fault['input'])}"
    remedy = explain_type(fault["input"]) if fault["type"] == "string_type" else ""
    return f"{where}: '{location}': {message}{found}{remedy and f' ({remedy})'}{more}"


def _show_found(value: Any) -> str:
    """Return what was found, masked before it is cut: half a password is one too."""
    if isinstance(value, str):
        return show_value(mask_secrets(value)) if len(value) < 4000 else f"text of {len(value)} characters"
    return mask_secrets(show_value(value, 400))[:80]


def _shorten_bound(fault: Mapping[str, Any]) -> str:
    """Return pydantic's words, in which a bound of 1e-37 is not written out with all its zeros."""
    bounds = fault.get("ctx", {}).values()
    found = next((bound for bound in bounds if isinstance(bound, float) and bound), None)
    words, _, number = fault["msg"].rpartition(" ")
    shortened = found and number.replace(".", "").isdigit()
    return f"{words} {found:g}" if shortened else str(fault["msg"])


def _join_location(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{show_value(part)[1:-1]}"
    return text.lstrip(".") or "(top level)"


def _list_fields(model: Any) -> dict[str, Any]:
    return getattr(model, "model_fields", None) or getattr(model, "__dataclass_fields__", {})


def _find_owner(model: type, location: tuple[int | str, ...]) -> type | None:
    """Return the model that holds the key at `location`, for listing the keys it knows."""
    current: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        field = _list_fields(current).get(part)
        current = _find_inner_model(field.annotation) if field else None
    return current


def _find_inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for arg in get_args(annotation) if (m := _find_inner_model(arg))), None)
