"""What YAML reads otherwise than it was written, or without end, is refused in a line that says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cotdistill.common.errors import UserError
from cotdistill.config.yaml_files import DEEPEST, copy_plain
from cotdistill.runs.experiment import load, parse

Config = dict[str, Any]
Complaint = Callable[[Any], str]

TEXT = {
    "2024-01-05": "2024-01-05 is a date",
    "2024-13-45": "2024-13-45 is a date",
    "2024-01-05 25:61:00": "is a date",
    "2001-12-14t21:59:43.10-05:00": "is a date",
    "yes": "yes, no, on, off",
    "no": "yes, no, on, off",
    "On": "yes, no, on, off",
    "true": "yes, no, on, off",
    "1.0e+3": "of type float",
    "0x1f": "of type int",
    "0b11": "of type int",
    "1_000": "of type int",
    "7": "of type int",
    ".inf": "of type float",
    "010": "to YAML 010 is the number 8",
    "1:30": "to YAML 1:30 is the number 90",
    "190:20:30.15": "is the number 685230.15",
    "null": "nothing is here",
    "~": "nothing is here",
    "": "nothing is here",
}
PLACES = {
    "experiment": "experiment: {}",
    "dataset": "datasets:\n- {}",
    "dataset's name": "datasets:\n- name: {}",
    "student": "students:\n- {}",
    "student's name": "students:\n- name: {}\n  scratch: {{}}",
    "method": "methods:\n- {}",
    "adapter": "datasets:\n- name: demo\n  adapter: {}",
    "results": "results: {}",
    "baseline": "baseline: {}",
    "filter": "exclude:\n- dataset:\n  - {}",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("text", "reason"), TEXT.items(), ids=[text or "nothing" for text in TEXT])
def test_text_without_quotes(
    config: Config, complaint: Complaint, place: str, text: str, reason: str
) -> None:
    line = PLACES[place].format(text)
    kept = {key: value for key, value in config.items() if key != line.split(":")[0]}
    message = complaint(yaml.safe_dump(kept) + line + "\n")
    assert reason in message and "quotes" in message


def test_the_same_in_quotes(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "quoted.yaml"
    for name in ("2024-01-05", "yes", "010", "0x1f", "1e3"):
        del config["experiment"]
        file.write_text(yaml.safe_dump(config) + f"experiment: '{name}'\n")
        config["experiment"] = load(file).experiment
        assert config["experiment"] == name


def test_numbers(config: Config, complaint: Complaint, tmp_path: Path) -> None:
    del config["seeds"]
    for seeds, read in {"[010]": 8, "[007]": 7, "[1:30]": 90, "[-010]": -8}.items():
        message = complaint(yaml.safe_dump(config) + f"seeds: {seeds}\n")
        assert f"to YAML {seeds[1:-1]} is the number {read}: write {read}" in message
    file = tmp_path / "numbers.yaml"
    file.write_text(yaml.safe_dump(config) + "seeds: [0, 17, 1_000, 0x1f]\n")
    assert load(file).seeds == [0, 17, 1000, 31]


BROKEN = {
    "lists": ("[" * 5000, "more than 30 deep"),
    "mappings": ("{a: " * 5000, "more than 30 deep"),
    "lists that end": ("[" * 40 + "]" * 40, "more than 30 deep"),
    "blocks": ("\n" + "".join(" " * n + "a:\n" for n in range(1, 50)), "more than 30 deep"),
    "digits": ("1" * 5000, "a number of 5000 characters"),
    "float of digits": ("1" * 5000 + ".5", "a number of 5002 characters"),
    "own alias": ("&a [*a]", "an alias stands inside of what it stands for"),
    "tag": ("!!python/object/apply:os.system [x]", "the tag"),
    "wrong tag": ("!!int x", "not valid YAML"),
    "set": ("!!set {a}", "the tag"),
    "binary": ("!!binary aGk=", "the tag"),
    "tagged date": ("!!timestamp x", "is a date"),
}


@pytest.mark.parametrize(("text", "reason"), BROKEN.values(), ids=BROKEN)
def test_values_that_the_reader_would_fail_on(complaint: Complaint, text: str, reason: str) -> None:
    message = complaint(f"experiment: {text}\n")
    assert reason in message and len(message) < 200


def test_the_same_in_json(complaint: Complaint) -> None:
    assert "more than 30 deep" in complaint('{"experiment": ' + "[" * 3000 + "]" * 3000 + "}")
    assert "a number of 5000 characters" in complaint('{"seeds": [' + "9" * 5000 + "]}")
    assert "'seeds' stands twice" in complaint('{"seeds": [1], "seeds": [2]}')


def test_aliases_that_repeat_without_bounds(complaint: Complaint) -> None:
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    laughs += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    assert "with its aliases this is more than 200000 values" in complaint(laughs)
    chain = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 3000))
    assert f"with its aliases this is more than {DEEPEST} values in one another" in complaint(chain)


@pytest.mark.parametrize("key", ["on", "1", "null", "2024-01-05", "? [a]\n"])
def test_keys_that_are_no_text(complaint: Complaint, key: str) -> None:
    assert "is not text: put it in quotes" in complaint(f"{key}: 1\n")


def test_values_of_another_reader(config: Config) -> None:
    deep: Any = "x"
    for _ in range(50):
        deep = [deep]
    with pytest.raises(UserError, match="more than 30 values in one another"):
        parse(config | {"results": deep}, "--config")
    with pytest.raises(UserError, match="more than 200000 values"):
        copy_plain([[0] * 1000] * 1000, "--config")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(st.text(st.sampled_from("[]{}:,&*!-? |>'\"#%@0123456789.eTyesno~\n\t\\x\ud800é"), max_size=60))
def test_any_text_is_read_or_refused_in_a_line(config: Config, tmp_path: Path, text: str) -> None:
    file = tmp_path / "any.yaml"
    file.write_bytes((yaml.safe_dump(config) + "results: " + text).encode("utf-8", "surrogatepass"))
    try:
        load(file)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
