"""Every registered figure is drawn from tables alone, names its n, and gives the same bytes twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cotdistill.config.models import Experiment
from cotdistill.errors import UserError
from cotdistill.figure_style import method_styles, wrap
from cotdistill.figures import FIGURES, draw_all
from cotdistill.results.collect import collect, read_history, read_results

Made = Callable[..., Experiment]


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


@pytest.mark.parametrize("name", FIGURES.names())
@pytest.mark.parametrize(
    "settings",
    [
        {"seeds": [0], "datasets": ["cqa"]},
        {"skip": ("cqa/tiny/mi/gold/1/0", "cqa/tiny/mi/gold/1/1", "cqa/tiny/mi/gold/1/2")},
        {"methods": ["dss"], "datasets": ["cqa"]},
        {"fractions": [0.5, 1.0], "labels": ["gold", "teacher"], "exclude": [{"dataset": ["svamp"]}]},
    ],
    ids=["one seed", "a cell missing", "baseline alone", "many panels"],
)
def test_every_figure_draws_and_says_its_n(made: Made, name: str, settings: dict[str, Any]) -> None:
    experiment = made(**settings)
    collect(experiment, allow_missing=True)
    results, history = read_results(experiment), read_history(experiment)
    module = FIGURES.module(name)
    figure = module.draw(results, history, experiment)
    caption = module.caption(results, history, experiment)
    assert "\n" not in caption
    if settings.get("methods") != ["dss"] or name != "difference":
        assert "n = " in caption
        assert all(ax.get_xlabel() and ax.get_title(loc="left") for ax in figure.axes if ax.axison)


def test_points_are_the_seeds(made: Made) -> None:
    experiment = made(datasets=["cqa"])
    collect(experiment)
    results = read_results(experiment)
    figure = FIGURES.module("accuracy").draw(results, read_history(experiment), experiment)
    hollow = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "none"]
    assert sorted(line.get_xdata()[0] for line in hollow) == sorted(100 * results["accuracy"])


def test_methods_differ_in_greyscale_too(made: Made) -> None:
    experiment = made(methods=["dss", *({"name": f"m{k}", "method": "mi"} for k in range(7))], seeds=[0])
    styles = method_styles(experiment)
    assert len({look.marker for look in styles.values()}) == 8
    assert len({str(look.line) for look in styles.values()}) == 8


def test_long_names_are_cut_at_their_joints() -> None:
    assert wrap("mi_beta_0.5_paper_variant_mean_pooling", 28) == "mi_beta_0.5_paper_variant_\nmean_pooling"
    assert max(map(len, wrap("x" * 70, 28).split("\n"))) == 28
    assert wrap("dss", 28) == "dss"


def test_no_finished_run(made: Made) -> None:
    experiment = made(skip=("cqa/tiny/dss/gold/1/0",), datasets=["cqa"], methods=["dss"], seeds=[0])
    collect(experiment, allow_missing=True)
    with pytest.raises(UserError, match="nothing to draw"):
        draw_all(experiment)
