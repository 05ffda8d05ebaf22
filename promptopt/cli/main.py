"""The command line: parse arguments, call one function, print. Heavy imports happen after parsing, never before."""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptopt.cli import ask, compare, inspect_data, judge, matrix, publish, samples, serve, synthesize
from promptopt.errors import PromptoptError

if TYPE_CHECKING:
    from promptopt.config.experiment import ExperimentConfig

STAGE_HELP = {
    "search": "search prompts, and training recipes where the model can be tuned, in one study",
    "distill": "write the accepted answers as training rows of the best student prompt",
    "finetune": "train LoRA weights on the distilled rows (QLoRA), or take those of the study",
    "export": "merge, convert to GGUF, quantize, prove parity",
    "evaluate": "measure every step on the test split",
    "report": "write report.md",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and return its exit code.

    0: done. 2: something the user can act on went wrong; one clear message says what, and no traceback follows.
    """
    arguments = _parser().parse_args(argv)
    # Programs and signatures are found from the working directory, as `python -m` would find them.
    sys.path.insert(0, os.getcwd())
    try:
        command: Callable[[argparse.Namespace], int] = arguments.command
        return command(arguments)
    except KeyboardInterrupt:
        return _fail("Stopped by Ctrl-C. Everything finished is kept; the same command goes on from here.")
    except PromptoptError as error:
        return _fail(str(error))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _fail(
                f"The disk is full{f' (writing {error.filename})' if error.filename else ''}. Everything finished is "
                "kept; free some space and give the same command again."
            )
        where = f" ({error.filename})" if error.filename else ""
        return _fail(
            f"{error.strerror or error}{where}. Check the path and its permissions, or name another folder (--run-dir)."
        )


class _CommandParser(argparse.ArgumentParser):
    """Takes no abbreviated options: they would mean another one as soon as a longer name comes in."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="promptopt",
        description="Find the best prompt for a small model, move the behaviour into its weights, get one GGUF.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_CommandParser)
    run = commands.add_parser("run", help="all stages of an experiment; goes on where it stopped")
    _experiment_arguments(run, None)
    for name, text in STAGE_HELP.items():
        _experiment_arguments(commands.add_parser(name, help=text), name)
    worker = commands.add_parser("worker", help="help with a study that `run` or `search` began, from any machine")
    _experiment_arguments(worker, None)
    worker.set_defaults(command=_worker)
    plan = commands.add_parser("plan", help="memory and time of an experiment, before anything is loaded")
    _experiment_argument(plan)
    plan.add_argument("--gpu", metavar="NAME", help="a card to plan for, e.g. 'RTX 4090' (default: this machine)")
    plan.add_argument("--device", choices=("cpu", "cuda"), help="of this machine")
    plan.add_argument("--rows", type=int, help="training rows to plan for (default: what the data comes to)")
    plan.set_defaults(command=_plan)
    validate = commands.add_parser("validate", help="report all problems of experiment files at once")
    validate.add_argument("files", nargs="*", type=Path, help="default: experiments/*/*.yaml")
    validate.set_defaults(command=_validate)
    needed = commands.add_parser("samples", help="how many examples it takes to see a difference")
    samples.add_arguments(needed)
    needed.set_defaults(command=samples.print_samples)
    question = commands.add_parser("ask", help="ask the program that a GGUF carries")
    ask.add_arguments(question)
    question.set_defaults(command=ask.ask)
    upload = commands.add_parser("publish", help="upload a finished run to a Hub; private, and a dry run by default")
    publish.add_arguments(upload)
    upload.set_defaults(command=publish.publish)
    _data_commands(commands.add_parser("data", help="look at data, or let a teacher write some"))
    judge.add_commands(commands.add_parser("judge", help="measure how far a judge agrees with people"))
    compared = commands.add_parser("compare", help="one program on several GGUFs, each with its best known prompt")
    _experiment_arguments(compared, None)
    compare.add_arguments(compared)
    compared.set_defaults(command=_compare)
    crossed = commands.add_parser("matrix", help="the test answers of finished runs by any metrics, in one table")
    matrix.add_arguments(crossed)
    crossed.set_defaults(command=matrix.matrix)
    served = commands.add_parser("serve", help="answer OpenAI's HTTP requests with a GGUF")
    serve.add_arguments(served)
    served.set_defaults(command=serve.serve_model)
    models = commands.add_parser("models", help="list the GGUF and Hugging Face models at hand")
    models.add_argument("folders", nargs="*", type=Path, help="more folders to look into")
    models.set_defaults(command=_models)
    doctor = commands.add_parser("doctor", help="what this machine can do, and what is missing")
    doctor.add_argument(
        "--fetch-converter",
        action="store_true",
        help="download llama.cpp's converter (77 MB, 2 are kept) for exports beyond Llama and Qwen2",
    )
    doctor.set_defaults(command=_doctor)
    parser.add_argument("--version", action=_PrintVersion, nargs=0, help="print the version and exit")
    return parser


def _data_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    inspect = commands.add_parser("inspect", help="rows, fields, lengths, languages, duplicates, leaks between splits")
    inspect_data.add_arguments(inspect)
    inspect.set_defaults(command=inspect_data.inspect_data)
    written = commands.add_parser("synthesize", help="let a teacher LM write rows over documents or for keywords")
    synthesize.add_arguments(written)
    written.set_defaults(command=_synthesize)


def _synthesize(arguments: argparse.Namespace) -> int:
    _quiet_libraries()
    return synthesize.synthesize(arguments)


def _experiment_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", type=Path, metavar="EXPERIMENT.yaml")
    parser.add_argument("--run-dir", type=Path, help="folder of the run (default: runs/<name>)")


def _experiment_arguments(parser: argparse.ArgumentParser, only: str | None) -> None:
    _experiment_argument(parser)
    parser.add_argument("--storage", metavar="URL", help="the study's database (search.storage); workers share it")
    parser.add_argument("--artifacts", metavar="PLACE", help="folder or s3:// address that all workers see")
    if only in (None, "evaluate"):
        parser.add_argument(
            "--open-test-again", default="", metavar="WHY", help="read test rows that were measured on before"
        )
    parser.set_defaults(command=_run, only=only, open_test_again="")


def _run(arguments: argparse.Namespace) -> int:
    config = _experiment(arguments)
    from promptopt.cli.live import LiveProgress, print_outcome
    from promptopt.pipeline.run import run_experiment

    _quiet_libraries()
    with LiveProgress(config.name) as progress:
        folder = run_experiment(config, progress, arguments.only, open_test_again=arguments.open_test_again)
    if arguments.only in (None, "evaluate", "report"):
        print_outcome(folder)
    else:
        print(f"Stage {arguments.only} is finished: {folder / arguments.only}")
    return 0


def _worker(arguments: argparse.Namespace) -> int:
    config = _experiment(arguments)
    from promptopt.cli.live import LiveProgress
    from promptopt.pipeline.run import run_worker

    _quiet_libraries()
    with LiveProgress(f"{config.name} (worker)") as progress:
        trials = run_worker(config, progress)
    print(f"The study is finished; {trials} of its trials ran here.")
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    return compare.compare(_experiment(arguments), arguments, _quiet_libraries)


def _experiment(arguments: argparse.Namespace) -> "ExperimentConfig":
    """Return the experiment with what the command line changes in it."""
    from promptopt.config.load import load_experiment

    config = load_experiment(arguments.experiment)
    if arguments.run_dir is not None:
        config = config.model_copy(update={"run_dir": str(arguments.run_dir)})
    given = {"storage": arguments.storage, "artifacts": arguments.artifacts}
    changes = {name: value for name, value in given.items() if value is not None}
    return config.model_copy(update={"search": config.search.model_copy(update=changes)}) if changes else config


def _quiet_libraries() -> None:
    """Silence DSPy's warnings about truncated answers: here they are data, and there are thousands of them."""
    import logging

    logging.getLogger("dspy").setLevel(logging.ERROR)


def _validate(arguments: argparse.Namespace) -> int:
    from promptopt.cli.validate import validate_files

    return validate_files(arguments.files or sorted(Path("experiments").glob("*/*.yaml")))


def _plan(arguments: argparse.Namespace) -> int:
    from promptopt.cli.plan import print_plan

    return print_plan(arguments)


def _models(arguments: argparse.Namespace) -> int:
    from promptopt.cli.list_models import print_models

    return print_models(arguments.folders)


def _doctor(arguments: argparse.Namespace) -> int:
    if arguments.fetch_converter:
        from promptopt.export.converter_source import fetch_converter

        print(f"llama.cpp's converter is in {fetch_converter()}")
        return 0
    from promptopt.cli.doctor import print_doctor

    return print_doctor()


class _PrintVersion(argparse.Action):
    """Looks the version up only when asked: `importlib.metadata` would be a third of the time of `--help`."""

    def __call__(self, parser: argparse.ArgumentParser, *arguments: object) -> None:
        print(_version())
        parser.exit()


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"promptopt {version('promptopt')}"
    except PackageNotFoundError:
        return "promptopt (not installed)"


def _fail(message: str) -> int:
    print(f"promptopt: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
