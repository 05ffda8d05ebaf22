"""Values for the recipe fields that an experiment leaves out, chosen from model size and rows, each with its reason.

Sources: the learning rate of LoRA is about ten times that of full fine-tuning, fifteen times in very short runs, and
falls with the width of the model (Schulman et al. 2025, "LoRA Without Regret": 5e-5 x 10 x (2000 / width)^0.78 for
Llama, close to the 2e-4 of QLoRA for 7B, arXiv 2305.14314); batches under 32 and all linear layers (the same); the rank
matters little (arXiv 2602.04998). Epochs: three for a few thousand rows (Alpaca, ViGGO fine-tunings), more for fewer
and fewer for more, with early stopping and the best checkpoint against overfitting.

Fields that are not chosen here (how the base is held, drop-out, warm-up, patience, ...) keep `TrainingRecipe`'s values.
What an experiment names is never changed. Everything but gradient checkpointing depends on the model and the data
alone, so that two machines resolve the same recipe; checkpointing changes memory and time, not what is learnt.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from promptopt.config.joint import ALPHA_OVER_RANK, NumberRange, Searched
from promptopt.config.recipe import TrainingRecipe

_BATCH_TOKENS = 8192
"""Most tokens of a batch that is computed at once; the rest of the effective batch is accumulated."""
_SHORT_RUN_STEPS = 100
_SCALE = 2.0


@dataclass(frozen=True)
class TrainingFacts:
    """What defaults are chosen from.

    Attributes:
        width: of the model's residual stream; parameters: all its weights.
        context: tokens it was trained for; None where it does not say.
        rows: training rows.
        longest_row: tokens of the longest row that a study may make of the data, demos included; None = not known.
        needs_checkpointing: whether a recipe fits into memory only with gradient checkpointing; None = not known.
    """

    width: int
    parameters: int
    context: int | None
    rows: int
    longest_row: int | None = None
    needs_checkpointing: Callable[[TrainingRecipe], bool] | None = None


@dataclass(frozen=True)
class ResolvedRecipe:
    """A recipe without gaps.

    Attributes:
        reasons: field that was chosen -> why this value.
    """

    recipe: TrainingRecipe
    reasons: Mapping[str, str]

    def lines(self) -> list[str]:
        """Return one line per chosen field, for people."""
        return [f"{name}: {said}" for name, said in self.said().items()]

    def said(self) -> dict[str, str]:
        """Return field -> value and reason, for people."""
        return {name: f"{_shown(getattr(self.recipe, name))} ({reason})" for name, reason in self.reasons.items()}


def resolve_recipe(
    written: TrainingRecipe, facts: TrainingFacts, searched: Mapping[str, Searched] | None = None
) -> ResolvedRecipe:
    """Return `written` with the fields that its author left out chosen from `facts`.

    Args:
        searched: ranges that a study searches; a chosen value stays inside.
    """
    chosen = _Chosen(written, facts, searched or {})
    rows = f"{facts.rows:,} rows"
    chosen.choose("epochs", *_epochs(facts.rows))
    effective = 4 if facts.rows < 100 else 8 if facts.rows < 1000 else 16
    longest = facts.longest_row
    at_once = (
        effective if longest is None else max(1, min(effective, 2 ** ((_BATCH_TOKENS // longest).bit_length() - 1)))
    )
    why = f"effective batch {effective} for {rows}"
    chosen.choose("batch_size", at_once, f"{why}; at most {_BATCH_TOKENS:,} tokens at once")
    chosen.choose("gradient_accumulation", max(1, effective // chosen.recipe.batch_size), why)
    chosen.choose("rank", 16 if facts.rows < 10_000 else 32, f"{rows}; the rank matters little")
    chosen.choose("alpha", *_alpha(chosen.recipe.rank, (searched or {}).get(ALPHA_OVER_RANK)))
    chosen.choose("learning_rate", *_learning_rate(facts, chosen.recipe))
    if longest is not None:
        room = 256 * -(-int(1.25 * longest) // 256)
        limit = room if facts.context is None else min(room, facts.context)
        chosen.choose("max_length", max(16, limit), f"the longest row has about {longest} tokens; a limit, not a size")
    if facts.needs_checkpointing is not None and facts.needs_checkpointing(chosen.recipe):
        chosen.choose("gradient_checkpointing", True, "activations would not fit into memory without it")
    return ResolvedRecipe(chosen.recipe, chosen.reasons)


class _Chosen:
    """The recipe so far; what was written stays."""

    def __init__(self, written: TrainingRecipe, facts: TrainingFacts, searched: Mapping[str, Searched]) -> None:
        self.recipe = written
        self.reasons: dict[str, str] = {}
        self._written = written.model_fields_set
        self._searched = searched

    def choose(self, name: str, value: Any, reason: str) -> None:
        if name in self._written:
            return
        limits = self._searched.get(name)
        if isinstance(limits, NumberRange) and value not in limits:
            value, reason = min(max(value, limits.low), limits.high), f"{reason}; the nearest value that is searched"
        self.recipe = TrainingRecipe.model_validate({**self.recipe.model_dump(), name: value})
        self.reasons[name] = reason


def _epochs(rows: int) -> tuple[float, str]:
    for most, epochs in ((300, 5.0), (3000, 3.0), (30_000, 2.0)):
        if rows < most:
            return epochs, f"{rows:,} rows, fewer than {most:,}"
    return 1.0, f"{rows:,} rows, 30,000 or more"


def _power_of_two(limit: int) -> int:
    """Return the largest power of two up to `limit`; at least 1."""
    return 1 << max(0, limit.bit_length() - 1)


def _alpha(rank: int, searched: Searched | None) -> tuple[float, str]:
    limits = (searched.low, searched.high) if isinstance(searched, NumberRange) else (_SCALE, _SCALE)
    scale = min(max(_SCALE, limits[0]), limits[1])
    return scale * rank, f"{scale:g} times the rank: the scale of the update"


def _learning_rate(facts: TrainingFacts, recipe: TrainingRecipe) -> tuple[float, str]:
    steps = max(1.0, facts.rows * recipe.epochs / (recipe.batch_size * recipe.gradient_accumulation))
    times = 15 if steps < _SHORT_RUN_STEPS else 10
    rate = min(2e-3, max(5e-5, 5e-5 * times * (2000 / facts.width) ** 0.78))
    return float(f"{rate:.1e}"), (
        f"{times} times full fine-tuning for {steps:.0f} steps, and a model of width {facts.width} "
        f"({facts.parameters / 1e6:,.0f}M weights)"
    )


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
