"""Reads experiment files and resolves import paths: every problem of a file at once, with what is allowed."""

import difflib
import importlib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from promptopt.config.experiment import ExperimentConfig
from promptopt.errors import ConfigError

ConfigT = TypeVar("ConfigT", bound=BaseModel)


def load_experiment(path: Path) -> ExperimentConfig:
    """Return the experiment that the YAML file `path` describes; raises as `load_config`."""
    return load_config(path, ExperimentConfig, "experiment")


def load_config(path: Path, model: type[ConfigT], what: str) -> ConfigT:
    """Return the config that the YAML file `path` describes.

    Args:
        what: the file is for, used in messages.

    Raises:
        ConfigError: the file is missing, is not YAML, or has wrong keys or values; the message lists all of them.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"There is no {what} file {str(path)!r}. Give the path of {_example(what)}.yaml.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The {what} file {str(path)!r} cannot be read: {error}. It must be UTF-8 text.") from error
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping with keys {sorted(model.model_fields)}.")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [f"  {problem}" for problem in describe_problems(error, model)]
        raise ConfigError(f"{path} has {len(lines)} problem(s):\n" + "\n".join(lines)) from error


def _example(what: str) -> str:
    return f"an {what}" if what[0] in "aeiou" else f"a {what}"


def describe_problems(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Return one line per problem: where it stands, what was found, and what is allowed there."""
    lines = []
    for problem in error.errors(include_url=False):
        place = ".".join(str(part) for part in problem["loc"]) or "(top level)"
        if problem["type"] == "extra_forbidden":
            lines.append(f"{place}: no such key. {_allowed_keys(model, problem['loc'])}")
        elif problem["type"] == "missing":
            lines.append(f"{place}: is required and missing.")
        else:
            lines.append(f"{place}: {problem['msg']}; got {_shorten(problem.get('input'))}")
    return lines


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _allowed_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    allowed = _keys_at(model, location[:-1])
    if not allowed:
        return "Remove it."
    close = difflib.get_close_matches(str(location[-1]), allowed, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Allowed: {', '.join(sorted(allowed))}"


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the keys of the config model that `location` leads to; union members are named by their `kind`."""
    current: list[type[BaseModel]] = [model]
    for part in location:
        following: list[type[BaseModel]] = []
        for candidate in current:
            if part in candidate.model_fields:
                following.extend(_models_in(candidate.model_fields[str(part)].annotation))
        tagged = [member for member in current if _kind_of(member) == part]
        current = tagged or following or current
    return sorted({name for member in current for name in member.model_fields})


def _kind_of(model: type[BaseModel]) -> object:
    field = model.model_fields.get("kind")
    arguments = getattr(field.annotation, "__args__", ()) if field else ()
    return arguments[0] if arguments else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in _models_in(argument)]


def import_object(path: str, *, what: str) -> object:
    """Return the object named by the import path `module:name`.

    Args:
        path: e.g. `programs.document_qa:program`; modules are looked up in the working directory first.
        what: what the object is for, used in messages.

    Raises:
        ConfigError: the path is malformed, or the module or the name does not exist.
    """
    module_name, separator, name = path.partition(":")
    if not separator or not module_name or not name:
        raise ConfigError(f"The {what} {path!r} is not an import path. Write it as `module:name`.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"The {what} {path!r} cannot be imported: {error}. Run promptopt from the folder that holds "
            f"{module_name.split('.')[0]!r}."
        ) from error
    except Exception as error:
        raise ConfigError(
            f"The {what} {path!r} cannot be imported: {type(error).__name__}: {error}. The fault is in that module."
        ) from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        names = sorted(key for key in vars(module) if not key.startswith("_"))
        raise ConfigError(f"The {what} {path!r}: module {module_name!r} has no {name!r}. It has {names}.") from error
