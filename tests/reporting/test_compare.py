"""The comparison: its numbers by hand, where reported numbers stand, and its three renderings."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable

import pandas as pd
import pytest

from cotdistill.analysis.comparison import compare
from cotdistill.analysis.reported import read_reported, read_sources
from cotdistill.analysis.tables import AnalysedTables
from cotdistill.analysis.words import format_percent
from cotdistill.common.errors import UserError
from cotdistill.config.models import Experiment
from cotdistill.report.comparison import write_comparison
from cotdistill.report.latex import escape, render_latex
from cotdistill.report.render import render_markdown, render_plain
from cotdistill.runs.grid import expand
from cotdistill.tables.collect import collect

Made = Callable[..., Experiment]


def tables_of(experiment: Experiment) -> AnalysedTables:
    collect(experiment, allow_missing=True)
    return AnalysedTables(experiment)


def rows_of(tables: AnalysedTables, baseline: str = "dss") -> pd.DataFrame:
    return compare(tables.results, tables.evidence, baseline)


def page(tables: AnalysedTables) -> str:
    return render_markdown(rows_of(tables), tables.results, tables.measures, "the verdict")


def test_numbers_by_hand(made: Made) -> None:
    tables = tables_of(made())
    table, rows = tables.results, rows_of(tables)
    assert len(rows) == 6
    row = rows[(rows["dataset"] == "svamp") & (rows["method"] == "mi")].iloc[0]
    cell = table[table["dataset"] == "svamp"].pivot(index="seed", columns="method", values="accuracy")
    assert row["n_seeds"] == row["n_pairs"] == 3
    assert row["mean"] == pytest.approx(cell["mi"].mean())
    assert row["sd"] == pytest.approx(cell["mi"].std(ddof=1))
    assert row["difference"] == pytest.approx((cell["mi"] - cell["dss"]).mean())
    # t(0.975, 2) = 4.303 in any printed table
    assert row["high"] - row["mean"] == pytest.approx(4.303 * cell["mi"].std(ddof=1) / math.sqrt(3), rel=1e-3)
    assert row["difference_low"] < row["difference"] < row["difference_high"]
    assert row["teacher_accuracy"] == 0.75


def test_the_baseline_has_no_difference_and_must_exist(made: Made) -> None:
    experiment = made(datasets=["cqa"])
    rows = rows_of(tables_of(experiment)).set_index("method")
    assert rows.loc["dss", "n_pairs"] == 0 and math.isnan(rows.loc["dss", "difference"])
    with pytest.raises(UserError, match="'baseline': method 'dsss' is not in the grid"):
        write_comparison(experiment.model_copy(update={"baseline": "dsss"}))


def test_missing_runs_are_counted_and_named(made: Made) -> None:
    tables = tables_of(made(skip=("cqa/tiny/mi/gold/1/2", "cqa/tiny/dss/gold/1/1")))
    rows = rows_of(tables).set_index(["dataset", "method"])
    mi = rows.loc[("cqa", "mi")]
    assert (mi["n_seeds"], mi["n_missing"], mi["n_pairs"]) == (2, 1, 1)
    text = page(tables)
    assert "MISSING: 2 of 18 runs" in text and "cqa/tiny/mi/gold/1/2" in text
    assert "(1 pair)" in text
    assert "missing: 2 of 18 runs" in render_plain(rows_of(tables))


def test_all_missing(made: Made) -> None:
    ids = tuple(f"cqa/tiny/{method}/gold/1/0" for method in ("dss", "mi"))
    tables = tables_of(made(skip=ids, datasets=["cqa"], methods=["dss", "mi"], seeds=[0]))
    assert "missing" in render_plain(rows_of(tables))


def test_one_seed_has_no_interval(made: Made) -> None:
    rows = rows_of(tables_of(made(seeds=[7], datasets=["cqa"])))
    assert rows["low"].isna().all() and (rows["n_seeds"] == 1).all()
    text = render_plain(rows)
    assert "(n=1)" in text and "±" not in text.split("accuracy: mean")[0]


def test_collapsed_runs_are_told_beside_the_mean(made: Made, change: Callable[..., None]) -> None:
    experiment = made(datasets=["cqa"])
    assert "collapsed" not in render_plain(rows_of(tables_of(experiment)))
    run = next(run for run in expand(experiment) if run.id == "cqa/tiny/mi/gold/1/2")
    variety = {"distinct": 2, "commonest_share": 0.97, "commonest_gold_share": 0.4}
    change(run, run.files.metrics, "measures.answers", variety)
    tables = tables_of(experiment)
    row = rows_of(tables).set_index("method").loc["mi"]
    assert (row["n_collapsed"], row["n_seeds"]) == (1, 3)
    assert "(n=3, 1 collapsed)" in render_plain(rows_of(tables))
    assert "collapsed: runs that give one answer to 95% of test or more" in page(tables)
    assert tables.evidence.set_index("method").loc["mi", "collapsed"] == ["1 of 3 of mi"]


def test_the_interval_of_accuracy_says_what_it_covers(made: Made) -> None:
    tables = tables_of(made(datasets=["cqa"]))
    for text in (render_plain(rows_of(tables)), page(tables)):
        assert "95% over seeds" in text and "not the error of" in page(tables)


def test_reported_numbers_stand_beside_the_same_experiment_alone(made: Made) -> None:
    experiment = made(
        students=["google/t5-v1_1-base", {"name": "small", "scratch": {}}],
        methods=[
            "dss",
            "mi",
            {"name": "mi_beta_0.5", "method": "mi", "beta": 0.5},
            # a name is no method: this one minimises something else
            {"name": "single_task", "method": "finetune"},
        ],
        datasets=["cqa", {"name": "svamp", "adapter": "custom", "path": "x"}],
        labels=["gold", "teacher"],
        seeds=[0],
    )
    tables = tables_of(experiment)
    rows = rows_of(tables)
    found = rows[rows["reported"].notna()]
    keys = [tuple(key) for key in found[["dataset", "student", "method", "labels"]].to_numpy()]
    names = {("cqa", "t5-v1_1-base", name, "gold") for name in ("dss", "mi", "single_task")}
    assert set(keys) == names and len(keys) == 3
    reports = found.set_index("method")["reported"]
    assert reports["mi"] == pytest.approx(0.6388)
    assert reports["single_task"] == pytest.approx(0.6219), "matched by its objective, finetune"
    text = page(tables)
    other = text.split("## Reported by others")[1].split("## Notes")[0]
    assert "62.6 to 63.4" in other and "svamp" not in other and "63.9 " not in other


def test_reported_file_is_whole() -> None:
    assert len(read_reported()) == 42
    assert {r.text for r in read_reported() if r.source == "Vöge" and r.student.endswith("small")} == {
        "40.8 ± 0.5 (n=3)",
        "44.5 ± 1.0 (n=3)",
    }
    assert all((r.sd is None) == (r.n is None) for r in read_reported())
    assert all(
        r.source in read_sources() and 0 < r.low <= r.high < 100 and not r.verified for r in read_reported()
    )


def test_mixed_data_and_code_are_told(made: Made) -> None:
    tables = tables_of(made(datasets=["cqa"]))
    assert "MIXED" not in page(tables)
    tables.results.loc[0, ["data_checksum", "git_commit"]] = ["other", "fedc"]
    text = page(tables)
    assert "MIXED CODE: the runs come from 2 git commits" in text and "MIXED DATA: in cqa" in text


def test_both_accuracies_of_option_scoring_are_in_a_table_and_calibration_names_its_score(made: Made) -> None:
    tables = tables_of(made(datasets=["cqa"], methods=["dss", "mi"]))
    own = tables.measures[tables.measures["measure"] == "calibration/options/accuracy"]
    added = [own.assign(measure=name, value=value) for name, value in (
        ("options/sum/accuracy", 0.5), ("options/mean/accuracy", 0.25), ("options/sum/shortest", 0.875),
        ("calibration/options_mean/ece_width", 0.0625),
    )]  # fmt: skip
    tables.__dict__["measures"] = pd.concat([tables.measures, *added])
    text = page(tables)
    both = " ".join(text.split("Options chosen by the sum and by the mean")[1].split())
    assert "accuracy by sum % | shortest chosen by sum % | accuracy by mean %" in both
    assert "50.0 ± 0.0 | 87.5 ± 0.0 | 25.0 ± 0.0" in both
    other = text.split("Calibration of option scoring, by the mean log-likelihood per token")[1]
    assert "6.2 ± 0.0" in other.split("\n## ")[0]


def test_mixed_machines_are_told_and_still_compared(made: Made) -> None:
    experiment = made(datasets=["cqa"], methods=["dss", "mi"])
    tables = tables_of(experiment)
    assert "MIXED" not in page(tables), "folders that tell no kernels are of no known machine"
    done = tables.results
    done["cpu"], done["kernels"] = "AMD EPYC, model 1", "AVX2 01ab"
    assert "MIXED" not in page(tables)
    done.loc[done["method"] == "mi", "kernels"] = "DEFAULT 23cd"
    text = page(tables)
    seeds = done["seed"].nunique()
    assert "MIXED MACHINES: the runs come from 2 sets of CPU model and kernels" in text
    for kernels in ("AVX2 01ab", "DEFAULT 23cd"):
        assert f"AMD EPYC, model 1 with kernels {kernels}: {len(done) // 2} runs" in text
    assert f"In {seeds} of {seeds} repetitions, methods that are compared" in text
    assert len(tables.evidence), "it is told, not refused"
    done["kernels"] = "AVX2 01ab"
    done.loc[done["seed"] == 0, "cpu"] = "Intel Xeon, model 85"
    assert f"In 0 of {seeds} repetitions" in page(tables)


def test_files(made: Made) -> None:
    experiment = made(methods=["dss", {"name": "mi_beta_0.5", "method": "mi", "beta": 0.5}])
    collect(experiment)
    paths = write_comparison(experiment)
    names = ["verdict.md", "verdict.txt", "evidence.csv", "comparison.md", "comparison.csv", "comparison.tex"]
    assert [path.name for path in paths] == [*names, "comparison.html", "samples.md", "samples.html"]
    md, csv, tex = (path.read_text() for path in paths[3:6])
    lines = [line for line in md.split("## Notes")[0].splitlines() if line.startswith("|")]
    assert re.search(r"\d\d\.\d ± \d\.\d \(n=3\)", md) and len(lines) > 8
    assert len(pd.read_csv(paths[4])) == 4 and csv.startswith("dataset,")
    assert r"mi\_beta\_0.5" in tex and r"\toprule" in tex and r"$\pm$" in tex
    assert r"\textbf{" in tex and "**" in md, "the best is bold"
    assert "### Rationales" in md and "Brier" in tex
    page = paths[6].read_text(encoding="ascii")
    assert page.count("<b>") == md.count("**") / 2 - 1, "the best is bold, and so is the verdict in Markdown"
    cells = re.findall(r"<t[dh]>(?:<b>)?(.*?)(?:</b>)?</t[dh]>", html.unescape(page))
    shown = [cell.strip(" *") for line in lines if "---" not in line for cell in line.split("|")[1:-1]]
    assert cells == shown, "the page shows what the Markdown shows"
    assert "<script" not in page and "http" not in page
    for part in tex.split(r"\begin{tabular}")[1:]:
        body = part.split(r"\end{tabular}")[0]
        ampersands = {line.count("&") for line in body.splitlines() if line.endswith(r"\\")}
        assert len(ampersands) == 1, "every row of a LaTeX table has as many cells"
    assert not re.search(r"(?<!\\)[_#]", tex.replace("\\usepackage", "")), "an unescaped character"


def test_text_helpers() -> None:
    assert escape(r"a_b & 50% {x} \ ~^") == (
        r"a\_b \& 50\% \{x\} \textbackslash{} \textasciitilde{}\textasciicircum{}"
    )
    assert format_percent(-0.0001, sign=True) == "+0.0" and format_percent(float("nan")) == "n/a"
    assert format_percent(0.0351, sign=True) == "+3.5"


def test_latex_minus(made: Made) -> None:
    tables = tables_of(made(datasets=["cqa"], baseline="mi"))
    text = render_latex(rows_of(tables, "mi"), tables.results, tables.measures)
    assert "$-$" in text, "differences below 0 show a minus sign"
