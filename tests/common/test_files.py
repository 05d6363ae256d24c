"""Files are written whole or not at all, and read back as they were written."""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotdistill.common.errors import UserError
from cotdistill.common.files import (
    atomic,
    check_hash,
    read_json,
    read_sealed,
    replace_non_finite,
    seal,
    write_json,
)

texts = st.text(max_size=10)
finite = st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | st.integers() | finite | texts
values = st.recursive(
    leaves, lambda own: st.lists(own, max_size=3) | st.dictionaries(texts, own, max_size=3), max_leaves=8
)


@settings(deadline=None)
@given(st.dictionaries(texts.filter(lambda key: key != "seal"), values, max_size=4))
def test_what_is_sealed_is_read_as_it_was(tmp_path_factory: Any, value: dict[str, Any]):
    path: Path = tmp_path_factory.getbasetemp() / "sealed.json"
    write_json(path, seal(value))
    assert read_sealed(path, "write it again") == value
    assert read_json(path).keys() == {*value, "seal"}


def test_a_value_without_a_seal_is_not_checked(tmp_path: Path):
    write_json(tmp_path / "plain.json", {"a": 1})
    assert read_sealed(tmp_path / "plain.json", "write it again") == {"a": 1}


def test_numbers_that_json_cannot_spell_become_null():
    odd = {"a": [math.nan, 1.5, (math.inf, -math.inf)], "b": {"c": -math.inf, "d": "nan"}, "e": 1e308}
    assert replace_non_finite(odd) == {
        "a": [None, 1.5, [None, None]], "b": {"c": None, "d": "nan"}, "e": 1e308
    }  # fmt: skip
    assert replace_non_finite(math.nan) is None and replace_non_finite(True) is True


@settings(deadline=None)
@given(values)
def test_finite_values_stay_as_they_are(value: Any):
    assert replace_non_finite(value) == value
    assert json.loads(json.dumps(value)) == value


class ForeignError(Exception):
    """As safetensors raises: no OSError, but with the text of one."""


@pytest.mark.parametrize("kind", [ForeignError, OSError])
def test_a_full_disk_is_one_line_whichever_library_meets_it(kind: type[Exception], tmp_path: Path):
    target = tmp_path / "model.safetensors"
    with pytest.raises(UserError, match=r"^cannot write .*model\.safetensors: .*No space left on device"), \
            atomic(target) as part:  # fmt: skip
        part.write_text("half")
        raise kind("I/O error: No space left on device (os error 28)")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ForeignError("tensor 3 has no name"), UserError("(os error 2)")])
def test_other_errors_stay_what_they_are(error: Exception, tmp_path: Path):
    with pytest.raises(type(error)) as raised, atomic(tmp_path / "file"):
        raise error
    assert raised.value is error and list(tmp_path.iterdir()) == []


def test_a_file_of_other_bytes_is_refused_with_what_helps(tmp_path: Path):
    path = tmp_path / "weights"
    path.write_bytes(b"as written")
    check_hash(path, hashlib.sha256(b"as written").hexdigest(), "corrupt", "train again")
    for expected in ("0" * 64, None):
        with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: corrupt; train again$"):
            check_hash(path, expected, "corrupt", "train again")
    path.unlink()
    with pytest.raises(UserError, match=r"^cannot read .*weights: No such file or directory; train again$"):
        check_hash(path, "0" * 64, "corrupt", "train again")
