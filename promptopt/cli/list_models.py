"""`promptopt models`: what GGUF and Hugging Face models are at hand."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from promptopt.errors import ConfigError
from promptopt.lm.models import find_models
from promptopt.starter.locate import starter_dir


def print_models(folders: Sequence[Path]) -> int:
    """Print a table of the models in `folders`, in the usual places, and the starter model."""
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        raise ConfigError(f"Not a folder: {', '.join(missing)}. Give folders that hold GGUF files or HF model folders.")
    table = Table("format", "architecture", "weights", "parameters", "context", "size", "note", title="Models at hand")
    table.add_column("model", overflow="fold", min_width=24)
    for model in find_models([starter_dir().parent, *folders]):
        table.add_row(
            model.format,
            model.architecture,
            model.precision,
            f"{model.n_params / 1e6:.1f}M" if model.n_params else "",
            str(model.n_ctx_train or ""),
            f"{model.size_bytes / 1e6:.1f} MB",
            model.problem,
            str(model.path),
        )
    console = Console()
    console.print(table)
    console.print("Looked into: folders given, $PROMPTOPT_MODELS, ./models, the Hugging Face cache.", highlight=False)
    return 0
