"""Prompt layout search, distillation and GGUF export for small open models. This is the public API.

Names are imported at first use (PEP 562): `import promptopt` loads neither DSPy, Optuna, torch nor llama.cpp.
Code inside promptopt imports from the module in which a thing is defined, never from here.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from promptopt import metrics as metrics
    from promptopt.candidate import Candidate as Candidate
    from promptopt.candidate import load_candidate as load_candidate
    from promptopt.config.experiment import SearchConfig as SearchConfig
    from promptopt.config.recipe import TrainingRecipe as TrainingRecipe
    from promptopt.deploy.gguf_programs import load_gguf_program as load_gguf_program
    from promptopt.errors import PromptoptError as PromptoptError
    from promptopt.layout.dspy_adapter import LayoutAdapter as LayoutAdapter
    from promptopt.layout.presets import LAYOUTS as LAYOUTS
    from promptopt.layout.spec import Layout as Layout
    from promptopt.lm.llama_cpp.facade import LlamaCpp as LlamaCpp
    from promptopt.lm.llama_cpp.lora import LoraWeights as LoraWeights
    from promptopt.lm.scripted import ScriptedLM as ScriptedLM
    from promptopt.metrics.base import Metric as Metric
    from promptopt.metrics.base import Score as Score
    from promptopt.provider.qlora import QLoRAProvider as QLoRAProvider
    from promptopt.study.joint_optimizer import JointOptimizer as JointOptimizer
    from promptopt.study.optimize import OptimizeResult as OptimizeResult
    from promptopt.study.optimize import optimize as optimize

_HOMES = {
    "LAYOUTS": "promptopt.layout.presets",
    "JointOptimizer": "promptopt.study.joint_optimizer",
    "SearchConfig": "promptopt.config.experiment",
    "Candidate": "promptopt.candidate",
    "Layout": "promptopt.layout.spec",
    "LayoutAdapter": "promptopt.layout.dspy_adapter",
    "LlamaCpp": "promptopt.lm.llama_cpp.facade",
    "LoraWeights": "promptopt.lm.llama_cpp.lora",
    "Metric": "promptopt.metrics.base",
    "OptimizeResult": "promptopt.study.optimize",
    "PromptoptError": "promptopt.errors",
    "QLoRAProvider": "promptopt.provider.qlora",
    "Score": "promptopt.metrics.base",
    "ScriptedLM": "promptopt.lm.scripted",
    "TrainingRecipe": "promptopt.config.recipe",
    "load_candidate": "promptopt.candidate",
    "load_gguf_program": "promptopt.deploy.gguf_programs",
    "optimize": "promptopt.study.optimize",
}
"""Public name -> the module that defines it."""

__all__ = [
    "LAYOUTS",
    "Candidate",
    "JointOptimizer",
    "Layout",
    "LayoutAdapter",
    "LlamaCpp",
    "LoraWeights",
    "Metric",
    "OptimizeResult",
    "PromptoptError",
    "QLoRAProvider",
    "Score",
    "ScriptedLM",
    "SearchConfig",
    "TrainingRecipe",
    "load_candidate",
    "load_gguf_program",
    "metrics",
    "optimize",
]


def __getattr__(name: str) -> object:
    if name == "metrics":
        return import_module("promptopt.metrics")
    if name not in _HOMES:
        raise AttributeError(f"module 'promptopt' has no attribute {name!r}; it offers {', '.join(__all__)}")
    found: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
