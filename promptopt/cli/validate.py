"""`promptopt validate`: every problem of every file, in one go, without running anything."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from promptopt.config.load import load_experiment
from promptopt.errors import ConfigError, PromptoptError


def validate_files(files: Sequence[Path]) -> int:
    """Print the problems of `files`; return 0 where there are none, else 2.

    Checked beyond the schema: the program and the metric can be imported, and the model's files exist.
    """
    if not files:
        raise ConfigError("There is nothing to validate: no file was given and experiments/*/*.yaml matches none.")
    console = Console()
    wrong = 0
    for path in files:
        problems = problems_of(path)
        wrong += bool(problems)
        console.print(f"{path}: {'ok' if not problems else ''}", highlight=False)
        for problem in problems:
            console.print(f"  {problem}", highlight=False, markup=False)
    console.print(f"{len(files)} file(s) checked, {wrong} with problems.", highlight=False)
    return 2 if wrong else 0


def problems_of(path: Path) -> list[str]:
    """Return the problems of one experiment file, each in one line."""
    try:
        config = load_experiment(path)
    except ConfigError as error:
        lines = str(error).splitlines()
        return [line.strip() for line in lines[1:]] or lines
    from promptopt.pipeline.context import RunContext, build_program
    from promptopt.pipeline.fields import check_fields
    from promptopt.pipeline.judging import experiment_metric
    from promptopt.pipeline.models import model_source
    from promptopt.pipeline.progress import Silent
    from promptopt.pipeline.training import check_training
    from promptopt.rundir import RunDir

    problems = []
    for check in (
        lambda: build_program(config.program),
        lambda: experiment_metric(config),
        lambda: model_source(config),
    ):
        try:
            check()
        except PromptoptError as error:
            problems.append(str(error))
    context = RunContext(config, RunDir(Path()), Silent())
    for check_together in (check_fields, check_training) if not problems else ():
        try:
            check_together(context)
        except PromptoptError as error:
            problems.append(str(error))
    return problems
