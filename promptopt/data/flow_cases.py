"""Case files of Flow Benchmark Tools (`BenchmarkCase`, version 1.5.0): read, written, and as rows.

One JSON object per line: `query`, `reference_answer` or `reference_answer_file`, `labels`, `extras`. A case labelled
"criteria" needs no reference.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError, model_validator

from promptopt.config.data import FlowCasesSource
from promptopt.data.sources import RawRow, find_data_file, jsonl_rows, read_text
from promptopt.errors import DataError

_CRITERIA = "criteria"


class FlowCase(BaseModel):
    """One case.

    Attributes:
        reference_answer_file: path of a UTF-8 file, relative to the case file; looked at where `reference_answer` is
            None. (Flow Benchmark Tools look it up from the working directory; both agree when run beside the file.)
        labels: kinds of the case, e.g. "rag"; extras: whatever agents and judges need, e.g. "criteria".
    """

    # Keys they do not know are passed over by them, and kept here for writing.
    model_config = ConfigDict(frozen=True, extra="allow")

    query: str
    reference_answer: str | None = None
    reference_answer_file: str | None = None
    labels: tuple[str, ...] | None = None
    extras: dict[str, JsonValue] | None = None

    @model_validator(mode="after")
    def _has_a_reference(self) -> "FlowCase":
        has_none = self.reference_answer is None and self.reference_answer_file is None
        if has_none and _CRITERIA not in (self.labels or ()):
            raise ValueError(
                "needs reference_answer or reference_answer_file (only a case labelled 'criteria' needs neither)"
            )
        return self

    def answer(self, folder: Path) -> str | None:
        """Return the reference answer; None where a criteria case has none.

        Args:
            folder: of the case file.

        Raises:
            DataError: the reference file is missing, outside `folder`, or no UTF-8 text.
        """
        if self.reference_answer is not None or self.reference_answer_file is None:
            return self.reference_answer
        path = folder / self.reference_answer_file
        # A case file of strangers must not bring a file of this machine into prompts that leave it.
        if not path.resolve().is_relative_to(folder.resolve()):
            raise DataError(f"field 'reference_answer_file': {self.reference_answer_file!r} leads out of {folder}")
        if not path.is_file():
            raise DataError(f"field 'reference_answer_file': {path} does not exist")
        return read_text(path)


def read_cases(path: Path) -> list[FlowCase]:
    """Return the cases in a case file.

    Raises:
        DataError: the file is missing or empty, or a line is no case; the message names line and field.
    """
    cases = []
    for raw, case in _parsed(find_data_file(str(path))):
        if case is None:
            raise DataError(f"{raw.place}: {raw.problem}")
        cases.append(case)
    return cases


def write_cases(path: Path, cases: Iterable[FlowCase]) -> None:
    """Write a case file atomically, with the keys each case was given: what `read_cases` read is written as it was."""
    unfinished = path.with_name(f".{path.name}.tmp")
    text = "".join(case.model_dump_json(exclude_unset=True) + "\n" for case in cases)
    unfinished.write_text(text, encoding="utf-8", newline="\n")
    unfinished.replace(path)


def flow_case_rows(source: FlowCasesSource, origin: str = "") -> Iterator[RawRow]:
    """Yield the cases of `source` as rows `query, reference_answer, labels, extras`, reference files read.

    Raises:
        DataError: the file is missing or empty.
    """
    path = find_data_file(source.path, origin)
    for raw, case in _parsed(path):
        if case is None:
            yield raw
            continue
        try:
            answer = case.answer(path.parent)
        except DataError as error:
            yield RawRow(raw.place, None, str(error))
            continue
        columns = {"query": case.query, "reference_answer": answer}
        yield RawRow(raw.place, {**columns, "labels": list(case.labels or ()), "extras": case.extras or {}})


def reference_files(path: Path) -> list[Path]:
    """Return the files that the cases in the file `path` refer to and that exist, in order."""
    named = {
        path.parent / case.reference_answer_file for _, case in _parsed(path) if case and case.reference_answer_file
    }
    return sorted(file for file in named if file.is_file())


def _parsed(path: Path) -> Iterator[tuple[RawRow, FlowCase | None]]:
    """Yield each line with its case; None where it is none, which the row's problem explains."""
    text = read_text(path)
    if not text.strip():
        raise DataError(f"The data file {path} is empty. It needs at least one case.")
    for raw in jsonl_rows(path, text):
        if raw.columns is None:
            yield raw, None
            continue
        try:
            yield raw, FlowCase.model_validate(raw.columns)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            field = ".".join(map(str, problem["loc"]))
            yield (
                RawRow(
                    raw.place,
                    None,
                    (f"field {field!r}: " if field else "") + problem["msg"].removeprefix("Value error, "),
                ),
                None,
            )
