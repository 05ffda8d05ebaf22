"""Writes a checkpoint as a Hugging Face folder in half precision, and prints where the weights came from.

Run: ``python export.py --checkpoint FILE --tokenizer FOLDER --out FOLDER``.
"""

import argparse
import json
import pathlib
import shutil
from typing import Any

import model as model_module
import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def export(checkpoint: pathlib.Path | None, tokenizer: pathlib.Path, out: pathlib.Path) -> dict[str, int]:
    """Writes the folder; without a checkpoint the weights are untrained.

    Args:
        checkpoint: The file that `train.py` saves, or None.
        tokenizer: The folder that `tokenizer.py` wrote.
        out: The folder to write into.

    Returns:
        Steps, tokens seen, parameters and bytes of weights.
    """
    tok = PreTrainedTokenizerFast.from_pretrained(tokenizer)
    state: dict[str, Any] = torch.load(checkpoint, weights_only=False) if checkpoint else {"seen": 0, "step": 0}
    net = model_module.build(len(tok), 0)
    if checkpoint:
        net.load_state_dict(state["model"])
    net.half()
    net.config.dtype = torch.float16
    net.generation_config = GenerationConfig(do_sample=False, eos_token_id=2, pad_token_id=0, max_new_tokens=128)
    out.mkdir(parents=True, exist_ok=True)
    net.save_pretrained(out)
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer / name, out / name)
    size = (out / "model.safetensors").stat().st_size
    return {"step": state["step"], "seen": state["seen"], "parameters": net.num_parameters(), "bytes": size}


def main() -> None:
    """Parses the command line and exports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=pathlib.Path)
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    print(json.dumps(export(args.checkpoint, args.tokenizer, args.out)))


if __name__ == "__main__":
    main()
