"""Name the tracking store of an experiment: as it is shown, as it is opened, and the file that it is."""

from __future__ import annotations

from pathlib import Path

from cotdistill.common.errors import UserError
from cotdistill.config.addresses import expand_uri
from cotdistill.config.models import Experiment


def get_uri(experiment: Experiment) -> str:
    """Return the tracking URI of an experiment as it may be shown: with names of variables, not values."""
    return experiment.tracking.uri or f"sqlite:///{Path(experiment.results).absolute() / 'mlflow.db'}"


def open_uri(experiment: Experiment) -> tuple[str, dict[str, str]]:
    """Return the tracking URI as MLflow takes it, and what it must not be shown with. Raises UserError."""
    if experiment.tracking.uri is None:
        return get_uri(experiment), {}
    try:
        return expand_uri(experiment.tracking.uri)
    except ValueError as error:
        raise UserError(f"tracking.uri {experiment.tracking.uri}: {error}") from error


def find_database(uri: str) -> Path | None:
    """Return the file of a SQLite store; None for another store.

    uri: as it is opened. The file is named through any link to it, as every writer must find the same lock.
    """
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").split("?")[0]).resolve()
