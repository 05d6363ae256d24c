"""The tables of an experiment with what the statistics make of them."""

from __future__ import annotations

from functools import cached_property

import pandas as pd

from cotdistill.analysis.comparison import compare
from cotdistill.analysis.evidence import compute_evidence
from cotdistill.analysis.overall import compute_overall
from cotdistill.tables.store import Tables


class AnalysedTables(Tables):
    """The tables of an experiment, and each method compared with the baseline; each computed when looked at.

    Figures and pages are made of these.
    """

    @cached_property
    def evidence(self) -> pd.DataFrame:
        """Every method against the baseline in each block of the grid, see `compute_evidence`."""
        relevant = self.experiment.relevant_difference / 100
        return compute_evidence(self.examples, self.results, self.experiment.baseline, relevant)

    @cached_property
    def overall(self) -> pd.DataFrame:
        """The same over datasets, see `compute_overall`."""
        return compute_overall(self.examples, self.results, self.experiment.baseline)

    @cached_property
    def comparison(self) -> pd.DataFrame:
        """A row for each cell of the grid, see `compare`."""
        return compare(self.results, self.evidence, self.experiment.baseline)
