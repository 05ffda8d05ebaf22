"""What a synthesis came to and what it cost, as a record and as lines."""

from pydantic import JsonValue

from promptopt.records import Record


class SyntheticRow(Record):
    """One row that passed.

    Attributes:
        fields: what an experiment maps: document, question, answer; or keywords, text (and document, if there was one).
        provenance: document_id, passage (its number), teacher, fingerprint, seed, attempt (the reply's key) and checks.
    """

    fields: dict[str, JsonValue]
    provenance: dict[str, JsonValue]

    def line(self) -> dict[str, JsonValue]:
        """Return the row as `rows.jsonl` has it: the fields side by side, `provenance` behind them."""
        return {**self.fields, "provenance": self.provenance}


class RejectedReply(Record):
    """One reply that gave no row; `reason` is counted in the report, `detail` says what was found."""

    attempt: str
    document_id: str
    passage: int
    reason: str
    detail: str
    completion: str


class SynthesisReport(Record):
    """How a synthesis went.

    Attributes:
        rejected: reason -> replies.
        documents, documents_without_row, documents_given_up: counts; given up after too many rejections in a row.
        rows_per_document: least and most rows of one document.
        bad_rows: of the source, left out.
        calls, prompt_tokens, completion_tokens, lm_seconds: of every reply that the rows come from, whenever it was
            computed; seconds from request to answer, added up, so more than the clock's where requests run at once.
        calls_now, wall_seconds: of this run of the command alone.
    """

    name: str
    task: str
    teacher: str
    fingerprint: str
    seed: int
    wanted: int
    rows: int
    rejected: dict[str, int]
    documents: int
    documents_without_row: int
    documents_given_up: int
    rows_per_document: tuple[int, int]
    bad_rows: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    lm_seconds: float
    calls_now: int
    wall_seconds: float

    def lines(self) -> list[str]:
        """Return the report in sentences."""
        least, most = self.rows_per_document
        rejected = ", ".join(f"{reason} {count}" for reason, count in self.rejected.items()) or "none"
        lines = [
            f"rows: {self.rows} of {self.wanted} wanted, from {self.calls} replies of {self.teacher}",
            f"rejected: {rejected}",
            f"documents: {self.documents}, {least} to {most} rows each; {self.documents_without_row} without a row, "
            f"{self.documents_given_up} given up",
            f"cost: {self.calls} calls, {self.prompt_tokens} prompt tokens, {self.completion_tokens} completion "
            f"tokens, {self.lm_seconds:.1f} s of answering; {self.calls_now} of these calls now, "
            f"in {self.wall_seconds:.1f} s",
        ]
        return lines + ([f"bad rows of the source, left out: {self.bad_rows}"] if self.bad_rows else [])
