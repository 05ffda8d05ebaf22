"""Which files of a finished run are published: those of the stage `export`, with the model card of `report`."""

import itertools
import json
from pathlib import Path
from typing import Any

from promptopt.config.load import load_experiment
from promptopt.deploy.hub import Upload
from promptopt.errors import ConfigError, StageError
from promptopt.pipeline.deployables import LORA_FOLDER, LORA_GGUF, MERGED, MODELFILE
from promptopt.pipeline.reporting import MODEL_CARD
from promptopt.pipeline.weights import ExportedModels
from promptopt.rundir import read_json

_ROAD = ("export", "evaluate", "report")


def run_folder(named: Path) -> Path:
    """Return the run that `named` means: a run's folder, or an experiment file.

    Raises:
        ConfigError: it is neither.
    """
    if named.is_dir():
        if not (named / "experiment.json").is_file():
            raise ConfigError(f"{named} is no run: it has no experiment.json. Name a folder below runs/.")
        return named
    config = load_experiment(named)
    return Path(config.run_dir) if config.run_dir else Path("runs") / config.name


def publishable(run: Path, *, full: bool = False) -> list[Upload]:
    """Return the files to upload, the model card first.

    Args:
        full: the f16 GGUF and the merged Hugging Face model too.

    Raises:
        StageError: a stage has not finished, or the model card is not that of the exported files.
    """
    _check_finished(run)
    exported = run / "export"
    models = read_json(exported / "models.json", ExportedModels)
    ggufs = [gguf.path for gguf in models.ggufs if full or gguf.quantization != "f16" or gguf.path == models.deployed]
    files = [Upload(run / "report" / MODEL_CARD, "README.md")]
    files += [Upload(exported / name, name) for name in (*ggufs, LORA_GGUF, MODELFILE) if (exported / name).is_file()]
    for folder in (LORA_FOLDER, *([MERGED] if full else [])):
        found = sorted(path for path in (exported / folder).glob("*") if path.is_file())
        files += [Upload(path, f"{folder}/{path.name}") for path in found]
    return files


def _check_finished(run: Path) -> None:
    for stage in _ROAD:
        if not (run / stage / "stage.json").is_file():
            raise StageError(
                f"The stage {stage!r} has not finished in {run}, and its files are published. Run `promptopt run` with "
                "the experiment's file first."
            )
    # Each stage notes the keys of those it was made from: a card must not speak of other files.
    for earlier, later in itertools.pairwise(_ROAD):
        if _inputs(run / later)["of"]["after"].get(earlier) != _inputs(run / earlier)["inputs"]:
            raise StageError(
                f"The stage {later!r} in {run} was made from another {earlier!r} than the one there. Run `promptopt "
                "run` with the experiment's file; what is finished is kept."
            )


def _inputs(stage: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((stage / "inputs.json").read_text(encoding="utf-8"))
    return found
