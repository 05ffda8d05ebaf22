"""How much memory and time the search and the evaluation take: llama.cpp's part of a plan."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from promptopt.config.experiment import ExperimentConfig
from promptopt.finetune.estimate import Machine, RowLengths
from promptopt.finetune.model_shape import ModelShape
from promptopt.lm.cost import CostModel
from promptopt.lm.llama_cpp.model import LEAST_LANES, PARALLEL_CPU, PARALLEL_GPU
from promptopt.pipeline.context import RunContext
from promptopt.records import Quantization
from promptopt.study.phases import Plan
from promptopt.user_cache import user_cache_dir

BITS: dict[Quantization, float] = {
    "f32": 32, "f16": 16, "q8_0": 8.5, "q6_k": 6.56, "q5_k_m": 5.7, "q4_k_m": 4.85, "q4_0": 4.5,
}  # fmt: skip
"""Bits per weight of a GGUF: block formats with their scales; the `_m` mixtures as llama.cpp's README gives them."""

_COLUMNS = 4
"""Systems the evaluate stage measures on test: base, best prompt, tuned, tuned and quantized."""
_COMPUTE_BYTES = 300e6
_UTILISATION = {"cpu": 0.5, "cuda": 0.3}


@dataclass(frozen=True)
class SearchPlan:
    """What the search and the evaluation ask of llama.cpp, at most: racing and halving stop what is losing.

    Attributes:
        calls: answers of the model; seconds: that they take.
        trainings: LoRA weights that the study trains.
        memory: part -> bytes.
        rates: where the seconds come from.
    """

    trials: int
    trainings: int
    calls: int
    seconds: float
    memory: dict[str, float]
    rates: str

    @property
    def bytes(self) -> float:
        """Bytes while it answers."""
        return sum(self.memory.values())


def plan_search(context: RunContext, shape: ModelShape, rows: RowLengths, machine: Machine, here: bool) -> SearchPlan:
    """Return what searching and evaluating takes.

    Args:
        rows: lengths of prompts with answers.
        here: whether `machine` is this one, so that rates can be measured where there is a GGUF.
    """
    config = context.config
    calls, plan = count_calls(context)
    gguf = find_gguf(context) if here and machine.device == "cpu" else None
    parallel = config.lm.parallel or (PARALLEL_CPU if machine.device == "cpu" else PARALLEL_GPU)
    cost = (
        tabulated_rates(shape, machine, config.lm.quantization, parallel) if gguf is None else _measured(context, gguf)
    )
    source = "from the figures of the machine" if gguf is None else f"measured on {gguf.name}"
    prompt = rows.mean - rows.mean_answer
    unique = calls * max(0.0, prompt - rows.shared) + (plan.trials + _COLUMNS) * rows.shared
    seconds = cost.seconds(round(unique), round(calls * rows.mean_answer), calls)
    return SearchPlan(plan.trials, plan.weights, calls, seconds, serving_memory(config, shape, parallel, gguf), source)


def count_calls(context: RunContext) -> tuple[int, Plan]:
    """Return how many answers search and evaluation ask for at most, and the plan of the study."""
    config, split = context.config, context.config.data.split
    plan = Plan.of_config(config.search, tunes=context.source.hf_dir is not None)
    predictors = len(context.program.named_predictors())
    val = min(split.val, config.search.val_rows or split.val)
    weights = config.search.weights
    halving = weights.halving if weights is not None and plan.weights else None
    rungs = plan.weights * halving.rungs * min(val, halving.rows) if halving is not None and halving.enabled else 0
    return predictors * (plan.trials * val + rungs + _COLUMNS * split.test), plan


def serving_memory(
    config: ExperimentConfig, shape: ModelShape, parallel: int, gguf: Path | None = None
) -> dict[str, float]:
    """Return part -> bytes of llama.cpp on the model: weights, keys and values of all lanes, buffers."""
    weights = gguf.stat().st_size if gguf else shape.parameters * BITS[config.lm.quantization] / 8
    context = min(config.lm.n_ctx, shape.context or config.lm.n_ctx)
    lanes = -(-max(parallel, LEAST_LANES, 16) // 4) * 4
    return {
        "GGUF": float(weights),
        "keys and values": float(lanes * context * shape.kv_bytes_per_token),
        "buffers": _COMPUTE_BYTES + 4.0 * 512 * shape.vocabulary,
    }


def tabulated_rates(shape: ModelShape, machine: Machine, quantization: Quantization, parallel: int) -> CostModel:
    """Return rates from a card's figures: prompts are bound by arithmetic, answers by reading all weights per batch."""
    prompt = 2 * shape.parameters / (machine.flops * _UTILISATION[machine.device])
    read = shape.parameters * BITS[quantization] / 8 / (machine.bandwidth * 0.7)
    return CostModel(prompt, max(read / parallel, prompt))


def find_gguf(context: RunContext) -> Path | None:
    """Return a GGUF of the untuned model that is there already; None makes none."""
    quantization = context.config.lm.quantization
    candidates = [context.run.path / "base" / f"base-{quantization}.gguf"]
    if context.config.model.kind == "starter":
        candidates += sorted(user_cache_dir().glob(f"models/starter-*/starter-{quantization}.gguf"))
    if context.source.gguf is not None:
        candidates.insert(0, context.source.gguf)
    return next((path for path in candidates if path.is_file()), None)


def _measured(context: RunContext, gguf: Path) -> CostModel:
    from promptopt.lm.llama_cpp.rates import measure_rates

    with closing(context.lm(gguf)) as lm:
        return measure_rates(lm.chat, rounds=1)
