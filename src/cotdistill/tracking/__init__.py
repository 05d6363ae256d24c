"""Write the finished runs of a grid into MLflow. Only this package imports mlflow."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cotdistill.config.models import Experiment

# before mlflow is imported, which is why they stand here: no usage reports over the network, no
# chatter on the terminal, and an unreachable server is an error within seconds, not minutes
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"
if os.environ.get("MLFLOW_LOGGING_LEVEL", "").upper() not in logging.getLevelNamesMapping():
    os.environ["MLFLOW_LOGGING_LEVEL"] = "WARNING"  # mlflow cannot be imported with a level that is none
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")


def track(experiment: Experiment, timeout: float = 600.0) -> dict[str, Any]:
    """Write the grid into its MLflow store; see `cotdistill.tracking.mlflow_store.track`."""
    # mlflow takes seconds to import: it is imported only where it is used
    from cotdistill.tracking import mlflow_store

    return mlflow_store.track(experiment, timeout)


def follow(experiment: Experiment, every: float = 5.0) -> dict[str, Any]:
    """Track the grid while it runs; see `cotdistill.tracking.live.follow`."""
    from cotdistill.tracking import live

    return live.follow(experiment, every)
