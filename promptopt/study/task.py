"""SearchTask: what is searched for, and the identity by which a kept study is known to belong to it."""

import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import dspy
from pydantic import JsonValue

from promptopt.config.experiment import DistillConfig
from promptopt.config.recipe import TrainingRecipe
from promptopt.data.splits import fingerprint
from promptopt.finetune.base_folder import folder_hash
from promptopt.layout.dspy_adapter import signature_spec
from promptopt.metrics.base import Metric
from promptopt.records import DataRow


@dataclass(frozen=True)
class Training:
    """How the weights of the searched model can be tuned.

    Attributes:
        base_dir: Hugging Face folder of the model whose GGUF the LM runs.
        recipe: the recipe around which recipes are searched.
        distill: where training rows come from.
    """

    base_dir: Path
    recipe: TrainingRecipe
    distill: DistillConfig

    def identity(self) -> dict[str, JsonValue]:
        """Return what decides the trained weights, beside the rows and the candidate."""
        return {
            "base": folder_hash(self.base_dir),
            "recipe": self.recipe.result_settings(),
            "distill": self.distill.model_dump(mode="json"),
        }


@dataclass(frozen=True)
class SearchTask:
    """What is searched for: a program, on an LM, by a metric, over validation rows.

    Attributes:
        training: how weights are tuned; None = only prompts are searched.
        proposer: writes instructions, where `pools` asks for some. No part of the identity: what it wrote is kept.
        parallel: rows that run at once; None = as many as the LM answers at once. No part of the identity.
    """

    program: dspy.Module
    lm: dspy.BaseLM
    metric: Metric
    inputs: tuple[str, ...]
    train: Sequence[DataRow]
    val: Sequence[DataRow]
    parallel: int | None = None
    training: Training | None = None
    proposer: dspy.BaseLM | None = None

    def identity(self) -> dict[str, JsonValue]:
        """Return what decides a search's scores, beside its configuration: another identity is another study."""
        return {
            **program_identity(self.program),
            "metric": metric_identity(self.metric),
            "lm": str(getattr(self.lm, "fingerprint", "") or getattr(self.lm, "model", type(self.lm).__name__)),
            "inputs": list(self.inputs),
            "train": fingerprint(self.train),
            "val": fingerprint(self.val),
            "training": None if self.training is None else self.training.identity(),
        }


def program_identity(program: dspy.Module) -> dict[str, JsonValue]:
    """Return the signatures of a program, field by field, and the hash of the file its class is defined in.

    A program whose answers depend on more, e.g. on documents that it searches, says so by an attribute `fingerprint`, a
    text that is another one for other documents.
    """
    signatures: dict[str, JsonValue] = {
        name: repr(asdict(signature_spec(predictor.signature))) for name, predictor in program.named_predictors()
    }
    identity: dict[str, JsonValue] = {"signatures": signatures, "program": source_hash(type(program))}
    fingerprint = getattr(program, "fingerprint", "")
    # Programs without one keep the identity they had before there were fingerprints.
    return {**identity, "fingerprint": fingerprint} if isinstance(fingerprint, str) and fingerprint else identity


def metric_identity(metric: Metric) -> str:
    """Return the metric's name, the hash of the file it is defined in, and what else decides its scores."""
    defined = getattr(metric, "function", type(metric))
    known = f"{metric.name} {source_hash(defined)}"
    # Only where there is more: studies kept under other metrics stay known.
    return f"{known} {metric.identity()}" if metric.identity() else known


def source_hash(defined: object) -> str:
    """Return the sha256 of the file that defines a class or function; "" where it has none (a notebook, a prompt)."""
    try:
        path = inspect.getsourcefile(defined)  # type: ignore[arg-type]
    except TypeError:
        return ""
    if path is None or not Path(path).is_file():
        return ""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
