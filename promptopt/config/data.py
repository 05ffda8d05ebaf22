"""DataConfig: where examples come from and how they are split. Reads no file itself."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class ConfigModel(BaseModel):
    """Base of all config models: frozen; a misspelt key is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class JsonlSource(ConfigModel):
    """One JSON object per line, UTF-8 (a byte order mark is skipped)."""

    kind: Literal["jsonl"]
    path: str


class CsvSource(ConfigModel):
    """Comma-separated values with a header line, UTF-8 (a byte order mark is skipped)."""

    kind: Literal["csv"]
    path: str


class PythonSource(ConfigModel):
    """Rows made by a function `factory(n, seed) -> list of dict`, named by import path `module:function`."""

    kind: Literal["python"]
    factory: str
    n: int = Field(ge=1)
    seed: int = 0


class ParquetSource(ConfigModel):
    """A Parquet file. Needs the extra `data`."""

    kind: Literal["parquet"]
    path: str


class HuggingFaceSource(ConfigModel):
    """A data set in the format of Hugging Face `datasets`: a folder on disk, or one of the hub. Needs the extra `data`.

    Attributes:
        path: folder that `save_to_disk` wrote; excludes `name`.
        name: of the hub, e.g. `rajpurkar/squad`. Its token comes from the variable HF_TOKEN alone.
        config: the data set's configuration ("subset" on the hub), where it has several.
        split: required where the data set has splits; `train` and so on; of the hub also slices: `train[:1000]`.
        revision: commit, tag or branch on the hub; only a commit names the same rows for ever.
    """

    kind: Literal["huggingface"]
    path: str | None = None
    name: str | None = Field(default=None, pattern=r"^[\w.-]+(/[\w.-]+)?$")
    config: str | None = None
    split: str | None = None
    revision: str | None = None

    @model_validator(mode="after")
    def _is_one_place(self) -> "HuggingFaceSource":
        if (self.path is None) == (self.name is None):
            raise ValueError("give either `path` (a folder on disk) or `name` (a data set of the hub)")
        if self.path is not None and (self.config or self.revision):
            raise ValueError("`config` and `revision` belong to `name`; a folder on disk has neither")
        return self


class FlowCasesSource(ConfigModel):
    """A case file of Flow Benchmark Tools; columns `query`, `reference_answer`, `labels`, `extras`.

    A `reference_answer_file` is read (relative to the case file) and stands in `reference_answer`.
    """

    kind: Literal["flow_cases"]
    path: str


class DocumentLimits(ConfigModel):
    """What reading one document may take; a document that needs more is a bad row.

    Attributes:
        file_mib: size of the file.
        unpacked_mib: size of what a .docx unpacks to.
        pages: of a PDF.
        characters: of the text.
        seconds: wall time.
        memory_mib: address space of the process that reads (not limited on Windows).
    """

    file_mib: int = Field(default=64, ge=1)
    unpacked_mib: int = Field(default=256, ge=1)
    pages: int = Field(default=5000, ge=1)
    characters: int = Field(default=10_000_000, ge=1)
    seconds: float = Field(default=30.0, gt=0)
    memory_mib: int = Field(default=1024, ge=256)


class DocumentsSource(ConfigModel):
    """A folder of .txt, .md, .pdf and .docx files, with its subfolders; one row per document. Needs the extra `data`.

    Columns: `doc_id` (path inside the folder), `title`, `text`, `path`, `pages` (the text of each; one where the format
    has no pages).

    Attributes:
        encoding: of .txt and .md files, as Python names it; `auto` takes UTF-8 and byte order marks, else it detects.
    """

    kind: Literal["documents"]
    path: str
    encoding: str = "auto"
    limits: DocumentLimits = DocumentLimits()

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, encoding: str) -> str:
        if encoding != "auto":
            try:
                "".encode(encoding)
            except LookupError as error:
                raise ValueError("no such encoding; allowed: auto, utf-8, cp932, euc-jp, cp1252, ...") from error
        return encoding


Source = Annotated[
    JsonlSource | CsvSource | PythonSource | ParquetSource | HuggingFaceSource | FlowCasesSource | DocumentsSource,
    Field(discriminator="kind"),
]
NearDuplicatePolicy = Literal["warn", "error", "drop", "off"]


class SplitSizes(ConfigModel):
    """How many rows each split gets at most."""

    train: int = Field(ge=1)
    val: int = Field(ge=1)
    test: int = Field(ge=1)


class DataConfig(ConfigModel):
    """The data of an experiment.

    Attributes:
        source: all rows; split by content hash, so that the same row always falls into the same place.
        test_source: a separate source for the test split, where the data's authors made one.
        fields: example field -> column of the source. A column may be a dotted path: `answers.0`, `meta.title`.
        inputs: the example fields the program is given; the row's identity is the hash of these.
        group: column whose rows stay in one split (e.g. the document that several questions ask about).
        split: largest number of rows of each split.
        seed: of the split.
        bad_rows_allowed: rows that may lack a field or be unreadable before loading stops; they are counted.
        near_duplicates: what to do about rows of train or val whose inputs nearly equal those of a later split: say how
            many (`warn`), stop (`error`), leave them out and take others (`drop`), or do not look (`off`).
        near_duplicate_threshold: Jaccard similarity of word or character shingles from which two rows are nearly equal.
        origin: where the data can be had; said when a file is missing.
    """

    source: Source
    test_source: Source | None = None
    fields: dict[str, str]
    inputs: tuple[str, ...] = Field(min_length=1)
    group: str | None = None
    split: SplitSizes
    seed: int = 0
    bad_rows_allowed: int = Field(default=0, ge=0)
    near_duplicates: NearDuplicatePolicy = "warn"
    near_duplicate_threshold: float = Field(default=0.8, ge=0.3, le=1.0)
    origin: str = ""

    @model_validator(mode="after")
    def _inputs_are_fields(self) -> "DataConfig":
        unknown = [name for name in self.inputs if name not in self.fields]
        if unknown:
            raise ValueError(f"inputs {unknown} are not among fields {sorted(self.fields)}; map them under `fields`")
        return self
