"""`promptopt judge`: how far a judge can be believed. Prints; the measuring is the pipeline's."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptopt.evaluation.calibration import Calibration, JudgeAgreement


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Declare `promptopt judge calibrate`."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    calibrating = commands.add_parser("calibrate", help="agreement of a judge with human labels, beside its floor")
    calibrating.add_argument("--judge", choices=("reference", "rag", "criteria"), default="reference")
    calibrating.add_argument("--lm", required=True, metavar="MODEL", help="a .gguf file, or a model as DSPy names it")
    calibrating.add_argument("--api-base", metavar="URL", help="address of an OpenAI-compatible server")
    calibrating.add_argument(
        "--data", default="evouna", metavar="evouna|begin|FILE.jsonl", help="labelled answers (default: evouna)"
    )
    calibrating.add_argument("--limit", type=int, metavar="N", help="answers, drawn at random (default: all)")
    calibrating.add_argument("--criteria", metavar="TEXT", help="for every answer, where the file has none")
    calibrating.add_argument("--explain", action="store_true", help="let the judge explain itself first")
    calibrating.add_argument("--n-ctx", type=int, default=8192, metavar="N", help="context of a GGUF (default: 8192)")
    calibrating.add_argument("--threads", type=int, metavar="N", help="CPU threads of a GGUF")
    calibrating.add_argument("--out", type=Path, metavar="FOLDER", help="default: runs/judge-<judge>-<data>-<model>")
    calibrating.set_defaults(command=calibrate_judge)


def calibrate_judge(arguments: argparse.Namespace) -> int:
    """Calibrate, print the table and return 0."""
    from pydantic import ValidationError
    from rich.console import Console

    from promptopt.config.judge import JudgeConfig
    from promptopt.config.load import describe_problems
    from promptopt.errors import ConfigError
    from promptopt.pipeline.judging import CALIBRATION, calibrate

    lm: dict[str, Any] = {"kind": "server", "model": arguments.lm, "api_base": arguments.api_base}
    if arguments.lm.endswith(".gguf"):
        lm = {"kind": "gguf", "path": arguments.lm, "n_ctx": arguments.n_ctx, "n_threads": arguments.threads}
    asked = {"kind": "judge", "judge": arguments.judge, "lm": lm, "explain": arguments.explain}
    try:
        config = JudgeConfig.model_validate({**asked, "criteria": arguments.criteria})
    except ValidationError as error:
        raise ConfigError("; ".join(describe_problems(error, JudgeConfig))) from error
    folder = arguments.out or Path("runs") / _folder_name(arguments)
    console = Console()
    with console.status("judging") as status:
        found = calibrate(
            config, arguments.data, arguments.limit, folder,
            on_answer=lambda done, of: status.update(f"judging: {done} of {of}"),
        )  # fmt: skip
    _print(console, found)
    console.print(f"Written: {folder / CALIBRATION}", highlight=False, soft_wrap=True)
    return 0


def _folder_name(arguments: argparse.Namespace) -> str:
    model = arguments.lm.rpartition("/")[2].removesuffix(".gguf")
    name = f"judge-{arguments.judge}-{Path(arguments.data).stem}-{model}"
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)


def _print(console: Any, found: "Calibration") -> None:
    from rich.table import Table

    from promptopt.evaluation.calibration import beats_floor

    table = Table(title=f"{found.judge.n} labelled answers of {found.data}, {found.right:.0%} right")
    for number, title in enumerate(("", "decided", "agreement", "95 % interval", "kappa", "AUROC")):
        table.add_column(title, justify="left" if number == 0 else "right")
    table.add_row(*_cells(f"{found.judge.judge} ({', '.join(found.lms)})", found.judge))
    if found.floor is not None:
        table.add_row(*_cells(f"no LM: {found.floor.judge}", found.floor))
    console.print(table)
    for reason, count in found.judge.undecided.items():
        console.print(f"{count} without a verdict: {reason}", highlight=False, markup=False)
    if found.published:
        console.print(f"Floor to beat, on all answers: {found.published}.", highlight=False)
    verdict = "beats" if beats_floor(found) else "does not beat"
    if found.floor is not None:
        console.print(f"By AUROC this judge {verdict} the judge without an LM.", highlight=False)


def _cells(name: str, said: "JudgeAgreement") -> list[str]:
    numbers = [_number(value) for value in (said.agreement, said.kappa, said.auroc)]
    interval = f"{_number(said.agreement_low)} to {_number(said.agreement_high)}" if said.decided else ""
    return [name, f"{said.decided} of {said.n}", numbers[0], interval, numbers[1], numbers[2]]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
