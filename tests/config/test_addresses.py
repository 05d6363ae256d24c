"""A tracking address is checked before anything trains, and no password in it is ever shown or stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotdistill.config.addresses import SCHEMES, check_tracking_uri, expand_uri, hide_values, mask_secrets
from cotdistill.runs.experiment import parse

Config = dict[str, Any]
Complaint = Callable[[Any], str]
SECRET = "hunter2"


def test_schemes_are_those_of_mlflow() -> None:
    utils = pytest.importorskip("mlflow.tracking._tracking_service.utils")
    known = set(utils._tracking_store_registry._registry)
    assert set(SCHEMES) == {name for name in known if name and "uc" not in name.split("-")}


@pytest.mark.parametrize(
    "uri",
    ["http://host:5000", "https://host/path", "HTTP://host", "http://[::1]:5000", "sqlite:///mlflow.db",
     "sqlite:////abs/my runs.db", "sqlite:///$HOME/x.db", "postgresql://u@h/d", "postgresql+psycopg2://h:5/d",
     "postgresql://u:${DB_PASSWORD}@h/d", "mysql://h/d?password=$DB_PASSWORD", "databricks",
     "databricks://profile", "mssql+pyodbc://h/d?driver=x"],
)  # fmt: skip
def test_addresses_that_are_taken(config: Config, uri: str) -> None:
    assert parse(config | {"tracking": {"uri": uri}}, "test").tracking.uri == uri


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("foo://x", "MLflow knows no store of scheme 'foo' (known: http,"),
        ("htp://h:5000", "MLflow knows no store of scheme 'htp'"),
        ("arn:aws:x", "MLflow knows no store of scheme 'arn'"),
        ("http+unix://h", "MLflow knows no store of scheme 'http+unix'"),
        ("localhost:5000", "MLflow knows no store of scheme 'localhost'"),
        ("mlruns", "MLflow keeps runs in a folder no more"),
        ("file:///x", "MLflow keeps runs in a folder no more"),
        ("http://", "an address such as http://host:5000"),
        ("http:/host", "an address such as http://host:5000"),
        ("http://h:port", "an address such as http://host:5000"),
        ("http://[::1", "an address such as http://host:5000"),
        ("http://a b", "an address such as http://host:5000"),
        ("sqlite://", "a SQLite store is a file"),
        ("sqlite:///:memory:", "a SQLite store is a file"),
        ("sqlite:x.db", "a SQLite store is a file"),
        ("sqlite:///~/x.db", "write sqlite:///$HOME/"),
        ("", "this is empty"),
        ("http://h/\nx", "U+000A"),
        ("http://h/" + "x" * 5000, "2000 characters at most"),
    ],
)
def test_addresses_that_are_refused(config: Config, complaint: Complaint, uri: str, reason: str) -> None:
    message = complaint(config | {"tracking": {"uri": uri}})
    assert "'tracking.uri'" in message and reason in message and len(message) < 400


SERVER, DATABASE = "MLFLOW_TRACKING_USERNAME", "${DB_PASSWORD}"


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [
        (f"http://user:{SECRET}@host", SERVER),
        (f"https://{SECRET}@host:5000/x", SERVER),
        (f"http://user:{SECRET}/x@host", SERVER),
        (f"databricks://user:{SECRET}@host", SERVER),
        (f"postgresql://u:{SECRET}@h/d", DATABASE),
        (f"postgresql+psycopg2://u:{SECRET}@x@h/d", DATABASE),
        (f"postgresql://u:${{X}}{SECRET}@h/d", DATABASE),
        (f"mysql://h/d?password={SECRET}", DATABASE),
        (f"mysql://h/d?a=b&PASSWD={SECRET}", DATABASE),
        (f"http://h?token={SECRET}", DATABASE),
        (f"http://h?x=1&api_key={SECRET}", DATABASE),
        (f"mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3D{SECRET}", DATABASE),
        (f"foo://u:{SECRET}@h", "knows no store"),
        (f"user:{SECRET}@h", "knows no store"),
        (f"a/u:{SECRET}@h", "folder no more"),
    ],
)
def test_a_password_is_refused_and_not_shown(
    config: Config, complaint: Complaint, uri: str, remedy: str
) -> None:
    message = complaint(config | {"tracking": {"uri": uri}})
    assert remedy in message and SECRET not in message


def test_nor_where_an_address_is_no_text_or_at_another_key(config: Config, complaint: Complaint) -> None:
    uri = f"http://user:{SECRET}@host"
    for changes in (
        {"tracking": uri}, {"tracking": {"uri": [uri]}}, {"tracking": {"url": uri}}, {"results": uri},
        {"tracking": {"uri": {"x": uri}}}, {"data_root": uri}, {"students": [uri]}, {"seeds": [uri]},
        {"evaluation": {"judge": {"url": uri, "model": "m"}}}, {"tracking": {"uri": uri + "x" * 5000}},
    ):  # fmt: skip
        assert SECRET not in complaint(config | changes)


def test_variables_are_read_when_the_store_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "p%40ss w")
    opened, taken = expand_uri("postgresql://u:${DB_PASSWORD}@h/d")
    assert opened == "postgresql://u:p%40ss w@h/d"
    said = hide_values("no login for 'u' with 'p%40ss w' or p@ss w at postgresql://u:p%40ss w@h", taken)
    assert "ss w" not in said and "${DB_PASSWORD}" in said
    monkeypatch.delenv("DB_PASSWORD")
    with pytest.raises(ValueError, match="DB_PASSWORD is not set"):
        expand_uri("postgresql://u:${DB_PASSWORD}@h/d")


@given(
    st.sampled_from(["http", "postgresql+x", "a"]), st.text("abc:/?#&=;%.", max_size=12),
    st.text("xy/.", max_size=5),
)  # fmt: skip
def test_masks_hide_whatever_stands_before_the_host(scheme: str, user: str, rest: str) -> None:
    assert SECRET not in mask_secrets(f"at {scheme}://{user}{SECRET}@host{rest} it failed")


@given(st.text(st.sampled_from("htps:/?#&=;@$ {}qlite.+x0\n\t[]~\ud800"), max_size=40))
def test_any_text_is_an_address_or_refused(uri: str) -> None:
    try:
        assert check_tracking_uri(uri) == uri
    except ValueError as error:
        assert type(error) is ValueError and len(str(error).splitlines()) == 1
