"""What the GPU benchmarks share: their options, and what they do without a GPU."""

import argparse
import platform
import sys
from importlib import metadata
from pathlib import Path

from engine_bench.report import cpu_model
from gpu_bench.shapes import REAL, SHAPES

from promptopt.finetune.base_model import training_device

LIBRARIES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "flash-attn", "unsloth")


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the common options."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a tiny model and few steps: does the code run?")
    parser.add_argument("--shapes", default=",".join(REAL), help=f"of {', '.join(SHAPES)}, or folders of models")
    parser.add_argument("--folder", type=Path, default=Path("runs/gpu_bench"), help="keeps random models")
    parser.add_argument("--quantization", choices=("nf4", "none"), default="nf4")
    return parser


def require_device(device: str) -> None:
    """Leave with a message and exit status 0 where `device` is not there."""
    import torch

    if device == "cuda" and training_device() != "cuda":
        print("Skipped: no CUDA device here. `--device cpu --tiny` runs the same code on a tiny model.")
        sys.exit(0)
    if device == "cpu" and training_device() == "cuda":
        print("Skipped: --device cpu on a machine with a GPU; set CUDA_VISIBLE_DEVICES= (empty) as well.")
        sys.exit(0)
    if device == "cpu":
        torch.set_num_threads(1)


def hardware(device: str) -> str:
    """Return one line: the device and the versions of the libraries."""
    import torch

    if device == "cuda":
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        name = f"{torch.cuda.get_device_name()}, {memory:.0f} GiB"
    else:
        name = f"{cpu_model()}, {torch.get_num_threads()} thread(s)"
    found = []
    for library in LIBRARIES:
        try:
            found.append(f"{library} {metadata.version(library)}")
        except metadata.PackageNotFoundError:
            continue
    return f"{name}; Python {platform.python_version()}, {', '.join(found)}"
