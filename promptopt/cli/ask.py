"""`promptopt ask`: one question to a GGUF, answered by the program it carries."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptopt.errors import ConfigError, ParseError
from promptopt.extras import require

if TYPE_CHECKING:
    import dspy

OPTIONS = ("n_ctx", "max_tokens", "lora", "n_gpu_layers", "n_threads")
"""Arguments that go to `LlamaCpp` as they are, where they are given."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `promptopt ask` takes."""
    parser.add_argument("model", type=Path, metavar="MODEL.gguf")
    parser.add_argument(
        "--field", action="append", default=[], metavar="NAME=VALUE",
        help="an input; NAME=@FILE reads a UTF-8 file, without its last line break; NAME=@@x is the text @x",
    )  # fmt: skip
    parser.add_argument("--signature", help='for a GGUF that carries no program, e.g. "document, question -> answer"')
    parser.add_argument("--lora", action="append", metavar="LORA.gguf", help="LoRA weights on top of the model")
    parser.add_argument("--n-ctx", type=int, help="tokens of prompt and answer (default: as evaluated)")
    parser.add_argument("--max-tokens", type=int, help="longest answer (default: as evaluated)")
    parser.add_argument("--n-gpu-layers", type=int, help="-1 = all (default: 0)")
    parser.add_argument("--n-threads", type=int, help="CPU threads (default: the physical cores)")
    parser.add_argument("--json", action="store_true", help="print the output fields as one JSON object")


def ask(arguments: argparse.Namespace) -> int:
    """Print the output fields of one answer and return 0.

    Raises:
        ConfigError: a field is unknown, missing, not readable, or not of its type; the program cannot come back.
        ModelError: the model cannot be used, or carries no program and no signature was given.
        ParseError: the answer is not in the format of the layout.
    """
    require("llama_cpp")
    texts = _texts(arguments.field)
    given = {name: getattr(arguments, name) for name in OPTIONS}
    options = {name: value for name, value in given.items() if value is not None}
    program = _program(arguments.model, arguments.signature, options)
    try:
        answer = _answer(program, texts)
    finally:
        program.get_lm().close()
    if arguments.json:
        print(json.dumps(answer, ensure_ascii=False))
    else:
        for name, value in answer.items():
            print(f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
    return 0


def _program(model: Path, signature: str | None, options: dict[str, Any]) -> "dspy.Module":
    from promptopt.deploy.gguf_programs import load_gguf_program, plain_program

    return load_gguf_program(model, **options) if signature is None else plain_program(model, signature, **options)


def _answer(program: "dspy.Module", texts: dict[str, str]) -> dict[str, Any]:
    import logging

    from dspy.utils.exceptions import AdapterParseError

    from promptopt.deploy.inputs import typed_inputs
    from promptopt.evaluation.answer import plain_fields
    from promptopt.evaluation.evaluate import own_error

    # What DSPy would warn of is said below, once.
    logging.getLogger("dspy").setLevel(logging.ERROR)
    inputs = typed_inputs(program.predictors()[0].signature, texts)
    try:
        return dict(plain_fields(program(**inputs)))
    except AdapterParseError as error:
        raise ParseError(
            f"The answer is not in the format of the layout: {str(error.lm_response)[:200]!r}. Try a longer "
            "--max-tokens if it was cut off; small models fail at times, and `promptopt evaluate` counts how often."
        ) from error
    except Exception as error:
        # DSPy wraps what the engine raises.
        raise own_error(error) from error


def _texts(given: Sequence[str]) -> dict[str, str]:
    """Return field name -> text of the `--field` arguments."""
    texts: dict[str, str] = {}
    for one in given:
        name, separator, value = one.partition("=")
        if not separator or not name:
            raise ConfigError(f"--field {one!r} is not NAME=VALUE, e.g. --field question='Where is it?'.")
        if name in texts:
            raise ConfigError(f"--field {name} was given twice; give each input once.")
        texts[name] = _file_text(name, Path(value[1:])) if value[:1] == "@" != value[1:2] else value
        if value.startswith("@@"):
            texts[name] = value[1:]
    return texts


def _file_text(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise ConfigError(f"--field {name}: the file {str(path)!r} is not UTF-8 text ({error}).") from error
    except OSError as error:
        raise ConfigError(
            f"--field {name}: the file {str(path)!r} cannot be read ({error.strerror}). Write {name}=@@… for a text "
            "that begins with @."
        ) from error
