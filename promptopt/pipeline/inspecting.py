"""Composes `promptopt data inspect`: an experiment's data or a file, and a tokenizer where one is at hand."""

from pathlib import Path

from promptopt.config.experiment import ExperimentConfig
from promptopt.config.load import load_experiment
from promptopt.data.field_statistics import TokenCounter
from promptopt.data.inspection import Inspection, inspect_data, inspect_source
from promptopt.data.readers import source_for
from promptopt.errors import DataError, MissingExtraError, ModelError
from promptopt.extras import require
from promptopt.pipeline.models import model_source

_TOKENIZER_FILE = "tokenizer.json"


def inspect_target(target: Path, split: str | None = None, model: Path | None = None) -> Inspection:
    """Return what the data of an experiment file, or a data file or folder, looks like.

    Args:
        split: of a data set on disk that has several.
        model: GGUF or Hugging Face folder whose tokens are counted; None: the experiment's, where it is at hand.

    Raises:
        DataError: the data is missing, unreadable as a whole, or has no row that can be used.
        ConfigError: the experiment file is wrong.
        ModelError: there is no tokenizer in `model`.
        MissingExtraError: a format or tokenizer needs a package that is not installed.
    """
    if not target.exists():
        raise DataError(f"There is no file or folder {str(target)!r}. Give an experiment.yaml, or data.")
    counter = token_counter(model) if model else None
    name = str(model) if model else ""
    if target.suffix.lower() not in (".yaml", ".yml"):
        return inspect_source(source_for(target, split), count_tokens=counter).model_copy(update={"tokenizer": name})
    config = load_experiment(target)
    if counter is None:
        name, counter = _at_hand(config)
    return inspect_data(config.data, counter).model_copy(update={"tokenizer": name})


def token_counter(model: Path) -> TokenCounter:
    """Return what counts the tokens of texts as `model`, a GGUF or a Hugging Face folder, cuts them; loads no weights.

    Raises:
        ModelError: it is neither.
        MissingExtraError: the extra `llama-cpp` (GGUF) or `data` (folder) is not installed.
    """
    file = model / _TOKENIZER_FILE
    if file.is_file():
        tokenizer = require("tokenizers").Tokenizer.from_file(str(file))
        tokenizer.no_truncation()
        return lambda texts: [len(ids) for ids in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    if model.suffix.lower() != ".gguf":
        raise ModelError(
            f"{model} is neither a GGUF nor a folder with {_TOKENIZER_FILE}; tokens cannot be counted by it."
        )
    require("llama_cpp")
    from promptopt.lm.llama_cpp.model import LoadOptions, NativeModel

    vocabulary = NativeModel(model, LoadOptions(), generates=False, vocab_only=True).vocabulary
    return lambda texts: [len(vocabulary.tokenize(text, special=False)) for text in texts]


def _at_hand(config: ExperimentConfig) -> tuple[str, TokenCounter | None]:
    """Return the tokenizer of the experiment's model and its name; none where the model is not here yet."""
    try:
        source = model_source(config)
        model = source.hf_dir or source.gguf
        return (str(model), token_counter(model)) if model else ("", None)
    except (ModelError, MissingExtraError):
        return "", None
