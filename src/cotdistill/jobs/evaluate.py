"""The job that evaluates a trained run: count and measure its stored test answers.

Needs neither torch nor a GPU where the training job left current answers, as it does; else it makes them.
"""

from __future__ import annotations

from cotdistill.common.errors import UserError
from cotdistill.common.files import hash_file, remove_leftovers, sweep
from cotdistill.data.prepared import Prepared
from cotdistill.data.splits import choose_subset
from cotdistill.evaluation import option_scores, protocols
from cotdistill.runs import answers, outputs
from cotdistill.runs.documents import Metrics, write_answers
from cotdistill.runs.folder import LAST, STRICT
from cotdistill.runs.grid import Run
from cotdistill.runs.lease import Lease


def evaluate(run: Run) -> Metrics:
    """Write `metrics.json` and `predictions.jsonl` of a trained run; return the metrics.

    Then removes what only evaluating needed: the state, and the weights that `training.keep` does not name.
    The metrics also hold digests of the files beside them, for `collect` to check. Raises UserError when the
    run is not trained, was trained with another config or has a corrupt checkpoint.
    """
    trained = outputs.read_training(run)
    if trained.hash != run.hash:
        raise UserError(f"{run.folder}: trained with config {trained.hash}, expected {run.hash}")
    for folder in (run.folder, run.files.answers):
        remove_leftovers(folder)
    outputs.check(run)
    if not answers.are_complete(run):
        answers.check_weights(run)
        _answer(run)
    last, score = answers.load(run, LAST), run.experiment.evaluation.option_score
    strict = option_scores.add_probabilities(answers.load(run, STRICT), score)
    manifest = Prepared(run.prepared).manifest
    sizes = manifest["sizes"]
    chosen, published = protocols.count_answers(trained, strict, last)
    predictability = answers.load_predictability(run, STRICT)
    own_rows = choose_subset(sizes["train"], run.fraction, run.seed, run.dataset.name)
    write_answers(run.files.predictions, strict)
    kept = (run.files.config, run.files.history, run.files.environment)
    metrics = Metrics(
        run=run.id,
        hash=run.hash,
        strict=chosen,
        published=published,
        measures=protocols.measure_answers(run, strict, manifest["answer"], predictability),
        teacher=manifest["teacher"],
        sizes={**sizes, "train": len(own_rows)},
        evaluation_wall_s=answers.sum_seconds(run),
        files={
            **{path.name: trained.files[path.name] for path in kept},
            run.files.predictions.name: hash_file(run.files.predictions),
        },
    )
    metrics.write(run.files.metrics)
    outputs.forget(run)
    outputs.trim(run)
    return metrics


def _answer(run: Run) -> None:
    """Make the answers that are not current, as the only writer of the run's folder."""
    from cotdistill.jobs.answer import answer_test

    with Lease(run.files.states, until=lambda: answers.are_complete(run)) as lease:
        if lease.held:
            for folder in (run.folder, run.files.answers):
                sweep(folder)
            answer_test(run)
