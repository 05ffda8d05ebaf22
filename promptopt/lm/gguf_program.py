"""The program that a GGUF carries in its `promptopt.*` keys: read from a header, and written as metadata.

    promptopt.schema_version   "1"
    promptopt.made_by          "promptopt 0.1.0"
    promptopt.experiment       name of the experiment
    promptopt.program          import path of the program; said to people, never imported
    promptopt.needs_program    why the signatures alone are not the program; "" = they are
    promptopt.signatures       predictor -> SignatureRecord, as JSON
    promptopt.candidate        layout, instructions and demos, as JSON
    promptopt.settings         AnswerSettings, as JSON

Everything is text and checked by schema; nothing in a file is run. Knows no DSPy: `deploy` makes programs of it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from promptopt.candidate import Candidate
from promptopt.errors import ModelError
from promptopt.lm.gguf_info import GgufInfo, read_gguf
from promptopt.records import AnswerSettings, SignatureRecord

SCHEMA_VERSION = "1"
_PREFIX = "promptopt."
_OLD = "it was exported before signatures were carried"

ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass(frozen=True)
class GgufProgram:
    """What a GGUF says about the program it was made for.

    Attributes:
        signatures: per predictor; empty where `needs_program` says why.
        settings: None in files older than this key.
    """

    candidate: Candidate
    signatures: dict[str, SignatureRecord]
    program: str
    experiment: str
    made_by: str
    needs_program: str = ""
    settings: AnswerSettings | None = None


def program_metadata(program: GgufProgram) -> dict[str, str]:
    """Return the GGUF keys that carry `program`."""
    signatures = {name: signature.model_dump(mode="json") for name, signature in program.signatures.items()}
    metadata = {
        "schema_version": SCHEMA_VERSION,
        "made_by": program.made_by,
        "experiment": program.experiment,
        "program": program.program,
        "needs_program": program.needs_program,
        "signatures": json.dumps(signatures, ensure_ascii=False),
        "candidate": program.candidate.model_dump_json(),
    }
    if program.settings is not None:
        metadata["settings"] = program.settings.model_dump_json()
    return {_PREFIX + key: value for key, value in metadata.items()}


def read_gguf_program(path: Path | str) -> GgufProgram:
    """Return the program that the GGUF at `path` carries.

    Raises:
        ModelError: as `read_gguf`; it carries none, a damaged one, or one of a newer promptopt.
    """
    info = read_gguf(path)
    if not carries_program(info):
        raise ModelError(
            f"{path} carries no program: it has no {_PREFIX}* keys, as `promptopt export` writes them. Name a GGUF of "
            'a finished run, or say what to ask: `promptopt ask --signature "document, question -> answer"`.'
        )
    version = _text(info, "schema_version")
    if version not in ("", SCHEMA_VERSION):
        raise ModelError(
            f"{path} carries a program in schema version {version}; this promptopt reads {SCHEMA_VERSION}. Install the "
            f"version that made it ({_text(info, 'made_by') or 'unknown'}) or a newer one."
        )
    settings = _text(info, "settings")
    return GgufProgram(
        candidate=_parsed(info, "candidate", Candidate),
        signatures=_signatures(info) if version else {},
        program=_text(info, "program"),
        experiment=_text(info, "experiment"),
        made_by=_text(info, "made_by"),
        needs_program=_text(info, "needs_program") if version else _OLD,
        settings=_parsed(info, "settings", AnswerSettings) if settings else None,
    )


def carries_program(info: GgufInfo) -> bool:
    """Return whether the header has a program of promptopt's."""
    return bool(_text(info, "candidate"))


def _text(info: GgufInfo, key: str) -> str:
    value = info.metadata.get(_PREFIX + key, "")
    return value if isinstance(value, str) else ""


def _signatures(info: GgufInfo) -> dict[str, SignatureRecord]:
    try:
        found = json.loads(_text(info, "signatures"))
        return {str(name): SignatureRecord.model_validate(values) for name, values in found.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise _damaged(info, "signatures", error) from error


def _parsed(info: GgufInfo, key: str, model: type[ModelT]) -> ModelT:
    try:
        return model.model_validate_json(_text(info, key))
    except ValidationError as error:
        raise _damaged(info, key, error) from error


def _damaged(info: GgufInfo, key: str, error: Exception) -> ModelError:
    reason = " ".join(str(error).split())[:160]
    return ModelError(
        f"The key {_PREFIX}{key} of {info.path} does not hold what promptopt writes there ({reason}). Export the model "
        "again, or pass the candidate and the program yourself."
    )
