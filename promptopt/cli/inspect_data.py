"""`promptopt data inspect`: what an experiment's data, or a file of data, looks like."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `promptopt data inspect` takes."""
    parser.add_argument("target", type=Path, metavar="EXPERIMENT.yaml|FILE|FOLDER")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--split", help="of a data set on disk that has several")
    parser.add_argument(
        "--model", type=Path, help="GGUF or Hugging Face folder to count tokens with (default: the experiment's)"
    )


def inspect_data(arguments: argparse.Namespace) -> int:
    """Print what the data looks like and return 0.

    Raises:
        PromptoptError: see `promptopt.pipeline.inspecting.inspect_target`.
    """
    from rich.console import Console

    from promptopt.cli.inspection_tables import print_inspection
    from promptopt.pipeline.inspecting import inspect_target

    with Console(stderr=True).status("reading and comparing the rows"):
        found = inspect_target(arguments.target, arguments.split, arguments.model)
    if arguments.json:
        print(found.model_dump_json(indent=2))
    else:
        print_inspection(found, Console())
    return 0
