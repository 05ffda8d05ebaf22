"""ExperimentConfig: everything one YAML file says about an experiment, and its defaults. Knows no room above it."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, JsonValue, Tag, model_validator

from promptopt.config.data import ConfigModel, DataConfig
from promptopt.config.joint import ConstraintsConfig, LayoutSharing, NumberRange, WeightsSearch, parameter_of
from promptopt.config.judge import JudgeConfig
from promptopt.config.pools import PoolsConfig
from promptopt.config.recipe import TrainingRecipe
from promptopt.config.training import (
    TEACHER_OF,
    LabelsStage,
    SftStage,
    TrainingStage,
    check_stages,
    check_teacher_differs,
    is_plain,
)
from promptopt.layout.spec import Layout
from promptopt.records import Quantization


class StarterModel(ConfigModel):
    """The small language model that the package carries."""

    kind: Literal["starter"]


class LocalModel(ConfigModel):
    """A model on this machine.

    Attributes:
        hf_dir: folder in Hugging Face format (config.json, safetensors, tokenizer). Needed to fine-tune.
        gguf: GGUF file to search and evaluate with; made from `hf_dir` when absent.
        chat_template: for a model without one: `chatml`, `zephyr`, or a Jinja file. It is trained with, and stands in
            every GGUF that is made.
    """

    kind: Literal["local"]
    hf_dir: str | None = None
    gguf: str | None = None
    chat_template: str | None = None

    @model_validator(mode="after")
    def _has_weights(self) -> "LocalModel":
        if self.hf_dir is None and self.gguf is None:
            raise ValueError("a local model needs `hf_dir` (to fine-tune), `gguf` (to search and evaluate), or both")
        if self.chat_template is not None and (self.hf_dir is None or self.gguf is not None):
            raise ValueError(
                "`chat_template` goes into the GGUF that promptopt makes from `hf_dir`; leave `gguf` out, which has one"
            )
        return self


ModelConfig = Annotated[StarterModel | LocalModel, Field(discriminator="kind")]


def _kind_of_metric(value: object) -> str:
    return "judge" if isinstance(value, dict | JudgeConfig) else "name"


# By what was written, so that a wrong judge is not reported as a wrong name as well.
MetricConfig = Annotated[
    Annotated[str, Tag("name")] | Annotated[JudgeConfig, Tag("judge")], Discriminator(_kind_of_metric)
]


class LmConfig(ConfigModel):
    """How the model answers: the same in search, evaluation and parity.

    Attributes:
        quantization: of the base GGUF that promptopt makes, and of the deployed GGUF.
        n_ctx: context window in tokens; capped at what the model was trained for.
        max_tokens: longest answer in tokens.
        parallel: examples that are answered at once; None = 16 on a CPU, 64 on a GPU, less where memory is short.
            Changes no answer: batches are shaped so that each row's bits are its own.
        n_threads: CPU threads; None = all physical cores, fewer while other work holds them.
        n_gpu_layers: layers offloaded to a GPU; -1 = all.
    """

    quantization: Quantization = "q8_0"
    n_ctx: int = Field(default=2048, ge=64)
    max_tokens: int = Field(default=64, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    parallel: int | None = Field(default=None, ge=1, le=256)
    n_threads: int | None = Field(default=None, ge=1)
    n_gpu_layers: int = 0


class RacingConfig(ConfigModel):
    """When a candidate that is losing is stopped before it has seen every example.

    Attributes:
        p_threshold: a candidate is stopped when its chance to end ahead of the best so far, predicted from the paired
            differences on the examples both have seen, is below this; divided by the number of looks, because every
            block of examples is a look.
        min_examples: examples before the first look.
        block: examples between looks.
    """

    enabled: bool = True
    p_threshold: float = Field(default=0.2, gt=0, lt=1)
    min_examples: int = Field(default=16, ge=2)
    block: int = Field(default=8, ge=1)


class SearchConfig(ConfigModel):
    """The Optuna study over layouts, instructions and demos, and over training recipes where weights are searched.

    Attributes:
        trials: how many candidates are tried on frozen weights, the untouched program (trial 0) included.
        layout: Layout field -> values to search; None searches every field promptopt knows to matter. A field that is
            not named keeps the value it has in `start`.
        start: the Layout of the untouched program; what DSPy itself renders unless told otherwise.
        instructions: written variants, beside the program's own; per predictor the same list.
        demo_sets: how many sets of labelled demos are drawn from train, beside the empty set.
        demos_per_set: largest number of demos in a set.
        val_rows: rows of val that a full evaluation uses; None = all.
        sampler_startup: random trials before the TPE sampler starts to model.
        layouts: one layout for all predictors of a program, or one per predictor, searched together.
        fixed: parameter of the study, e.g. `layout.query_position` -> the one value it has in every trial.
        constraints: limits of what may win.
        pools: what else the pools of instructions and demos are filled with.
        weights: the part of the study that trains LoRA weights; None searches the prompt alone.
        storage: URL of the study, e.g. `postgresql://user@host/database`, for workers on several machines; None =
            SQLite in the run's folder.
        artifacts: folder that all workers see, or `s3://bucket/prefix`, for candidates and LoRA weights; None = the
            run's folder.
        heartbeat_s: seconds between two signs of life of a worker; one that is silent three times as long is taken for
            dead, and its trial is given to another.
    """

    trials: int = Field(default=40, ge=1)
    layout: dict[str, tuple[JsonValue, ...]] | None = None
    start: Layout = Layout()
    instructions: tuple[str, ...] = ()
    demo_sets: int = Field(default=4, ge=0)
    demos_per_set: int = Field(default=3, ge=1)
    val_rows: int | None = Field(default=None, ge=2)
    sampler_startup: int = Field(default=10, ge=1)
    racing: RacingConfig = RacingConfig()
    layouts: LayoutSharing = "shared"
    fixed: dict[str, JsonValue] = Field(default_factory=dict)
    constraints: ConstraintsConfig = ConstraintsConfig()
    pools: PoolsConfig = PoolsConfig()
    weights: WeightsSearch | None = WeightsSearch()
    storage: str | None = None
    artifacts: str | None = None
    heartbeat_s: int = Field(default=20, ge=1)

    @model_validator(mode="after")
    def _layouts_exist(self) -> "SearchConfig":
        for name, values in (self.layout or {}).items():
            if not values:
                raise ValueError(f"search.layout.{name} has no values; name at least one")
            for value in values:
                if isinstance(value, list | dict):
                    raise ValueError(
                        f"search.layout.{name} holds {value!r}; searched values are texts, booleans or null. "
                        "Set it once, for all candidates, under search.start."
                    )
                Layout.model_validate({**self.start.model_dump(), name: value})
        return self


class DistillConfig(ConfigModel):
    """Where training rows come from.

    Attributes:
        teacher: `gold` renders the data's own answers; `candidate` lets the model under the best candidate answer and
            keeps what the metric accepts. Where `training` has a stage `labels` or `sft`, that says it, and this is
            left out.
        rows: largest number of train rows asked for; None = all.
        min_score: rows whose answer scores less are dropped.
        val_share: share of the rows, by content hash, that measures the evaluation loss.
    """

    teacher: Literal["gold", "candidate"] = "gold"
    rows: int | None = Field(default=None, ge=2)
    min_score: float = Field(default=1.0, ge=0, le=1)
    val_share: float = Field(default=0.1, gt=0, lt=1)


class ExportConfig(ConfigModel):
    """Which GGUFs are made from the merged model, and how parity is proved.

    Attributes:
        quantizations: files made beside f16, which is always made, and beside the deployed one.
        deploy: the quantization of the deployed file; None = `lm.quantization`; `auto` = the smallest file whose score
            on val is at most `max_loss` below that of f16.
        max_loss: of score, by the mean paired difference to f16.
        score_rows: rows of val on which every file is scored; 0 = none.
        keep_merged: whether the merged model in Hugging Face format stays in `export/merged`; False removes its weights
            when the GGUFs are made, and keeps its tokenizer.
        parity_prompts: test prompts whose greedy continuations are compared (token ids are compared on all).
    """

    quantizations: tuple[Quantization, ...] = ("q8_0", "q4_k_m")
    keep_merged: bool = True
    deploy: Quantization | Literal["auto"] | None = None
    max_loss: float = Field(default=0.01, ge=0, le=1)
    score_rows: int = Field(default=40, ge=0)
    parity_prompts: int = Field(default=16, ge=1)
    parity_tokens: int = Field(default=24, ge=1)

    @model_validator(mode="after")
    def _auto_has_scores(self) -> "ExportConfig":
        if self.deploy == "auto" and self.score_rows == 0:
            raise ValueError("export.deploy `auto` chooses by scores, and export.score_rows is 0; set it above 0")
        return self


class ReportConfig(ConfigModel):
    """What the report shows beside its table.

    Attributes:
        slices: example fields (of `data.fields`) by whose values the scores are also shown, e.g. `category`; language,
            length, place of the answer and kind of question are shown without being named.
    """

    slices: tuple[str, ...] = ()


class PublishConfig(ConfigModel):
    """What the model card says that no file of the run knows.

    Attributes:
        licence: of the base model, and so of what was made of it, as the Hub names it, e.g. `apache-2.0`.
        base_model: the base's id on the Hub, e.g. `Qwen/Qwen2.5-1.5B-Instruct`.
    """

    licence: str | None = None
    base_model: str | None = None


class ExperimentConfig(ConfigModel):
    """One experiment, as its YAML file says it.

    Attributes:
        program: import path `module:name` of a dspy.Module instance, a Module class, or a function that returns one.
        metric: name in `promptopt.metrics`, import path `module:name` of a Metric, or a judge (`kind: judge`).
        finetune: the recipe of every training.
        training: the training stages, in order; empty = one, `labels` or `sft` as `distill.teacher` says.
        run_dir: folder of the run; default `runs/<name>` in the working directory.
    """

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(default=0, ge=0)
    program: str
    metric: MetricConfig
    data: DataConfig
    model: ModelConfig
    lm: LmConfig = LmConfig()
    search: SearchConfig = SearchConfig()
    distill: DistillConfig = DistillConfig()
    finetune: TrainingRecipe = TrainingRecipe()
    training: tuple[TrainingStage, ...] = ()
    export: ExportConfig = ExportConfig()
    report: ReportConfig = ReportConfig()
    publish: PublishConfig = PublishConfig()
    run_dir: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _kind_names_the_teacher(cls, values: Any) -> Any:
        """Fill in `distill.teacher` where only the kind of a training stage says it."""
        stages = values.get("training") if isinstance(values, dict) else None
        distill = values.get("distill", {}) if isinstance(values, dict) else None
        if isinstance(stages, list | tuple) and isinstance(distill, dict) and "teacher" not in distill:
            kinds = [stage.get("kind") if isinstance(stage, dict) else getattr(stage, "kind", "") for stage in stages]
            named = [TEACHER_OF[kind] for kind in kinds if kind in TEACHER_OF]
            if named:
                return {**values, "distill": {**distill, "teacher": named[0]}}
        return values

    @model_validator(mode="after")
    def _training_is_possible(self) -> "ExperimentConfig":
        check_stages(self.training, self.finetune)
        kinds = {TEACHER_OF[stage.kind]: stage.kind for stage in self.training if stage.kind in TEACHER_OF}
        if kinds and self.distill.teacher not in kinds:
            teacher, kind = next(iter(kinds.items()))
            raise ValueError(
                f"distill.teacher is {self.distill.teacher!r}, but `training` has a stage {kind!r}, which learns from "
                f"{teacher!r} answers. Leave distill.teacher out: the kind says it"
            )
        if self.training and self.search.weights is not None and not is_plain(self.training):
            raise ValueError(
                "search.weights trains every tuned trial with one stage `labels` or `sft` as `distill` and `finetune` "
                f"describe it, and `training` asks for {[stage.kind for stage in self.training]}, or for changes of "
                "its own. Set search.weights: null to search the prompt first and train these stages under the best one"
            )
        check_teacher_differs(self.training, self.finetune)
        return self

    @property
    def training_stages(self) -> tuple[TrainingStage, ...]:
        """The training stages, the one that `distill.teacher` means where none are named."""
        plain = LabelsStage(kind="labels") if self.distill.teacher == "gold" else SftStage(kind="sft")
        return self.training or (plain,)

    @model_validator(mode="after")
    def _slices_are_fields(self) -> "ExperimentConfig":
        unknown = [name for name in self.report.slices if name not in self.data.fields]
        if unknown:
            raise ValueError(f"report.slices {unknown} are not among data.fields {sorted(self.data.fields)}")
        return self

    @model_validator(mode="after")
    def _default_recipe_is_searched(self) -> "ExperimentConfig":
        weights = self.search.weights
        for name, searched in ((weights.recipe if weights else None) or {}).items():
            value = parameter_of(self.finetune, name)
            written = name in self.finetune.model_fields_set
            if written and isinstance(searched, NumberRange) and value not in searched:
                raise ValueError(
                    f"finetune.{name} is {value!r}, outside search.weights.recipe.{name} ({searched.low} to "
                    f"{searched.high}); the best prompts are first tuned with the recipe under `finetune`"
                )
        return self
