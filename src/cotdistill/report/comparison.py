"""Write the tables that compare methods, in every format, and the verdict on them."""

from __future__ import annotations

from pathlib import Path

from cotdistill.analysis import verdict
from cotdistill.analysis.shared_data import list_data_limits
from cotdistill.analysis.tables import AnalysedTables
from cotdistill.common.files import write_text
from cotdistill.config.models import Experiment
from cotdistill.report import samples
from cotdistill.report.latex import render_latex
from cotdistill.report.render import render_markdown, render_plain
from cotdistill.report.webpage import render_comparison_page


def write_comparison(experiment: Experiment) -> list[Path]:
    """Write the comparison, the evidence, the verdict and the samples to `tables/`; return the paths.

    The CSV files hold the comparison and the evidence at full precision in fractions; the others show percent
    with one decimal.
    """
    tables = AnalysedTables(experiment)
    results, comparison, name = tables.results, tables.comparison, experiment.experiment
    found = verdict.reach_verdict(
        tables.evidence, tables.overall, name, experiment.baseline, list_data_limits(results)
    )
    texts = {
        "verdict.md": verdict.to_markdown(found),
        "verdict.txt": verdict.to_text(found),
        "evidence.csv": tables.evidence.to_csv(index=False, lineterminator="\n"),
        "comparison.md": render_markdown(comparison, results, tables.measures, verdict.to_markdown(found)),
        "comparison.csv": comparison.to_csv(index=False, lineterminator="\n"),
        "comparison.tex": render_latex(comparison, results, tables.measures),
        "comparison.html": render_comparison_page(comparison, results, tables.measures),
        "samples.md": samples.render_markdown(tables.samples, name),
        "samples.html": samples.render_page(tables.samples, name),
    }
    folder = experiment.folder / "tables"
    for file, text in texts.items():
        write_text(folder / file, text)
    return [folder / file for file in texts]


def summarize(experiment: Experiment) -> str:
    """Return the comparison as plain text for a terminal."""
    return render_plain(AnalysedTables(experiment).comparison)
