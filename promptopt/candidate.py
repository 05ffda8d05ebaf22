"""Candidate: the searched unit, layout and what each predictor is told; as JSON, as a hash, applied to a program.

Knows how to read and change a DSPy program; knows nothing about where instructions and demos come from, or scores.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from promptopt.errors import ConfigError
from promptopt.layout.spec import Layout

if TYPE_CHECKING:
    import dspy

    ProgramT = TypeVar("ProgramT", bound=dspy.Module)


class PredictorPrompt(BaseModel):
    """What one predictor is told: its instructions and its demos, in order. Demos hold field name -> value.

    Attributes:
        layout: this predictor's own; None = the candidate's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    instructions: str
    demos: tuple[dict[str, JsonValue], ...] = ()
    layout: Layout | None = None


class Candidate(BaseModel):
    """A Layout, and per predictor (named as `program.named_predictors()` names it) a PredictorPrompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    layout: Layout
    predictors: dict[str, PredictorPrompt]

    @classmethod
    def of_program(cls, program: "dspy.Module", layout: Layout) -> "Candidate":
        """Return the candidate that leaves `program` as it is, under `layout`."""
        return cls(
            layout=layout,
            predictors={
                name: PredictorPrompt(
                    instructions=predictor.signature.instructions,
                    demos=tuple(_plain(demo) for demo in predictor.demos),
                )
                for name, predictor in program.named_predictors()
            },
        )

    def key(self) -> str:
        """Return the sha256 hex digest of the canonical JSON: equal candidates, equal keys, on every machine."""
        values = self.model_dump(mode="json")
        for prompt in values["predictors"].values():
            if prompt["layout"] is None:
                # Candidates of before predictors had layouts of their own keep their keys.
                del prompt["layout"]
        text = json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()

    def layout_of(self, predictor: str) -> Layout:
        """Return the layout of the predictor with this name."""
        return self.predictors[predictor].layout or self.layout

    def apply(self, program: "ProgramT") -> "ProgramT":
        """Change `program` in place and return it: its predictors carry this layout, these instructions and demos.

        The layout travels with each predictor (through copies and `dump_state`), so nothing global is configured.

        Raises:
            ConfigError: the candidate's predictors are not the program's.
        """
        from promptopt.layout.predictor import bind_layout

        predictors = dict(program.named_predictors())
        if predictors.keys() != self.predictors.keys():
            raise ConfigError(
                f"The candidate is for predictors {sorted(self.predictors)}, the program has {sorted(predictors)}. "
                "Apply it to the program it was found for."
            )
        for name, predictor in predictors.items():
            prompt = self.predictors[name]
            predictor.signature = predictor.signature.with_instructions(prompt.instructions)
            predictor.demos = [dict(demo) for demo in prompt.demos]
            bind_layout(predictor, self.layout_of(name))
        return program

    def save(self, path: str | Path) -> None:
        """Write the candidate as JSON, atomically."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(self.model_dump_json(indent=2) + "\n")
        os.replace(name, target)


def load_candidate(path: str | Path) -> Candidate:
    """Return the candidate that `Candidate.save` wrote.

    Raises:
        ConfigError: the file is missing or is not a candidate.
    """
    try:
        return Candidate.model_validate_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The candidate file {str(path)!r} cannot be read: {error.strerror}.") from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{str(path)!r} is not a candidate file ({str(error).splitlines()[0]}). Candidates are written by "
            "`Candidate.save` and by `promptopt search`, as search/candidate.json."
        ) from error


def _plain(demo: object) -> dict[str, JsonValue]:
    values = demo.toDict() if hasattr(demo, "toDict") else dict(demo)  # type: ignore[call-overload]
    return {str(name): value for name, value in values.items() if not str(name).startswith("dspy_")}
