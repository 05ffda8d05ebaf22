"""Schemas of everything that crosses a stage as a file: frozen pydantic models, no behaviour beyond validation.

The two wings of the house meet here: the prompt wing writes `TrainingRow`s, the weights wing reads them; the weights
wing writes `FinetuneResult`, `GgufModel` and `ParityReport`, the report reads them. Knows nothing about how any of it
is produced.
"""

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

Role = Literal["system", "user", "assistant"]
BestBy = Literal["eval_loss", "metric"]
SplitName = Literal["train", "val", "test"]
Quantization = Literal["f32", "f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0"]


class Record(BaseModel):
    """Base of all records: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ChatMessage(Record):
    """One message of a chat prompt."""

    role: Role
    content: str


class DataRow(Record):
    """One example of a dataset after field mapping.

    Attributes:
        id: stable content hash (16 hex digits) of the input fields; the same inputs give the same id everywhere.
        fields: field name -> value; signature fields and whatever else the metric needs (e.g. all gold answers).
        group: rows with the same group never stand in different splits (e.g. questions on one document).
    """

    id: str
    fields: dict[str, JsonValue]
    group: str = ""


class Outcome(StrEnum):
    """What became of one example. Only SCORED and PARSE_FAILED count in a mean."""

    SCORED = "scored"
    PARSE_FAILED = "parse_failed"
    UNSCORED = "unscored"


class ExampleRecord(Record):
    """One example, run through one program with one candidate on one LM.

    Attributes:
        example_id: `DataRow.id`.
        score: in [0, 1]; 0 for PARSE_FAILED; None for UNSCORED.
        prediction: the program's output fields; empty where parsing failed.
        completion: raw text of the last LM call.
        calls: LM calls of this example, all predictors together; 0 in files older than this field.
        cached_calls: those of them that the response cache answered.
        prompt_tokens: tokens of all prompts of this example, all predictors together.
        prompt_tokens_computed: those of them that no cached prefix covered.
        completion_tokens: tokens of all answers; completion_tokens_computed: those that were generated, not remembered.
        latency_s: seconds spent in LM calls when they were really made (a cached answer keeps its first latency).
        error: what did not parse, or why a judge was undecided.
    """

    example_id: str
    outcome: Outcome
    score: float | None
    feedback: str = ""
    details: dict[str, float] = Field(default_factory=dict)
    prediction: dict[str, JsonValue] = Field(default_factory=dict)
    completion: str = ""
    calls: int = 0
    cached_calls: int = 0
    prompt_tokens: int = 0
    prompt_tokens_computed: int = 0
    completion_tokens: int = 0
    completion_tokens_computed: int = 0
    latency_s: float = 0.0
    error: str = ""


class EvaluationSummary(Record):
    """One column of the report's table: a model and prompt on one split.

    Attributes:
        name: machine name, e.g. "base_plain"; title: what the table shows.
        mean, ci_low, ci_high: of the metric over SCORED and PARSE_FAILED examples, 95 % bootstrap interval.
        prompt_tokens, completion_tokens, latency_s: means per example.
    """

    name: str
    title: str
    split: SplitName
    n: int
    mean: float
    ci_low: float
    ci_high: float
    parse_failures: int
    unscored: int
    prompt_tokens: float
    completion_tokens: float
    latency_s: float
    details: dict[str, float] = Field(default_factory=dict)


class TrialRecord(Record):
    """One finished trial of a study.

    Attributes:
        state: "complete" saw every example; "raced_out" was stopped while losing; "failed" broke (see `error`).
        value: what the sampler was told: the mean score, or for a raced-out trial the best candidate's mean plus the
            mean paired difference, which is below the best by construction. None for failed trials.
        mean_score: plain mean over the examples it saw.
        number: its slot in the plan of the study; a trial that a dead worker left is finished under the same number.
        kind: whether its weights are the base's or tuned ones; weights_of: the trial that trained them.
        feasible: whether it meets `search.constraints`; unmet: those it does not, with how far it is beyond.
        serving_tokens: tokens per example that cannot be shared with other examples: prompts without their common
            beginning, and answers. None where that was not measured.
        train_rows, train_steps: rows and steps of its own training; lora_sha256: of the LoRA GGUF it was scored with.
    """

    number: int
    state: Literal["complete", "raced_out", "failed"]
    value: float | None
    mean_score: float | None
    examples: int
    candidate_key: str
    layout: dict[str, JsonValue]
    params: dict[str, JsonValue]
    parse_failures: int = 0
    prompt_tokens: float = 0.0
    completion_tokens: float = 0.0
    serving_tokens: float | None = None
    kind: Literal["frozen", "tuned"] = "frozen"
    weights_of: int | None = None
    feasible: bool = True
    unmet: dict[str, float] = Field(default_factory=dict)
    train_rows: int = 0
    train_steps: int = 0
    lora_sha256: str = ""
    error: str = ""


class TrainingRow(Record):
    """One row of chat JSONL for fine-tuning, rendered in the student's layout.

    The text trained on is chat_template(prompt, generation prompt on) + completion + end of turn. `completion` is the
    whole assistant text; where the layout prefills the answer, it starts with `prefill`, whose tokens carry no loss.

    Attributes:
        source: who wrote the completion: "gold" or "candidate".
        teacher_prompt: what a teacher of `self_distill` or `on_policy` reads instead of `prompt`; () = the same.
    """

    id: str
    prompt: tuple[ChatMessage, ...]
    completion: str
    prefill: str = ""
    source: str = "gold"
    teacher_prompt: tuple[ChatMessage, ...] = ()


class DocumentRow(Record):
    """One raw document for continued pre-training; `id` is a hash of its text (16 hex digits)."""

    id: str
    text: str


class LossPoint(Record):
    """Losses at one moment of training: nats per completion token; None where it was not measured.

    Of `self_distill` and `on_policy`, `loss` is the divergence between teacher and student. `eval_loss` is the negative
    log-likelihood of the validation rows' completions whatever the method (of all tokens, for documents).

    Attributes:
        metric: mean task metric of generated answers on a few validation rows, in [0, 1].
    """

    step: int
    epoch: float
    loss: float | None = None
    eval_loss: float | None = None
    learning_rate: float | None = None
    metric: float | None = None


class FinetuneResult(Record):
    """What one fine-tuning run left behind.

    Attributes:
        lora_dir: folder with the best LoRA weights, relative to the run's fine-tuning folder.
        base_quantization: how the frozen base was held during training: "nf4", "fp4", "none", or e.g. "nf4, dequantised
            in memory": the 4-bit values, unpacked once.
        trained_tokens: completion tokens that carried loss, all epochs together.
        wall_s: seconds of training, without loading.
        method: kind of the training method; "" in files older than this field.
        dropped_rows: rows, to train on and to validate with, that were too long and left out.
        stages: where several training stages followed each other, each of them; other fields are then the last one's.
        best_by: what the best weights were chosen by; best_metric: theirs, where it was measured.
        verdict: one sentence on overfitting, see `promptopt.finetune.verdict`.
    """

    lora_dir: str
    base_model: str
    base_quantization: str
    best_step: int
    best_eval_loss: float
    steps: int
    epochs: float
    train_rows: int
    val_rows: int
    trained_tokens: int
    trainable_parameters: int
    wall_s: float
    device: str
    stopped_early: bool
    history: tuple[LossPoint, ...]
    method: str = ""
    dropped_rows: int = 0
    stages: tuple["FinetuneResult", ...] = ()
    best_by: BestBy = "eval_loss"
    best_metric: float | None = None
    verdict: str = ""


class GgufModel(Record):
    """One GGUF file."""

    path: str
    quantization: Quantization
    sha256: str
    size_bytes: int


class ParityReport(Record):
    """How far llama.cpp on the GGUF agrees with the HF model it came from.

    Attributes:
        token_ids_equal: prompts whose token ids from the HF tokenizer and from llama.cpp are the same.
        greedy_equal: prompts whose greedy continuation (`max_new_tokens` tokens) is the same throughout.
        mean_agreed_tokens: mean length of the common prefix of both greedy continuations.
        first_mismatch: the first prompt whose token ids differ, shortened; empty when all agree.
    """

    prompts: int
    token_ids_equal: int
    greedy_prompts: int
    greedy_equal: int
    mean_agreed_tokens: float
    max_new_tokens: int
    quantization: Quantization
    first_mismatch: str = ""


class FieldRecord(Record):
    """One field of a signature as plain values: how prompts word it, and what its values are; never code.

    Attributes:
        desc: as the signature gives it; empty when it gives none.
        value_schema: JSON schema of the field's type with its constraints.
        type_name, constraints, note, type_hint: what DSPy makes of the type in prompts; see `layout.FieldSpec`.
        shown_desc: the description as prompts show it.
        optional: whether an answer without this output is acceptable.
        required: whether it has no default; default: as JSON.
    """

    name: str
    kind: Literal["input", "output"]
    desc: str = ""
    value_schema: dict[str, JsonValue]
    type_name: str
    constraints: str = ""
    note: str = ""
    type_hint: str = ""
    shown_desc: str = ""
    optional: bool = False
    required: bool = True
    default: JsonValue = None


class SignatureRecord(Record):
    """A signature as plain values: name, instructions as written, fields in declared order."""

    name: str
    instructions: str
    fields: tuple[FieldRecord, ...]


class AnswerSettings(Record):
    """How a model was asked when it was measured. Fields as in `config.experiment.LmConfig`."""

    n_ctx: int
    max_tokens: int
    temperature: float
    seed: int
