"""Every registered figure is drawn from tables alone, names its n, and gives the same bytes twice."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from scipy.stats import spearmanr, t

from cotdistill.analysis.tables import AnalysedTables
from cotdistill.common.errors import UserError
from cotdistill.config.models import Experiment
from cotdistill.report.figures import FIGURES, draw_all
from cotdistill.report.figures._parts import draw_seeds
from cotdistill.report.figures._style import GREY, MethodStyle, choose_styles, use_style, wrap_text
from cotdistill.tables.collect import collect

Made = Callable[..., Experiment]
REPORT = Path(__file__).parents[2] / "workflow" / "report"


def test_files_are_drawn_and_the_same_each_time(made: Made) -> None:
    experiment = made(datasets=["cqa"], methods=["dss", "mi"])
    collect(experiment)
    paths = draw_all(experiment)
    assert {path.name for path in paths} == {
        f"{name}.{kind}" for name in FIGURES.names() for kind in ("png", "pdf", "txt")
    }
    first = {path: path.read_bytes() for path in paths}
    draw_all(experiment)
    assert first == {path: path.read_bytes() for path in paths}
    assert not list(paths[0].parent.glob(".*"))


# what a grid has nothing to show of, besides curves over what does not vary in it
ONE_FRACTION, ONE_STUDENT = "data_efficiency", "student_size"


@pytest.mark.parametrize(
    ("settings", "sentences"),
    [
        ({"seeds": [0], "datasets": ["cqa"]}, {ONE_FRACTION, ONE_STUDENT}),
        (
            {"skip": ("cqa/tiny/mi/gold/1/0", "cqa/tiny/mi/gold/1/1", "cqa/tiny/mi/gold/1/2")},
            {ONE_FRACTION, ONE_STUDENT},
        ),
        ({"methods": ["dss"], "datasets": ["cqa"]}, {ONE_FRACTION, ONE_STUDENT, "difference"}),
        (
            {"fractions": [0.5, 1.0], "labels": ["gold", "teacher"], "exclude": [{"dataset": ["svamp"]}],
             "methods": ["dss", "mi"], "seeds": [0]},
            {ONE_STUDENT},
        ),
        (
            {"methods": ["finetune", "dss"], "baseline": "finetune", "datasets": ["svamp"], "seeds": [0, 1],
             "skip": ("svamp/big/dss/gold/1/0", "svamp/big/dss/gold/1/1"),
             "students": [{"name": "tiny", "scratch": {}}, {"name": "big", "scratch": {}}]},
            {ONE_FRACTION},
        ),
        (
            {"methods": ["finetune"], "baseline": "finetune", "datasets": ["svamp"]},
            {ONE_FRACTION, ONE_STUDENT, "difference", "rationales", "predictability",
             "accuracy_against_predictability"},
        ),
    ],
    ids=["one seed", "a cell missing", "baseline alone", "many panels", "students", "no rationale task"],
)  # fmt: skip
def test_figures_draw_and_say_their_n(made: Made, settings: dict[str, Any], sentences: set[str]) -> None:
    experiment = made(**settings)
    collect(experiment, allow_missing=True)
    tables = AnalysedTables(experiment)
    for name in FIGURES.names():
        module = FIGURES.module(name)
        figure = module.draw(tables, experiment)
        caption = module.caption(tables, experiment)
        assert "\n" not in caption and caption.endswith("."), name
        if name in sentences:
            assert not figure.axes and wrap_text(caption, 64) in [text.get_text() for text in figure.texts], (
                name
            )
            continue
        assert "n = " in caption, name
        for ax in figure.axes:
            assert not ax.axison or (ax.get_xlabel() and ax.get_title(loc="left")), name
            assert not ax.axison or ax.lines or ax.texts, f"{name}: an empty panel"
        if settings.get("skip"):
            missing = f"Runs missing: {len(settings['skip'])}."
            assert missing in caption or name in ("difference", "learning"), name


def test_points_are_the_seeds(made: Made) -> None:
    experiment = made(datasets=["cqa"])
    collect(experiment)
    tables = AnalysedTables(experiment)
    figure = FIGURES.module("accuracy").draw(tables, experiment)
    hollow = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "none"]
    assert sorted(line.get_xdata()[0] for line in hollow) == sorted(100 * tables.results["accuracy"])


def drawn(name: str, experiment: Experiment) -> tuple[Figure, AnalysedTables]:
    collect(experiment)
    tables = AnalysedTables(experiment)
    return FIGURES.module(name).draw(tables, experiment), tables


def line_of(ax: Axes, experiment: Experiment, method: str) -> Line2D:
    """The line with markers of a method: the last that was drawn in its colour."""
    look = choose_styles(experiment)[method]
    return [line for line in ax.lines if line.get_color() == look.color and line.get_marker() == look.marker][
        -1
    ]


def test_reliability_counts_the_examples_itself(made: Made) -> None:
    experiment = made(datasets=["cqa"], methods=["dss"], evaluation={"bins": 4})
    figure, tables = drawn("reliability", experiment)
    examples = tables.examples
    (ax,) = figure.axes
    assert ax.get_xlabel() == "confidence (options)"
    bins = defaultdict(list)
    for _, row in examples.iterrows():
        bins[min(math.ceil(row["option_confidence"] * 4), 4)].append(
            (row["option_confidence"], row["option_correct"])
        )
    expected = [np.mean(bins[key], axis=0) for key in sorted(bins) if len(bins[key]) >= 20]
    look = choose_styles(experiment)["dss"]
    (line,) = [line for line in ax.lines if str(line.get_label()).startswith("dss: ECE")]
    assert line.get_marker() == look.marker
    np.testing.assert_allclose(line.get_xydata(), expected)
    errors = tables.measures.query("measure == 'calibration/options/ece_width'")["value"]
    assert line.get_label() == f"dss: ECE {errors.mean():.3f} (n=3)", "as it was measured, a seed at a time"
    assert "4 bins" in FIGURES.module("reliability").caption(tables, experiment)


def test_reliability_of_an_open_label_set(made: Made) -> None:
    figure, _ = drawn("reliability", made(datasets=["svamp"], methods=["dss"], seeds=[0]))
    assert figure.axes[0].get_xlabel() == "confidence (generated sequence)"


def test_predictability_stands_beside_its_controls(made: Made) -> None:
    experiment = made(datasets=["cqa"])
    figure, tables = drawn("predictability", experiment)
    share, excess = figure.axes[0], figure.axes[1]
    assert "decoder" in share.get_title(loc="left") and "excess" in excess.get_title(loc="left")
    for ax, measure in ((share, "share"), (excess, "excess")):
        wanted = tables.measures[tables.measures["measure"] == f"predictability/decoder/{measure}"]
        colours = {look.color for look in choose_styles(experiment).values()}
        hollow = [line for line in ax.lines if line.get_markerfacecolor() == "none"]
        seeds = [line.get_xdata()[0] for line in hollow if line.get_color() in colours or line.get_alpha()]
        np.testing.assert_allclose(sorted(seeds), sorted(100 * wanted["value"]))
    controls = [line for line in share.lines if line.get_color() == GREY and line.get_marker() in "vdx"]
    marks = {(line.get_marker(), round(line.get_xdata()[0], 6)) for line in controls}
    assert marks == {("v", 30), ("d", 35), ("x", 0)}
    low, high = share.get_xlim()
    assert low < 0 and high > 35, "the controls are within the axis"
    caption = FIGURES.module("predictability").caption(tables, experiment)
    for words in ("n = 256 test examples", "n = 3 seeds", "lower bound", "untrained", "4.16 nats"):
        assert words in caption
    assert "Free-running" not in caption and "Not measured on" not in caption


def test_a_dataset_without_predictability_is_named(made: Made) -> None:
    experiment = made()
    _, tables = drawn("predictability", experiment)
    measures = tables.measures
    small = measures["measure"].str.startswith("predictability/") & (measures["dataset"] == "svamp")
    tables.measures = measures[~small]
    caption = FIGURES.module("predictability").caption(tables, experiment)
    assert "Not measured on svamp: it takes 256 test examples with a rationale; " in caption


def test_predictability_over_training_is_a_learning_curve(made: Made) -> None:
    experiment = made(datasets=["cqa"])
    figure, tables = drawn("learning", experiment)
    rows = tables.history.query("metric == 'valid/predictability/decoder/excess' and method == 'mi'")
    (ax,) = [ax for ax in figure.axes if "predictability,\nmean decoder" in ax.get_title(loc="left")]
    expected = 100 * rows.groupby("step")["value"].mean()
    np.testing.assert_allclose(
        line_of(ax, experiment, "mi").get_xydata(), [*zip(expected.index, expected, strict=True)]
    )
    caption = FIGURES.module("learning").caption(tables, experiment)
    assert "is of 256 validation examples" in caption


def test_learning_curves_say_why_predictability_is_not_among_them(made: Made) -> None:
    experiment = made(datasets=["cqa"], methods=["finetune"], baseline="finetune")
    figure, tables = drawn("learning", experiment)
    assert not [ax for ax in figure.axes if "predictability" in ax.get_title(loc="left")]
    caption = FIGURES.module("learning").caption(tables, experiment)
    assert "Predictability over training is not shown: it takes a method with" in caption


def test_correlation_is_stated_from_five_runs_on(made: Made) -> None:
    name = "accuracy_against_predictability"
    few, _ = drawn(name, made(datasets=["cqa"], methods=["dss", "mi"], seeds=[0, 1]))
    assert {ax.texts[0].get_text() for ax in few.axes} == {"n = 4 runs"}
    figure, tables = drawn(
        "accuracy_against_predictability", made(datasets=["cqa"], methods=["dss", "mi"], seeds=[0, 1, 2])
    )
    measure = "predictability/output/excess"
    rows = tables.measures[tables.measures["measure"] == measure].merge(
        tables.results[["run", "accuracy"]], on="run"
    )
    rho = spearmanr(rows["value"], rows["accuracy"]).statistic
    assert figure.axes[-1].texts[0].get_text() == f"Spearman {rho:+.2f}, n = 6 runs"
    points = [tuple(xy) for line in figure.axes[-1].lines for xy in line.get_xydata()]
    assert sorted(points) == sorted(zip(100 * rows["value"], 100 * rows["accuracy"], strict=True))


@pytest.mark.parametrize(
    ("name", "axis", "settings"),
    [
        ("data_efficiency", "fraction", {"fractions": [1.0, 0.25, 0.5]}),
        (
            "student_size",
            "student",
            {"students": [{"name": "tiny", "scratch": {}}, {"name": "big", "scratch": {}}]},
        ),
    ],
)
def test_curves_over_fractions_and_students(
    made: Made, name: str, axis: str, settings: dict[str, Any]
) -> None:
    experiment = made(datasets=["cqa"], methods=["dss", "mi"], **settings)
    figure, tables = drawn(name, experiment)
    (ax,) = figure.axes
    levels = [0.25, 0.5, 1.0] if axis == "fraction" else ["tiny", "big"]
    for method in ("dss", "mi"):
        own = tables.results[tables.results["method"] == method]
        cells = [100 * own["accuracy"][own[axis] == level] for level in levels]
        line = line_of(ax, experiment, method)
        np.testing.assert_allclose(line.get_ydata(), [cell.mean() for cell in cells])
        bars = [bar for bar in ax.lines if bar.get_color() == line.get_color() and bar is not line]
        for bar, cell in zip(bars, cells, strict=True):
            ends = t.interval(0.95, len(cell) - 1, cell.mean(), cell.sem())
            np.testing.assert_allclose(bar.get_ydata(), ends)
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels == (["25%\n180", "50%\n360", "100%\n720"] if axis == "fraction" else levels)
    if axis == "fraction":
        np.testing.assert_allclose(np.diff(ax.get_xticks()), 1)  # each place is twice the one before


def test_rationales_are_the_measures(made: Made) -> None:
    experiment = made(datasets=["cqa"])
    figure, tables = drawn("rationales", experiment)
    wanted = tables.measures[tables.measures["measure"] == "rationale/faithful_prediction"]
    ax = figure.axes[0]
    hollow = [line.get_xdata()[0] for line in ax.lines if line.get_markerfacecolor() == "none"]
    np.testing.assert_allclose(sorted(hollow), sorted(100 * wanted["value"]))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["dss", "mi"], "finetune writes none"


def test_axes_hold_all_values_and_run_upwards() -> None:
    figure = Figure()
    for values in ([120.0, 130.0], [50.0, 50.0], [0.0, 100.0], [-5.0]):
        ax = figure.add_subplot()
        draw_seeds(ax, [values], [MethodStyle("k", "o", "-")], 0, 100)
        low, high = ax.get_xlim()
        assert low < min(values) <= max(values) < high
        assert low > -20 and high < 145, "an interval beyond what is possible is cut"
        figure.canvas.draw()
        assert all(0 <= tick <= 100 for tick in ax.get_xticks()), "no tick at what cannot be"


MANY = ["dss", *({"name": f"long-name-{k}", "method": "mi"} for k in range(7))]


@pytest.mark.parametrize("methods", [["dss", "mi"], MANY], ids=["few", "many"])
def test_nothing_is_cut_off(made: Made, methods: list[Any]) -> None:
    experiment = made(datasets=["cqa"], methods=methods)
    collect(experiment)
    with use_style():
        for name in FIGURES.names():
            figure = FIGURES.module(name).draw(AnalysedTables(experiment), experiment)
            FigureCanvasAgg(figure).draw()
            for artist in [*figure.findobj(Legend), *(t for t in figure.texts if t.get_text())]:
                (left, _), (right, _) = artist.get_window_extent().get_points()
                assert left >= -1 and right <= figure.bbox.width + 1, (name, artist)


def test_every_figure_has_a_caption_in_the_report() -> None:
    for name in FIGURES.names():
        text = (REPORT / f"{name}.rst").read_text(encoding="utf-8")
        assert f'"{name}.png"' in text and f'"{name}.txt"' in text


def test_methods_differ_in_greyscale_too(made: Made) -> None:
    experiment = made(methods=["dss", *({"name": f"m{k}", "method": "mi"} for k in range(7))], seeds=[0])
    styles = choose_styles(experiment)
    assert len({look.marker for look in styles.values()}) == 8
    assert len({str(look.line) for look in styles.values()}) == 8


def test_long_names_are_cut_at_their_joints() -> None:
    assert (
        wrap_text("mi_beta_0.5_paper_variant_mean_pooling", 28) == "mi_beta_0.5_paper_variant_\nmean_pooling"
    )
    assert max(map(len, wrap_text("x" * 70, 28).split("\n"))) == 28
    assert wrap_text("dss", 28) == "dss"


def test_no_finished_run(made: Made) -> None:
    experiment = made(skip=("cqa/tiny/dss/gold/1/0",), datasets=["cqa"], methods=["dss"], seeds=[0])
    collect(experiment, allow_missing=True)
    with pytest.raises(UserError, match="nothing to draw"):
        draw_all(experiment)
