"""ReportData: everything the report says, as frozen records that can be saved. Renders nothing."""

from typing import Literal

from pydantic import Field, JsonValue

from promptopt.evaluation.statistics import PairedDifference
from promptopt.records import ChatMessage, EvaluationSummary, FinetuneResult, GgufModel, ParityReport, Record, SplitName


class Comparison(Record):
    """A step of the road, measured: `after` against `before` on the same examples.

    Attributes:
        before, after: `EvaluationSummary.name` of the two.
        purpose: "improve" for a step that should raise the score; "preserve" for one that should only not lower it,
            such as quantization.
    """

    before: str
    after: str
    difference: PairedDifference
    purpose: Literal["improve", "preserve"] = "improve"


class TrialLine(Record):
    """One trial of the search.

    Attributes:
        value: mean score on the examples it saw; None where it failed.
        examples: how many it saw before it was complete or raced out.
        description: what was tried, in a few words (layout fields that differ from the start, instruction, demos).
        weights: "frozen", "tuned", or "tuned in trial N".
        serving_tokens: tokens per example that no other example shares; None where not known.
    """

    number: int
    value: float | None
    examples: int
    description: str
    state: str = "complete"
    weights: str = "frozen"
    serving_tokens: float | None = None


class SearchOverview(Record):
    """What the search did.

    Attributes:
        trials: all of them; `raced_out` and `failed` are among them.
        space: parameter -> values searched, as text.
        top: best trials, best first.
        best_trial: number of the best trial on frozen weights; 0 is the untouched program.
        best_tuned_trial: number of the best trial on tuned weights; None where none was tuned.
        tuned: trials on tuned weights; trained: those that trained.
        front: trials that no other beats in both score and serving tokens, the cheapest first.
        constraints: limits that a winner had to meet; infeasible: trials that did not.
        importances: parameter -> share of the score's variance it explains; empty where not computed.
    """

    trials: int
    raced_out: int
    failed: int
    split: SplitName = "val"
    examples: int
    space: tuple[tuple[str, tuple[str, ...]], ...]
    top: tuple[TrialLine, ...]
    best_trial: int
    best_tuned_trial: int | None = None
    tuned: int = 0
    trained: int = 0
    front: tuple[TrialLine, ...] = ()
    constraints: dict[str, float] = Field(default_factory=dict)
    infeasible: int = 0
    importances: dict[str, float] = Field(default_factory=dict)


class DataOverview(Record):
    """Rows per split, what was left out, and the fingerprint of each split."""

    rows: dict[SplitName, int]
    bad_rows: int = 0
    duplicates: int = 0
    overlapping: int = 0
    left_over: int = 0
    fingerprints: dict[SplitName, str] = Field(default_factory=dict)


class RunRecord(Record):
    """What it takes to run this again.

    Attributes:
        arguments: of the command, as passed.
        environment: machine, date, duration: whatever explains the figures.
        file_hashes: path -> sha256.
        recipe: field that was chosen -> its value and why.
        git_revision: with "-dirty" where files were changed; empty outside a repository.
    """

    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    seeds: dict[str, int] = Field(default_factory=dict)
    file_hashes: dict[str, str] = Field(default_factory=dict)
    environment: dict[str, str] = Field(default_factory=dict)
    recipe: dict[str, str] = Field(default_factory=dict)
    git_revision: str = ""


class ReportData(Record):
    """The whole report. A part that is None or empty belongs to a stage that has not run, and is left out.

    Attributes:
        summaries: in the order of the road: base model with a plain DSPy prompt, best prompt found, fine-tuned, GGUF.
        comparisons: of neighbours, and of the last with the first.
        winning_prompt: messages rendered for one real example; `winning_layout`: the Layout as JSON.
    """

    experiment: str
    metric: str
    summaries: tuple[EvaluationSummary, ...]
    comparisons: tuple[Comparison, ...] = ()
    search: SearchOverview | None = None
    winning_prompt: tuple[ChatMessage, ...] = ()
    winning_layout: dict[str, JsonValue] = Field(default_factory=dict)
    finetune: FinetuneResult | None = None
    parity: tuple[ParityReport, ...] = ()
    ggufs: tuple[GgufModel, ...] = ()
    data: DataOverview | None = None
    run: RunRecord | None = None
    warnings: tuple[str, ...] = ()
