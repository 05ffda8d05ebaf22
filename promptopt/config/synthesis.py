"""SynthesisConfig: which rows a teacher LM writes over which documents, and what a row must pass."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from promptopt.config.data import ConfigModel, DocumentsSource, Source
from promptopt.config.pools import GgufProposer, ServerProposer
from promptopt.layout.spec import Language

SynthesisTask = Literal["question_answer", "keywords_text"]
_FIELDS = ("document", "document_id", "keywords")


class RowChecks(ConfigModel):
    """What a row must pass, beside being parsed, complete and no duplicate.

    Attributes:
        min_overlap: share of the answer's words (Japanese: characters) that stand in the passage; an answer that
            stands there as it is has 1.
        min_groundedness: of question, answer and text, by the metric `groundedness`, against the passage and keywords.
        min_coverage: share of the keywords that a text uses.
        text_characters: shortest and longest text for keywords.
        near_duplicates: Jaccard similarity of shingles from which two questions, or two texts, are the same.
        metric: name or import path of a metric, given the row as example and its answer (or text) as prediction.
        min_score: what that metric must give; an undecided one rejects.
    """

    min_overlap: float = Field(default=0.7, ge=0, le=1)
    min_groundedness: float = Field(default=1.0, ge=0, le=1)
    min_coverage: float = Field(default=1.0, ge=0, le=1)
    text_characters: tuple[int, int] = (40, 600)
    near_duplicates: float = Field(default=0.7, ge=0.3, le=1)
    metric: str | None = None
    min_score: float = Field(default=0.5, ge=0, le=1)


class SynthesisConfig(ConfigModel):
    """One file of synthetic rows.

    Attributes:
        name: of the folder that is written, unless `out` names one.
        task: `question_answer` writes a question and its answer over a passage; `keywords_text` a short text that uses
            keywords, which the source gives or, where it has none, the teacher takes from the passage.
        source: the documents, as in an experiment's `data.source`.
        fields: `document`, `document_id`, `keywords` -> column; a source of `kind: documents` needs none.
        bad_rows_allowed: rows of the source that may be unreadable or lack a field; they are left out and counted.
        teacher: who writes: a GGUF on this machine, or an OpenAI-compatible server.
        wish: what the teacher is told beside its task, e.g. who asks the questions.
        language: of the documents: of the rules of the checks, and of the prompt around them.
        rows: how many are wanted.
        rows_per_document: most rows of one document; None = as many as it takes.
        attempts_per_row: for each wanted row, at most so many replies are asked for.
        give_up_after: a document is left alone after so many rejected replies in a row.
        passage_characters: longest piece of a document that the teacher reads at once.
        max_tokens, temperature: of a reply.
        seed: of everything that is drawn.
        parallel: requests to a server at once; a GGUF takes as many as its engine does. Changes no row.
        out: folder; None = `synthetic/<name>`.
    """

    name: str = Field(pattern=r"^[\w.-]+$")
    task: SynthesisTask
    source: Source
    fields: dict[str, str] = Field(default_factory=dict)
    bad_rows_allowed: int = Field(default=0, ge=0)
    teacher: Annotated[GgufProposer | ServerProposer, Field(discriminator="kind")]
    wish: str = ""
    language: Language = "en"
    rows: int = Field(default=1000, ge=1)
    rows_per_document: int | None = Field(default=None, ge=1)
    attempts_per_row: float = Field(default=3.0, ge=1)
    give_up_after: int = Field(default=6, ge=1)
    passage_characters: int = Field(default=3000, ge=200)
    max_tokens: int = Field(default=256, ge=8)
    temperature: float = Field(default=0.8, ge=0)
    seed: int = 0
    parallel: int = Field(default=4, ge=1, le=256)
    checks: RowChecks = RowChecks()
    out: str | None = None

    @model_validator(mode="after")
    def _has_something_to_write_about(self) -> "SynthesisConfig":
        unknown = sorted(set(self.fields) - set(_FIELDS))
        if unknown:
            raise ValueError(f"fields {unknown} are not known; allowed are {list(_FIELDS)}")
        if "keywords" in self.fields and self.task != "keywords_text":
            raise ValueError("fields.keywords belongs to task `keywords_text`")
        if "document" not in self.columns and "keywords" not in self.columns:
            raise ValueError(
                "fields needs `document`, the column that holds the text (or `keywords` for keywords_text)"
            )
        return self

    @property
    def columns(self) -> dict[str, str]:
        """`fields`, with the columns of a folder of documents where nothing else is said."""
        given = {"document": "text", "document_id": "doc_id"} if isinstance(self.source, DocumentsSource) else {}
        return {**given, **self.fields}
