"""Verdicts on overfitting: one history each."""

import pytest

from promptopt.config.recipe import TrainingRecipe
from promptopt.finetune.verdict import overfitting_verdict
from promptopt.records import LossPoint


def _history(
    evals: list[float], losses: list[float], metrics: list[float] | None = None, before: float = 3.0
) -> list[LossPoint]:
    points = [LossPoint(step=0, epoch=0, eval_loss=before)]
    for number, (eval_loss, loss) in enumerate(zip(evals, losses, strict=True), start=1):
        points.append(LossPoint(step=number, epoch=number, loss=loss))
        metric = None if metrics is None else metrics[number - 1]
        points.append(LossPoint(step=number, epoch=number, eval_loss=eval_loss, metric=metric))
    return points


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (_history([1.0, 0.8, 0.9], [1.0, 0.5, 0.3]), "Overfitting: the evaluation loss rose from 0.800 at step 2"),
        (_history([3.1, 3.2], [1.0, 0.5]), "Nothing was learnt: the evaluation loss was 3.000"),
        (_history([1.0, 0.9, 0.8], [1, 1, 1], [0.5, 0.9, 0.6]), "metric fell from 0.900 to 0.600"),
        (_history([1.0, 0.81, 0.8], [0.9, 0.4, 0.1]), "A wide gap: 0.100 on training rows, 0.800 on validation"),
        (_history([1.0, 0.9, 0.8], [1.0, 0.9, 0.8]), "still falling at the end (0.900 to 0.800)"),
        (_history([1.0, 0.805, 0.8], [1.0, 0.8, 0.8]), "No overfitting: the evaluation loss ends at 0.800"),
    ],
    ids=["rise", "nothing", "metric", "gap", "falling", "fine"],
)
def test_the_verdict_says_what_the_history_shows(points: list[LossPoint], said: str) -> None:
    verdict = overfitting_verdict(points, 2, TrainingRecipe())
    assert said in verdict
    assert "\n" not in verdict


def test_a_dft_loss_is_no_measure_of_a_gap() -> None:
    points = _history([1.0, 0.81, 0.8], [0.9, 0.4, 0.1])
    assert "gap" not in overfitting_verdict(points, 3, TrainingRecipe(loss="dft"))
    assert overfitting_verdict(points[:1], 0, TrainingRecipe()) == ""
