"""Programs into GGUF files and out of them again: what `export` writes there, and `load_gguf_program`.

No code is imported because a file names it: a program of one predictor comes back from its signature alone, any other
must be passed by whoever loads it.
"""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import dspy

from promptopt.candidate import Candidate
from promptopt.deploy.signature_json import recorded_spec, signature_of_record, signature_record, word_as_recorded
from promptopt.errors import ConfigError
from promptopt.layout.dspy_adapter import signature_spec
from promptopt.layout.predictor import bind_layout
from promptopt.layout.spec import Layout
from promptopt.lm.gguf_info import read_gguf
from promptopt.lm.gguf_program import GgufProgram, carries_program, read_gguf_program
from promptopt.lm.llama_cpp.facade import LlamaCpp
from promptopt.records import AnswerSettings, SignatureRecord

ALONE = "self"
"""DSPy's name for the predictor of a program that is a predictor."""


def is_its_predictor(program: dspy.Module) -> bool:
    """Return whether `program` does nothing but ask its one predictor (dspy.Predict, dspy.ChainOfThought)."""
    return len(program.named_predictors()) == 1 and type(program).forward in (
        dspy.Predict.forward,
        dspy.ChainOfThought.forward,
    )


def gguf_program(
    program: dspy.Module, candidate: Candidate, settings: AnswerSettings, *, path: str, experiment: str
) -> GgufProgram:
    """Return what a GGUF that answers as `program` under `candidate` has to carry.

    Args:
        settings: how it was measured.
        path: the program's import path.
    """
    signatures: dict[str, SignatureRecord] = {}
    needs = _needs(program)
    try:
        signatures = {name: signature_record(predictor.signature) for name, predictor in program.named_predictors()}
    except ConfigError as error:
        needs = needs or str(error)
    return GgufProgram(candidate, signatures, path, experiment, _made_by(), needs, settings)


def load_gguf_program(path: Path | str, *, program: dspy.Module | None = None, **options: Any) -> dspy.Module:
    """Return the program that a GGUF of `promptopt export` carries, answering with that GGUF.

    Prompts are those the pipeline evaluated, token for token. Pydantic models come back from their JSON schema: with
    fields, types and limits, without validators and methods. `program.get_lm().close()` frees the model.

    Args:
        path: the .gguf file.
        program: the program it was made for; needed where that does more than ask one predictor. It is changed.
        options: of `LlamaCpp`; n_ctx, max_tokens, temperature and seed are otherwise those of the evaluation.

    Raises:
        ModelError: the file is missing, damaged, or carries no program.
        ConfigError: the program must be passed, or the one passed is not the one that was exported.
        MissingExtraError: llama-cpp-python is not installed.
    """
    carried = read_gguf_program(path)
    made = _made(carried, path) if program is None else _checked(carried, program, path)
    defaults = {} if carried.settings is None else carried.settings.model_dump()
    made.set_lm(LlamaCpp(path, **{**defaults, **options}))
    return made


def plain_program(path: Path | str, signature: str, **options: Any) -> dspy.Module:
    """Return a program for a GGUF that carries none: `dspy.Predict` on `signature`, in DSPy's own layout.

    Args:
        signature: e.g. "document, question -> answer".
        options: of `LlamaCpp`.

    Raises:
        ConfigError: the signature does not parse, or the file carries a program of its own.
        ModelError: the file cannot be used.
    """
    if carries_program(read_gguf(path)):
        raise ConfigError(f"{path} carries a program of its own; leave the signature out.")
    try:
        predictor = dspy.Predict(signature)
    except (ValueError, SyntaxError, TypeError, NameError) as error:
        raise ConfigError(
            f'The signature {signature!r} does not parse ({error}). Write inputs, an arrow and outputs: "document, '
            'question -> answer".'
        ) from error
    bind_layout(predictor, Layout())
    predictor.set_lm(LlamaCpp(path, **options))
    return predictor


def _made(carried: GgufProgram, path: Path | str) -> dspy.Module:
    """Return the program as its signature says it, under the candidate."""
    if carried.needs_program or len(carried.signatures) != 1:
        raise ConfigError(
            f"{path} was made for the program {carried.program!r}, which does not come back from the file alone: "
            f"{carried.needs_program.rstrip('.') or 'it has several predictors'}. Import it yourself and pass it: "
            "po.load_gguf_program(path, program=...)."
        )
    ((name, record),) = carried.signatures.items()
    if carried.candidate.predictors.keys() != {name}:
        raise ConfigError(
            f"{path} carries the signature of {name!r} and prompts of {sorted(carried.candidate.predictors)}. "
            "Export the model again."
        )
    predictor = dspy.Predict(signature_of_record(record))
    alone = carried.candidate.model_copy(update={"predictors": {ALONE: carried.candidate.predictors[name]}})
    alone.apply(predictor)
    word_as_recorded(predictor.signature, record)
    return predictor


def _checked(carried: GgufProgram, program: dspy.Module, path: Path | str) -> dspy.Module:
    """Return `program` under the candidate, having checked that its prompts are those that were evaluated."""
    program = carried.candidate.apply(program)
    for name, predictor in program.named_predictors():
        record = carried.signatures.get(name)
        if record is None:
            continue
        now, then = signature_spec(predictor.signature), recorded_spec(record)
        if (now.inputs, now.outputs) != (then.inputs, then.outputs):
            raise ConfigError(
                f"The predictor {name!r} of the program is not the one that {path} was made for: its fields are "
                f"{_fields(now.inputs + now.outputs)}, they were {_fields(then.inputs + then.outputs)}, or their "
                "descriptions differ. Pass the program as it was exported, or export again."
            )
    return program


def _fields(fields: Any) -> list[str]:
    return [f"{field.name}: {field.type_name}" for field in fields]


def _needs(program: dspy.Module) -> str:
    """Return why `program` is more than its signature; "" if it is not."""
    predictors = program.named_predictors()
    if len(predictors) != 1:
        return f"it has {len(predictors)} predictors ({', '.join(name for name, _ in predictors)})"
    if not is_its_predictor(program):
        return f"its class {type(program).__name__} does more than ask its predictor"
    if predictors[0][1].config:
        return f"its predictor has settings of its own ({', '.join(predictors[0][1].config)})"
    return ""


def _made_by() -> str:
    try:
        return f"promptopt {version('promptopt')}"
    except PackageNotFoundError:
        return "promptopt (not installed)"
