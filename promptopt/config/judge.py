"""Which judge scores an experiment, and the LMs it asks."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from promptopt.config.data import ConfigModel
from promptopt.config.pools import GgufProposer, ServerProposer


class GgufJudge(GgufProposer):
    """A GGUF on this machine. It stays loaded beside the judged model.

    Attributes:
        n_threads: CPU threads; None = all physical cores, fewer while other work holds them. Changes no verdict.
    """

    n_threads: int | None = Field(default=None, ge=1)


# There is no kind `same` here: a judge that changes with the model it judges compares nothing.
JudgeLmConfig = Annotated[GgufJudge | ServerProposer, Field(discriminator="kind")]


class JudgeConfig(ConfigModel):
    """A judge as an experiment's metric.

    Attributes:
        judge: rates against a reference, by criteria, or three aspects of an answer that stands on a context.
        lm: the LM that is asked.
        jury: several LMs instead, two at least; their rounded mean counts (`reference` and `criteria`).
        prediction_field: output field that is judged; None, for `criteria`, judges the example's own `query`.
        criteria: for every example (`criteria`); None = those of the example.
        aspects: what `rag` rates; None = accuracy, relevance and faithfulness.
        explain: let the LM explain itself before the verdict.
        temperature: of the reply; None = that of the judge: 0.5 for `criteria`, else 0.
        calibration: file that `promptopt judge calibrate` wrote, for the report to state. No part of the identity.
    """

    kind: Literal["judge"]
    judge: Literal["reference", "criteria", "rag"]
    lm: JudgeLmConfig | None = None
    jury: tuple[JudgeLmConfig, ...] = ()
    prediction_field: str | None = "answer"
    criteria: str | None = None
    aspects: tuple[Literal["accuracy", "relevance", "faithfulness"], ...] | None = None
    explain: bool = False
    temperature: float | None = Field(default=None, ge=0)
    calibration: str | None = None

    @model_validator(mode="after")
    def _one_of_lm_and_jury(self) -> "JudgeConfig":
        if (self.lm is None) == (not self.jury):
            raise ValueError("a judge needs `lm`, or `jury` with several LMs, and not both")
        if len(self.jury) == 1:
            raise ValueError("a jury needs at least two LMs; name a single one under `lm`")
        return self

    @model_validator(mode="after")
    def _options_suit(self) -> "JudgeConfig":
        if self.criteria is not None and self.judge != "criteria":
            raise ValueError(f"`criteria` is for the judge `criteria`, not for `{self.judge}`")
        if self.judge == "rag" and self.jury:
            raise ValueError("a jury is for the judges `reference` and `criteria`; `rag` rates three things at once")
        if self.prediction_field is None and self.judge != "criteria":
            raise ValueError(f"`prediction_field` names what the judge `{self.judge}` judges; it cannot be null")
        if self.aspects is not None and self.judge != "rag":
            raise ValueError(f"`aspects` is for the judge `rag`, not for `{self.judge}`")
        return self
