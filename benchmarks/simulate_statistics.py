"""Coverage and false positives of the statistics that the verdict rests on, by simulated experiments.

    python benchmarks/simulate_statistics.py [question ...] [--repetitions 1000] [--seeds 3 5 10]

Questions: intervals, clusters, moods, families, together, power (default: all). Each prints a Markdown table,
a row a design; every repetition is a whole experiment with new seeds and new test examples. Shares are in
percent with their Monte Carlo standard error; the columns are explained above each table.
"""

from __future__ import annotations

import argparse
from typing import cast

from simulated import clusters, families, intervals, moods, power, together
from simulated.tally import RESAMPLES, Question, print_table

QUESTIONS = {
    name: cast(Question, module)
    for name, module in {
        "intervals": intervals,
        "clusters": clusters,
        "moods": moods,
        "families": families,
        "together": together,
        "power": power,
    }.items()
}


def _parse_count(text: str) -> int:
    """Parse a number of 1 or more."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"'{text}' is no number of 1 or more")
    return int(text)


def _parse_seeds(text: str) -> int:
    """Parse a number of 2 or more: one seed says nothing of others."""
    if _parse_count(text) < 2:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of 2 or more")
    return int(text)


def _parse_question(text: str) -> str:
    if text not in QUESTIONS:
        raise argparse.ArgumentTypeError(f"'{text}' is none of {', '.join(QUESTIONS)}")
    return text


def main() -> None:
    """Print the table of each question."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("questions", type=_parse_question, nargs="*", metavar="question",
                        help=f"{', '.join(QUESTIONS)} (default: all)")  # fmt: skip
    parser.add_argument("--repetitions", type=_parse_count, default=1_000,
                        help="simulated experiments a row (default: %(default)s)")  # fmt: skip
    parser.add_argument("--seeds", type=_parse_seeds, nargs="+", default=[3, 5, 10],
                        help="numbers of seeds (default: 3 5 10)")  # fmt: skip
    options = parser.parse_args()
    print(f"{options.repetitions} experiments a row, {RESAMPLES} resamples of a bootstrap; percent")
    for name in options.questions or QUESTIONS:
        question = QUESTIONS[name]
        print(f"\n## {name}\n\n{question.__doc__}")
        print_table(question, options.repetitions, options.seeds)


if __name__ == "__main__":
    main()
