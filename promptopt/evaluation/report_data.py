"""ReportData: everything the report says, as frozen records that can be saved. Renders nothing."""

from typing import Literal

from pydantic import Field, JsonValue

from promptopt.evaluation.model_table import MeasuredModel
from promptopt.evaluation.statistics import PairedDifference
from promptopt.records import ChatMessage, EvaluationSummary, FinetuneResult, GgufModel, ParityReport, Record, SplitName


class Comparison(Record):
    """A step of the road, measured: `after` against `before` on the same examples.

    Attributes:
        before, after: `EvaluationSummary.name` of the two.
        purpose: "improve" for a step that should raise the score; "preserve" for one that should only not lower it,
            such as quantization.
        p_corrected: the p value, corrected for all pairs of systems that the report compares (Holm).
    """

    before: str
    after: str
    difference: PairedDifference
    purpose: Literal["improve", "preserve"] = "improve"
    p_corrected: float | None = None

    @property
    def p_value(self) -> float:
        """The corrected p value; the plain one where nothing was corrected."""
        return self.difference.p_value if self.p_corrected is None else self.p_corrected


class SliceLine(Record):
    """Examples that share a property.

    Attributes:
        means: system name -> mean score, of systems that have a score on one of them.
        difference: of the last system against the first; None with fewer than two examples that both have.
    """

    label: str
    n: int
    means: dict[str, float]
    difference: PairedDifference | None = None


class SliceTable(Record):
    """The scores by one property of the examples, e.g. their language."""

    name: str
    lines: tuple[SliceLine, ...]


class SplitOpening(Record):
    """One time that a run read its test split.

    Attributes:
        who: user and machine; when: UTC; command: as it was given; reason: why it was opened again, empty at first.
        measured: key of what was measured on it.
        fingerprint: of the test rows.
    """

    who: str
    when: str
    command: str
    git_revision: str
    measured: str
    fingerprint: str
    reason: str = ""


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
    """Rows per split, what was left out, and the fingerprint of each split.

    Attributes:
        near_duplicates: rows of train and val that nearly equal a row of a later split, and are still in.
        near_duplicates_dropped: those that were left out.
    """

    rows: dict[SplitName, int]
    bad_rows: int = 0
    duplicates: int = 0
    overlapping: int = 0
    left_over: int = 0
    near_duplicates: int = 0
    near_duplicates_dropped: int = 0
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
        comparisons: of neighbours, and of the last with the first; pairs: of every two systems.
        openings: each time this run read its test split.
        quantizations: the GGUFs, scored on val; deployed: file name of the one that is handed out.
        judge: how far the judge behind the scores agrees with people; empty where none is, or nobody measured it.
        winning_prompt: messages rendered for one real example; `winning_layout`: the Layout as JSON.
    """

    experiment: str
    metric: str
    summaries: tuple[EvaluationSummary, ...]
    comparisons: tuple[Comparison, ...] = ()
    pairs: tuple[Comparison, ...] = ()
    slices: tuple[SliceTable, ...] = ()
    openings: tuple[SplitOpening, ...] = ()
    search: SearchOverview | None = None
    winning_prompt: tuple[ChatMessage, ...] = ()
    winning_layout: dict[str, JsonValue] = Field(default_factory=dict)
    finetune: FinetuneResult | None = None
    parity: tuple[ParityReport, ...] = ()
    ggufs: tuple[GgufModel, ...] = ()
    quantizations: tuple[MeasuredModel, ...] = ()
    deployed: str = ""
    judge: str = ""
    data: DataOverview | None = None
    run: RunRecord | None = None
    warnings: tuple[str, ...] = ()


class ModelCardData(Record):
    """What a model card says beside the report.

    Attributes:
        deployed: file name of the GGUF to serve.
        base_model: what the base is called; base_id: its id on a hub, where it was stated; licence: where stated.
        inputs, outputs: name -> type of the program's fields.
        needs_program: why `promptopt ask` cannot answer with the file alone; "" = it can.
        demos: examples of the training data that the file carries in its prompt.
        recipe: how it was trained.
        files: other files that lie beside the GGUFs; left_out: those that could not be made, and why.
    """

    deployed: str
    base_model: str
    base_id: str | None = None
    licence: str | None = None
    inputs: dict[str, str]
    outputs: dict[str, str]
    needs_program: str = ""
    demos: int = 0
    recipe: dict[str, JsonValue] = Field(default_factory=dict)
    files: tuple[str, ...] = ()
    left_out: dict[str, str] = Field(default_factory=dict)
