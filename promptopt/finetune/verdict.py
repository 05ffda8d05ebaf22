"""Has a training overfitted? One sentence, from its history alone."""

from collections.abc import Sequence

from promptopt.config.recipe import TrainingRecipe
from promptopt.records import LossPoint

RISE = 1.02
"""An evaluation loss this many times the lowest counts as risen; less is noise of a small validation set."""
GAP = 2.0
"""An evaluation loss this many times the training loss counts as a gap."""
_DIVERGENCES = ("self_distill", "on_policy")
"""Methods whose training loss is how far the student is from its teacher."""
_LEAST_GAP = 0.1
"""Nats; of two tiny losses one is easily twice the other."""


def overfitting_verdict(
    points: Sequence[LossPoint], best_step: int, recipe: TrainingRecipe, method: str = "sft"
) -> str:
    """Return whether the training overfitted, and what was done or is to be done about it.

    Args:
        points: history of the training, in order.
        best_step: of the weights that were kept.
        method: kind of the training method.
    """
    evaluated = [(point.step, point.eval_loss) for point in points if point.eval_loss is not None]
    after = [(step, loss) for step, loss in evaluated if step > 0]
    if not after:
        return ""
    (low_step, lowest), (last_step, last) = min(after, key=lambda found: (found[1], found[0])), after[-1]
    kept = f"the weights of step {best_step} are kept"
    before = next((loss for step, loss in evaluated if step == 0), None)
    if before is not None and lowest >= before:
        return (
            f"Nothing was learnt: the evaluation loss was {before:.3f} before training and {lowest:.3f} at best. "
            "Change finetune.learning_rate first."
        )
    if last > RISE * lowest and low_step < last_step:
        return (
            f"Overfitting: the evaluation loss rose from {lowest:.3f} at step {low_step} to {last:.3f} at step "
            f"{last_step}; {kept}. Fewer finetune.epochs, a lower learning rate or more rows would help."
        )
    fallen = _metric_fell(points)
    if fallen is not None and last <= lowest * RISE:
        best, end = fallen
        advice = "" if recipe.best_by == "metric" else " Set finetune.best_by: metric."
        return (
            f"The task metric fell from {best:.3f} to {end:.3f} while the evaluation loss did not rise, so the loss is "
            f"a poor guide here; {kept}.{advice}"
        )
    trained = _last_training_loss(points, after)
    # A divergence is no likelihood; DFT weighs its loss by the probability of each token, and noise is not there when
    # it is measured.
    comparable = method not in _DIVERGENCES and recipe.loss == "nll" and not recipe.neftune_noise and not recipe.dropout
    if comparable and trained is not None and last > GAP * trained and last - trained > _LEAST_GAP:
        return (
            f"A wide gap: {trained:.3f} on training rows, {last:.3f} on validation rows; the evaluation loss has not "
            f"risen yet, but more epochs would only memorise. {kept[0].upper()}{kept[1:]}."
        )
    if len(after) > 1 and last * RISE < after[-2][1] and recipe.epochs >= 1:
        return (
            f"No overfitting: the evaluation loss was still falling at the end ({after[-2][1]:.3f} to {last:.3f}); "
            "more finetune.epochs may help."
        )
    return f"No overfitting: the evaluation loss ends at {last:.3f}, its lowest is {lowest:.3f}; {kept}."


def _metric_fell(points: Sequence[LossPoint]) -> tuple[float, float] | None:
    """Return the best and the last task metric where the last is lower by more than one row in twenty."""
    metrics = [point.metric for point in points if point.metric is not None and point.step > 0]
    if len(metrics) < 2 or metrics[-1] >= max(metrics) - 0.05:
        return None
    return max(metrics), metrics[-1]


def _last_training_loss(points: Sequence[LossPoint], after: Sequence[tuple[int, float]]) -> float | None:
    """Return the mean training loss since the evaluation before the last one."""
    since = after[-2][0] if len(after) > 1 else 0
    losses = [point.loss for point in points if point.loss is not None and point.step > since]
    return sum(losses) / len(losses) if losses else None
