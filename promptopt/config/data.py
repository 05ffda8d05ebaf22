"""DataConfig: where examples come from and how they are split. Reads no file itself."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


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


Source = Annotated[JsonlSource | CsvSource | PythonSource, Field(discriminator="kind")]


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
    origin: str = ""

    @model_validator(mode="after")
    def _inputs_are_fields(self) -> "DataConfig":
        unknown = [name for name in self.inputs if name not in self.fields]
        if unknown:
            raise ValueError(f"inputs {unknown} are not among fields {sorted(self.fields)}; map them under `fields`")
        return self
