"""Datasets: one file per adapter, registered under its file name."""

from __future__ import annotations

from cotdistill.common.registry import Registry

ADAPTERS = Registry(__name__, "dataset")
