"""`promptopt data synthesize`: rows that a teacher LM writes over documents or for keywords."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `promptopt data synthesize` takes."""
    parser.add_argument("config", type=Path, metavar="SYNTHESIS.yaml")
    parser.add_argument("--rows", type=int, metavar="N", help="how many are wanted (default: the file's, else 1000)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="what is written goes there (default: the file's)")


def synthesize(arguments: argparse.Namespace) -> int:
    """Write the rows, print what they cost, and return 0.

    Raises:
        PromptoptError: see `promptopt.pipeline.synthesizing.synthesize`.
    """
    from rich.console import Console

    from promptopt.config.load import load_config
    from promptopt.config.synthesis import SynthesisConfig
    from promptopt.errors import ConfigError

    config = load_config(arguments.config, SynthesisConfig, "synthesis")
    if arguments.rows is not None:
        if arguments.rows < 1:
            raise ConfigError(f"--rows is {arguments.rows}; allowed are whole numbers from 1.")
        config = config.model_copy(update={"rows": arguments.rows})
    if arguments.out is not None:
        config = config.model_copy(update={"out": str(arguments.out)})
    from promptopt.pipeline.synthesizing import REPORT, ROWS, output_folder
    from promptopt.pipeline.synthesizing import synthesize as write_rows

    with Console(stderr=True).status("reading the documents, starting the teacher") as status:
        report = write_rows(config, lambda rows, asked: status.update(f"{rows} of {config.rows} rows, {asked} replies"))
    for line in report.lines():
        print(line)
    folder = output_folder(config)
    print(f"written: {folder / ROWS}; the report is {folder / REPORT}")
    return 0
