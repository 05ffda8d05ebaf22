"""What a candidate costs to serve, and whether that may be. Reads records and counts tokens; scores nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import dspy
from pydantic import JsonValue

from promptopt.candidate import Candidate
from promptopt.config.joint import ConstraintsConfig
from promptopt.errors import ConfigError
from promptopt.layout.dspy_adapter import signature_spec
from promptopt.layout.render import render_messages
from promptopt.lm.gguf_info import read_gguf
from promptopt.records import DataRow, ExampleRecord, Outcome, TrialRecord

_F16_BYTES = 2


@dataclass(frozen=True)
class ServingCost:
    """Means per example.

    Attributes:
        serving_tokens: tokens no other example shares: the prompt's own part and the answer; None where the LM does not
            say how it splits text into tokens.
        memory_mb: model, LoRA weights and the cache of one example, in 10^6 bytes; None for an LM without a file.
    """

    prompt_tokens: float
    completion_tokens: float
    latency_s: float
    parse_failure_rate: float
    serving_tokens: float | None
    memory_mb: float | None

    def beyond(self, constraints: ConstraintsConfig) -> dict[str, float]:
        """Return, for each limit, how far beyond it this is; 0 or less is within.

        Raises:
            ConfigError: a limit is on something that this LM does not tell.
        """
        found = {}
        for name, limit in constraints.limits.items():
            value = getattr(self, name)
            if value is None:
                raise ConfigError(
                    f"search.constraints.{name} needs a local GGUF model; this LM does not tell it. Remove the limit."
                )
            found[name] = value - limit
        return found


def serving_cost(
    program: dspy.Module,
    candidate: Candidate,
    lm: dspy.BaseLM,
    rows: Sequence[DataRow],
    records: Sequence[ExampleRecord],
    lora_file: Path | None = None,
) -> ServingCost:
    """Return what `candidate` cost over `records`, measured on `rows`."""
    n = max(1, len(records))
    prompt = sum(record.prompt_tokens for record in records) / n
    completion = sum(record.completion_tokens for record in records) / n
    calls = sum(record.calls for record in records) / n
    shared = shared_tokens(program, candidate, lm, rows)
    path = getattr(getattr(lm, "chat", None), "path", None)
    memory = None if path is None else _file_bytes(path, lora_file) + _kv_bytes(path) * (prompt + completion)
    return ServingCost(
        prompt_tokens=prompt,
        completion_tokens=completion,
        latency_s=sum(record.latency_s for record in records) / n,
        parse_failure_rate=sum(record.outcome is Outcome.PARSE_FAILED for record in records) / n,
        serving_tokens=None if shared is None else max(0.0, prompt - shared * calls) + completion,
        memory_mb=None if memory is None else memory / 1e6,
    )


def shared_tokens(program: dspy.Module, candidate: Candidate, lm: dspy.BaseLM, rows: Sequence[DataRow]) -> float | None:
    """Return how many tokens the prompts of two examples have in common at their start, mean over predictors.

    Inputs of inner predictors are not in the data; texts without anything in common stand for them.
    """
    tokenize = getattr(lm, "tokenize_messages", None)
    if tokenize is None:
        return None
    counts = []
    for name, predictor in candidate.apply(program.deepcopy()).named_predictors():
        spec = signature_spec(predictor.signature)
        demos, layout = candidate.predictors[name].demos, candidate.layout_of(name)
        asked = [
            {field: _stand_in(row, field, mark) for field in predictor.signature.input_fields}
            for row, mark in zip((rows[0], rows[-1]), "AZ", strict=True)
        ]
        first, second = (tokenize(render_messages(layout, spec, demos, inputs)) for inputs in asked)
        counts.append(sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))))
    return sum(counts) / len(counts)


def _stand_in(row: DataRow, field: str, mark: str) -> JsonValue:
    # A document that both examples have would count as shared, which two examples from a crowd need not have.
    value = row.fields.get(field)
    return f"{mark} {value}" if isinstance(value, str) else mark


def _file_bytes(model: Path, lora: Path | None) -> int:
    return model.stat().st_size + (lora.stat().st_size if lora else 0)


def _kv_bytes(model: Path) -> float:
    """Return what keys and values of one token take: f16, all layers."""
    info: Mapping[str, Any] = read_gguf(model).metadata
    kind = info.get("general.architecture")
    layers = info.get(f"{kind}.block_count", 0)
    heads = _per_layer(info.get(f"{kind}.attention.head_count", 1), layers)
    kv_heads = _per_layer(info.get(f"{kind}.attention.head_count_kv", heads), layers)
    width = info.get(f"{kind}.attention.key_length", info.get(f"{kind}.embedding_length", 0) / max([1, *heads]))
    return float(2 * _F16_BYTES * sum(kv_heads) * width)


def _per_layer(heads: Any, layers: int) -> list[float]:
    """Return heads per layer: hybrid models list them, others say one number for all."""
    return [float(n) for n in heads] if isinstance(heads, list | tuple) else [float(heads)] * layers


def pareto_front(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials that no other beats in both score and serving tokens, the cheapest first.

    Only trials that saw every example and meet the constraints; where tokens were not split, by prompt tokens.
    """
    whole = [trial for trial in trials if trial.state == "complete" and trial.feasible and trial.value is not None]
    front: list[TrialRecord] = []
    for trial in sorted(whole, key=lambda trial: (cost_of(trial), -(trial.value or 0.0), trial.number)):
        if not front or (trial.value or 0.0) > (front[-1].value or 0.0):
            front.append(trial)
    return front


def cost_of(trial: TrialRecord) -> float:
    """Return a trial's serving tokens per example, or all its tokens where the shared ones are not known."""
    return trial.prompt_tokens + trial.completion_tokens if trial.serving_tokens is None else trial.serving_tokens
