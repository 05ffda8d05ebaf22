"""What a joint study searches of the weights: recipe parameters, how many trials train, when a training is stopped."""

from typing import Any, Literal, cast

from pydantic import Field, JsonValue, ValidationError, model_validator

from promptopt.config.data import ConfigModel
from promptopt.config.recipe import TrainingRecipe

ALPHA_OVER_RANK = "alpha_over_rank"
"""Searched instead of `alpha`, because the update's scale is alpha / rank: alpha = this times rank."""

SEARCHABLE = (
    "learning_rate", "rank", ALPHA_OVER_RANK, "rslora", "dropout", "epochs", "batch_size", "gradient_accumulation",
    "loss", "weight_decay", "neftune_noise", "warmup_share", "target_modules", "max_grad_norm", "packing",
    "student_instructions", "student_demos", "student_reasoning", "row_share", "min_score",
)  # fmt: skip
"""Recipe parameters that a study may search; the others (how the base is held, lengths, patience) are facts."""


_WHOLE = frozenset(name for name in SEARCHABLE if TrainingRecipe.model_fields.get(name, None) is not None
                   and TrainingRecipe.model_fields[name].annotation in (int, int | None))  # fmt: skip


class NumberRange(ConfigModel):
    """A range of numbers, both ends included; whole numbers where both ends are."""

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> "NumberRange":
        if self.low > self.high:
            raise ValueError(f"the range {self.low} to {self.high} is empty; `low` must not exceed `high`")
        if self.log and self.low <= 0:
            raise ValueError(f"a range on a log scale starts above 0; low is {self.low}")
        return self

    @property
    def whole(self) -> bool:
        """Whether its values are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high


Searched = NumberRange | tuple[JsonValue, ...]


def with_parameter(recipe: TrainingRecipe, name: str, value: JsonValue) -> TrainingRecipe:
    """Return `recipe` with the searched parameter `name` at `value`.

    Raises:
        ValidationError: a recipe cannot have this value.
    """
    changes: dict[str, Any] = {"alpha": cast(float, value) * recipe.rank} if name == ALPHA_OVER_RANK else {name: value}
    if name == "rank":
        # The scale of the update is what was chosen; it stays.
        changes["alpha"] = recipe.alpha / recipe.rank * cast(int, value)
    return TrainingRecipe.model_validate({**recipe.model_dump(), **changes})


def parameter_of(recipe: TrainingRecipe, name: str) -> JsonValue:
    """Return what the searched parameter `name` is in `recipe`."""
    value: JsonValue = recipe.alpha / recipe.rank if name == ALPHA_OVER_RANK else getattr(recipe, name)
    return value


class HalvingConfig(ConfigModel):
    """When a training that is behind the others is stopped: asynchronous successive halving (arXiv 1810.05934).

    Attributes:
        rungs: evaluations before the last, evenly spread over the training; each is a rung.
        rows: validation rows whose task metric is measured at a rung, the same rows every time.
        keep: share of the trainings at a rung that go on.
    """

    enabled: bool = True
    rungs: int = Field(default=2, ge=1)
    rows: int = Field(default=24, ge=2)
    keep: float = Field(default=0.5, gt=0, lt=1)


class WeightsSearch(ConfigModel):
    """The part of a study that trains. It begins when the trials on frozen weights (`search.trials`) are finished.

    Attributes:
        trials: trials whose weights may be frozen or tuned, as the sampler proposes.
        winners: the first of them: so many of the best frozen candidates, tuned with the recipe under `finetune`.
        after: further trials that search the prompt alone on the best tuned weights (prompt, weights, prompt).
        recipe: parameter -> values, or a range {low, high, log}; None searches what `default_recipe_space` says. One
            value fixes the parameter.
        halving: when a training is stopped early.
    """

    trials: int = Field(default=8, ge=1)
    winners: int = Field(default=2, ge=1)
    after: int = Field(default=4, ge=0)
    recipe: dict[str, Searched] | None = None
    halving: HalvingConfig = HalvingConfig()

    @model_validator(mode="after")
    def _recipe_exists(self) -> "WeightsSearch":
        if self.winners > self.trials:
            raise ValueError(f"winners is {self.winners}, more than the {self.trials} trials they are the first of")
        for name, searched in (self.recipe or {}).items():
            check_searched(name, searched)
        return self


def check_searched(name: str, searched: Searched) -> None:
    """Pass if the recipe parameter `name` exists and may have all searched values.

    Raises:
        ValueError: it does not exist, nothing is to be searched, or a value is out of range.
    """
    if name not in SEARCHABLE:
        raise ValueError(f"weights.recipe.{name} is no recipe parameter; allowed: {', '.join(SEARCHABLE)}")
    if isinstance(searched, NumberRange) and not searched.whole and name in _WHOLE:
        raise ValueError(
            f"weights.recipe.{name} takes whole numbers; the range is {searched.low} to {searched.high}. Write both "
            "ends without a decimal point"
        )
    values = (searched.low, searched.high) if isinstance(searched, NumberRange) else searched
    if not values:
        raise ValueError(f"weights.recipe.{name} has no values; name at least one")
    for value in values:
        try:
            with_parameter(TrainingRecipe(), name, value)
        except (ValidationError, TypeError) as error:
            said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise ValueError(f"weights.recipe.{name}: {value!r} is not allowed: {said}") from error


def default_recipe_space(recipe: TrainingRecipe, reasoning: bool) -> dict[str, Searched]:
    """Return what is searched around `recipe` unless an experiment says otherwise.

    The learning rate matters first and ranges a factor of five both ways; once it is tuned, variants of LoRA differ by
    one or two per cent (arXiv 2602.04998), so the rest has few values.

    Args:
        reasoning: whether some layout asks for reasoning, so that dropping it from the student is a choice.
    """
    rate = recipe.learning_rate
    choices: dict[str, tuple[JsonValue, ...]] = {
        "rank": (8, 16, 32),
        ALPHA_OVER_RANK: (1.0, 2.0),
        "rslora": (False, True),
        "dropout": (0.0, 0.05),
        "epochs": (1.0, 2.0, 3.0),
        "batch_size": (8, 16),
        "loss": ("nll", "dft"),
        "weight_decay": (0.0, 0.01),
        "neftune_noise": (None, 5.0),
        "warmup_share": (0.05, 0.1),
        "target_modules": ("all-linear", "attention"),
        "student_instructions": ("full", "short", "none"),
        "student_demos": (None, 0),
        "row_share": (1.0, 0.5),
    }
    if reasoning:
        choices["student_reasoning"] = ("keep", "drop")
    own = {name: tuple(dict.fromkeys([parameter_of(recipe, name), *values])) for name, values in choices.items()}
    return {"learning_rate": NumberRange(low=rate / 5, high=min(rate * 5, 0.99), log=True), **own}


class ConstraintsConfig(ConfigModel):
    """Limits of what may be deployed. A trial beyond one is kept and shown, never the winner; None = no limit.

    Attributes:
        prompt_tokens: tokens of all prompts of an example, mean.
        latency_s: seconds per example spent in LM calls, mean, as measured while `parallel` examples ran at once.
        memory_mb: model file, LoRA file and the cache of one example's tokens, in 10^6 bytes.
        parse_failure_rate: share of examples whose answer does not parse.
    """

    prompt_tokens: float | None = Field(default=None, gt=0)
    latency_s: float | None = Field(default=None, gt=0)
    memory_mb: float | None = Field(default=None, gt=0)
    parse_failure_rate: float | None = Field(default=None, ge=0, le=1)

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by name."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


LayoutSharing = Literal["shared", "per_predictor"]
