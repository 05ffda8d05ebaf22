"""Optional dependencies, each with the line that installs it.

Heavy packages are imported where they are used, through `require`, so that `promptopt --help` needs none of them.
"""

import importlib
from types import ModuleType

from promptopt.errors import MissingExtraError

EXTRA_OF_MODULE = {
    "llama_cpp": "llama-cpp",
    "torch": "finetune",
    "transformers": "finetune",
    "peft": "finetune",
    "trl": "finetune",
    "bitsandbytes": "finetune",
    "datasets": "data",
    "accelerate": "finetune",
    "gguf": "export",
    "safetensors": "export",
    "bm25s": "retrieval",
    "charset_normalizer": "data",
    "docx": "data",
    "pyarrow": "data",
    "pypdf": "data",
    "tokenizers": "data",
    "httpx": "hub",
    "huggingface_hub": "hub",
    "starlette": "serve",
    "uvicorn": "serve",
    "jsonschema": "metrics",
    "referencing": "metrics",
    "ipadic": "metrics",
    "MeCab": "metrics",
    "rouge_score": "metrics",
    "sacrebleu": "metrics",
    "sqlglot": "metrics",
}
"""Top-level module name -> the extra of `promptopt` that installs it."""


def install_line(module: str) -> str:
    """Return the shell line that installs the extra which `module` belongs to."""
    return f"pip install 'promptopt[{EXTRA_OF_MODULE[module]}]'"


def require(module: str) -> ModuleType:
    """Import `module` (a key of `EXTRA_OF_MODULE`) or say how to install it.

    Raises:
        MissingExtraError: the module is not installed. An installed but broken module raises its own ImportError.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise MissingExtraError(
            f"The Python package {module!r} is needed here and is not installed. Install it: {install_line(module)}"
        ) from error
