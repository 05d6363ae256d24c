"""Test accuracy by student, by method: does the comparison hold for other sizes?"""

from __future__ import annotations

from matplotlib.figure import Figure

from cotdistill.analysis.tables import AnalysedTables
from cotdistill.config.models import Experiment
from cotdistill.report.figures._captions import NO_INTERVAL, count_seeds, describe_missing, describe_seeds
from cotdistill.report.figures._levels import draw_levels
from cotdistill.report.figures._parts import draw_headline, make_message
from cotdistill.report.figures._style import describe_constants, wrap_text
from cotdistill.runs.grid import expand


def draw(tables: AnalysedTables, experiment: Experiment) -> Figure:
    """Draw one panel per dataset, labels and fraction; one line per method."""
    students = _list_students(experiment)
    if len(students) < 2:
        return make_message(_explain_absence(experiment))
    places = [float(place) for place in range(len(students))]
    figure, panels = draw_levels(tables, experiment, "student", students, places)
    for _, ax in panels:
        ax.set_xticks(places, [wrap_text(name, max(6, 40 // len(students))) for name in students])
        ax.set_xlim(-0.5, len(students) - 0.5)
        ax.set_xlabel("student, in the order of the config")
    draw_headline(figure, f"Accuracy by student: {describe_constants(experiment, along='student')}")
    return figure


def caption(tables: AnalysedTables, experiment: Experiment) -> str:
    """Say what the figure shows, n and the interval."""
    if len(_list_students(experiment)) < 2:
        return _explain_absence(experiment)
    return (
        f"Test accuracy of {experiment.experiment} by student, in the order of the config. Points are means "
        f"over seeds ({describe_seeds(count_seeds(tables.results))} each), bars their 95% Student t "
        f"intervals over seeds; {NO_INTERVAL}. Lines join a method's students and mean nothing "
        "between them. Methods stand a little apart so that their bars can be told from one another."
        f"{describe_missing(tables.results)}"
    )


def _list_students(experiment: Experiment) -> list[str]:
    present = {run.student.name for run in expand(experiment)}
    return [student.name for student in experiment.students if student.name in present]


def _explain_absence(experiment: Experiment) -> str:
    (name,) = _list_students(experiment)
    return (
        f"All runs of {experiment.experiment} have the student {name}: there is no curve against the size "
        "of the student. List several 'students' in the config to get one."
    )
