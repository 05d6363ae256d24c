"""Check the names that a config gives: they become folders, and words in tables."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema

PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
LONGEST = 100
"""characters of a name: the files that are named after it stay within the 255 of a file system"""
MISSING = ("na", "nan", "null", "none", "nil", "inf", "infinity", "true", "false")
"""what readers of tables take for a missing or another value, in any case"""


def check_name(name: str) -> str:
    """Return a name. Raises ValueError where it cannot be a folder, or is not read as text in a table."""
    if not re.fullmatch(PATTERN, name) or "\n" in name:
        raise ValueError(
            "a name is of letters, digits, '.', '_' and '-', and begins with a letter or a digit"
        )
    if len(name) > LONGEST:
        raise ValueError(f"a name has {LONGEST} characters at most, this has {len(name)}")
    if name.lower() in MISSING:
        raise ValueError("a table with this name in it is not read as it was written: choose another name")
    return name


def check_experiment_name(name: str) -> str:
    """Return an experiment's name. Raises ValueError where MLflow's own files have that name."""
    if re.match(r"mlflow\.|(mlflow|mlartifacts|mlruns)$", check_name(name), re.IGNORECASE):
        raise ValueError("files of MLflow have this name in the folder of results: choose another name")
    return name


def check_method_name(name: str) -> str:
    """Return a method's name. Raises ValueError where it is that of another answerer in tables of samples."""
    if check_name(name).lower() == "teacher":
        raise ValueError("in tables of samples 'teacher' is the teacher: choose another name")
    return name


def find_alike(names: list[str]) -> tuple[str, str] | None:
    """Return two names that differ in case alone, which some file systems take for one, if there are two."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            return other, name
    return None


def explain_type(value: Any) -> str:
    """Return what YAML took a text for, and the remedy; empty where it is text, a list or a mapping."""
    if value is None:
        return "nothing is here, or the word null, which is nothing to YAML; put text in quotes"
    if isinstance(value, bool):
        return "to YAML the words yes, no, on, off, true and false are true or false; put text in quotes"
    if isinstance(value, (str, list, dict)):
        return ""
    return f"to YAML this is of type {type(value).__name__}; put text in quotes"


def check_entry(value: Any) -> Any:
    """Return an entry of an axis in its short or long form. Raises ValueError where it is neither."""
    if not isinstance(value, (str, dict)) and not hasattr(value, "model_fields_set"):
        raise ValueError(f"a name is expected, or keys and values: {explain_type(value) or 'not a list'}")
    return value


_NAME = WithJsonSchema({"type": "string", "pattern": PATTERN, "maxLength": LONGEST})
Name = Annotated[str, AfterValidator(check_name), _NAME]
MethodName = Annotated[str, AfterValidator(check_method_name), _NAME]
ExperimentName = Annotated[str, AfterValidator(check_experiment_name), _NAME]
