"""Where the embedded starter model lies: a Hugging Face folder inside the installed package."""

import pathlib


def starter_dir() -> pathlib.Path:
    """Returns the folder with the starter model's config, weights, tokenizer, chat template and model card."""
    return pathlib.Path(__file__).resolve().parent / "model"
