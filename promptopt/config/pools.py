"""What the pools of a study are filled with, and which LM writes instructions."""

from typing import Annotated, Literal

from pydantic import Field

from promptopt.config.data import ConfigModel


class SameProposer(ConfigModel):
    """The searched model itself; a small one rarely writes good instructions."""

    kind: Literal["same"]


class GgufProposer(ConfigModel):
    """Another GGUF on this machine, e.g. a larger model."""

    kind: Literal["gguf"]
    path: str
    n_ctx: int = Field(default=8192, ge=512)
    n_gpu_layers: int = 0


class ServerProposer(ConfigModel):
    """An OpenAI-compatible server, through DSPy's client; a key is taken from the environment (OPENAI_API_KEY).

    Attributes:
        model: as DSPy names it, e.g. `openai/qwen2.5-32b` or `ollama_chat/llama3.1`.
        api_base: address of the server; None = the provider's own.
    """

    kind: Literal["server"]
    model: str
    api_base: str | None = None


ProposerConfig = Annotated[SameProposer | GgufProposer | ServerProposer, Field(discriminator="kind")]


class PoolsConfig(ConfigModel):
    """Instructions and demo sets beside the written ones and `demo_sets` random ones.

    Attributes:
        diverse, typical: demo sets that cover the training inputs, or stand in their middle.
        bootstrapped: demo sets of the untouched program's own good answers, per predictor; the only ones that inner
            predictors of a chain can have. None = as many as `demo_sets` for a program of several predictors, else 0.
        min_score: an answer is a demo from this score on.
        bootstrap_rows: most training rows that are answered for them.
        proposals: instructions that the proposer writes for each predictor from the data.
        reflections: instructions that it writes for each predictor and further generation, from failed training rows.
        reflection_rows: training rows that the best candidate answers, to find failures.
        generations: the first phase is split into so many parts; before each but the first, the pools grow by
            reflection, and the study goes on as a new version that knows all trials of the old one.
        proposer: who writes; needed for `proposals` and `generations`.
    """

    diverse: int = Field(default=0, ge=0)
    typical: int = Field(default=0, ge=0)
    bootstrapped: int | None = Field(default=None, ge=0)
    min_score: float = Field(default=1.0, ge=0, le=1)
    bootstrap_rows: int = Field(default=64, ge=1)
    proposals: int = Field(default=0, ge=0)
    reflections: int = Field(default=2, ge=1)
    reflection_rows: int = Field(default=32, ge=2)
    generations: int = Field(default=1, ge=1)
    proposer: ProposerConfig | None = None
