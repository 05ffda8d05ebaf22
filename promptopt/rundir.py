"""The run directory: stages as folders, finished only when `stage.json` stands; files that survive a kill.

    runs/<name>/
      <stage>/inputs.json    what the stage was started with (a hash); written first
      <stage>/stage.json     what it made; written last, atomically
      <stage>.<hash>/        the same stage of another configuration, set aside, never deleted

Knows no stage by name.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, JsonValue

from promptopt.errors import ConfigError, StageError

RecordT = TypeVar("RecordT", bound=BaseModel)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically: a reader, or the next run after a kill, sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: BaseModel | JsonValue) -> None:
    """Write a record or a JSON value to `path` atomically."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    write_text(path, json.dumps(plain, ensure_ascii=False, indent=2) + "\n")


def read_json(path: Path, model: type[RecordT]) -> RecordT:
    """Return the record in `path`.

    Raises:
        StageError: the file is missing.
    """
    try:
        return model.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StageError(
            f"{path} is missing. An earlier stage writes it: `promptopt run` runs every stage that is not finished."
        ) from error


def append_jsonl(path: Path, record: BaseModel) -> None:
    """Append one record as a line of `path` and flush it to the operating system, so that a killed process keeps it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(record.model_dump_json() + "\n")


def read_jsonl(path: Path, model: type[RecordT]) -> list[RecordT]:
    """Return the records in `path`; no file, no records. A last line torn by a kill is cut off the file."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)
    return [model.model_validate_json(line) for line in data[:whole].splitlines() if line.strip()]


def write_jsonl(path: Path, records: "list[RecordT] | tuple[RecordT, ...]") -> None:
    """Write records as JSON lines, atomically."""
    write_text(path, "".join(record.model_dump_json() + "\n" for record in records))


def hash_inputs(value: JsonValue) -> str:
    """Return the first 16 hex digits of the sha256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()[:16]


class Stage:
    """One stage's folder. Made by `RunDir.stage`."""

    def __init__(self, path: Path, inputs: str) -> None:
        self.path = path
        self.inputs = inputs

    @property
    def complete(self) -> bool:
        """Whether the stage has finished with these inputs."""
        return (self.path / "stage.json").exists()

    def finish(self, outputs: dict[str, JsonValue] | None = None, seconds: float | None = None) -> None:
        """Write stage.json, which makes the stage complete; `seconds` is how long the last attempt took."""
        write_json(self.path / "stage.json", {"inputs": self.inputs, "seconds": seconds, "outputs": outputs or {}})


class RunDir:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def stage(self, name: str, inputs: JsonValue) -> Stage:
        """Return the folder of stage `name` for `inputs`, ready to go on where it stopped.

        A folder that was started with other inputs is set aside under its own hash; one set aside earlier for these
        inputs is taken up again.
        """
        key = hash_inputs(inputs)
        folder = self.path / name
        if folder.exists() and _started_with(folder) != key:
            aside = self.path / f"{name}.{_started_with(folder) or 'unknown'}"
            for number in range(2, 1000):
                if not aside.exists():
                    break
                aside = self.path / f"{name}.{_started_with(folder) or 'unknown'}-{number}"
            folder.rename(aside)
        earlier = self.path / f"{name}.{key}"
        if not folder.exists() and earlier.exists():
            earlier.rename(folder)
        if not folder.exists():
            folder.mkdir(parents=True)
            write_json(folder / "inputs.json", {"inputs": key, "of": inputs})
        return Stage(folder, key)

    def finished(self, name: str, inputs: JsonValue) -> Stage | None:
        """Return stage `name` if it has finished with `inputs`, without touching the folder."""
        key = hash_inputs(inputs)
        for folder in (self.path / name, self.path / f"{name}.{key}"):
            stage = Stage(folder, key)
            if _started_with(folder) == key and stage.complete:
                return stage
        return None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process.

        Raises:
            ConfigError: another process is working in this folder.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.path / ".lock", timeout=0):
                yield
        except Timeout as error:
            raise ConfigError(
                f"Another promptopt process is working in {self.path}. Wait for it, stop it, or set another run_dir."
            ) from error


def _started_with(folder: Path) -> str:
    try:
        return str(json.loads((folder / "inputs.json").read_text(encoding="utf-8"))["inputs"])
    except (OSError, ValueError, KeyError):
        return ""
