"""`promptopt plan`: memory and time of an experiment before anything is loaded, and what to change."""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from promptopt.config.load import load_experiment
from promptopt.errors import ConfigError
from promptopt.finetune.fitting import SPARE
from promptopt.finetune.gpus import find_gpu
from promptopt.finetune.this_machine import likely_device, of_gpu, this_machine
from promptopt.pipeline.context import RunContext
from promptopt.pipeline.planning import ExperimentPlan, plan_experiment
from promptopt.pipeline.progress import Silent
from promptopt.rundir import RunDir

_SHORT = 1e-3


def print_plan(arguments: argparse.Namespace) -> int:
    """Print the plan of an experiment; 0 also where it does not fit."""
    if arguments.gpu and arguments.device:
        raise ConfigError("--gpu and --device exclude each other: a named card, or this machine's CPU or card.")
    if arguments.rows is not None and arguments.rows < 1:
        raise ConfigError(f"--rows is {arguments.rows}; at least 1 is needed.")
    config = load_experiment(arguments.experiment)
    machine = of_gpu(find_gpu(arguments.gpu)) if arguments.gpu else this_machine(arguments.device or likely_device())
    folder = arguments.run_dir or config.run_dir or Path("runs") / config.name
    context = RunContext(config, RunDir(Path(folder)), Silent())
    try:
        plan = plan_experiment(context, machine, here=not arguments.gpu, rows=arguments.rows)
    finally:
        context.close_lms()
    _print(Console(), config.name, plan)
    return 0


def _print(console: Console, name: str, plan: ExperimentPlan) -> None:
    shape, rows, recipe = plan.shape, plan.rows, plan.resolved.recipe
    lines = [
        f"Plan of {name} for {plan.machine.name} ({_size(plan.machine.memory_bytes)}); nothing was loaded.",
        f"Model: {shape.parameters / 1e6:,.1f}M weights, {shape.layers} layers of width {shape.hidden}.",
        f"Training: {rows.rows:,} rows of {rows.mean:.0f} tokens on average, {rows.longest} at most, "
        f"{rows.mean_answer:.0f} of them answer; {recipe.batch_size} x {recipe.gradient_accumulation} rows per step.",
    ]
    if plan.resolved.reasons:
        lines += ["Recipe, where the experiment says nothing:", *(f"  {line}" for line in plan.resolved.lines())]
    for line in lines:
        console.print(line, highlight=False)
    console.print(_table("Memory of one training", ("part", "size"), _memory_rows(plan)))
    console.print(_verdict(plan), highlight=False)
    if plan.changes:
        console.print(_changes(plan))
    for line in _time_lines(plan):
        console.print(line, highlight=False)


def _memory_rows(plan: ExperimentPlan) -> list[tuple[str, str]]:
    unpacked = plan.unpacked and plan.resolved.recipe.base_quantization != "none"
    held = f"weights ({plan.resolved.recipe.base_quantization}{', unpacked' if unpacked else ''})"
    rows = _parts({held if part == "weights" else part: size for part, size in plan.training.memory.items()})
    rows.append(("together", _size(plan.training.bytes)))
    if plan.crowded.bytes > plan.training.bytes * (1 + _SHORT):
        rows.append(("with the longest demos in every prompt", _size(plan.crowded.bytes)))
    rows += [(f"llama.cpp: {part}", size) for part, size in _parts(plan.search.memory)]
    return [*rows, ("llama.cpp, together", _size(plan.search.bytes))]


def _parts(memory: Mapping[str, float]) -> list[tuple[str, str]]:
    return [(part, _size(size)) for part, size in memory.items() if size]


def _verdict(plan: ExperimentPlan) -> str:
    beside = f" with llama.cpp beside it ({_size(plan.beside)})" if plan.beside else ""
    room = _size(SPARE * plan.machine.memory_bytes)
    if plan.fits:
        return f"It fits{beside}: {_size(plan.training.bytes + plan.beside)} of {room}."
    return f"It does NOT fit{beside}: {_size(plan.training.bytes + plan.beside)}, and {room} can be used. Change:"


def _changes(plan: ExperimentPlan) -> Table:
    rows = [
        (
            change.text,
            _size(change.estimate.bytes),
            _time(change.estimate.seconds),
            "yes" if change.fits else "no",
            change.cost,
        )
        for change in plan.changes
    ]
    return _table("What would change it", ("under finetune", "memory", "time", "fits", "at the cost of"), rows)


def _time_lines(plan: ExperimentPlan) -> list[str]:
    training, search = plan.training, plan.search
    guess = "" if plan.machine.device == "cpu" else " (from the card's figures, not measured)"
    lines = [
        f"One training: {training.steps:,} steps, {training.tokens:,.0f} tokens at {training.tokens_per_s:,.0f} per "
        f"second: {_time(training.seconds)}{guess}.",
        f"Search and evaluation: {search.trials} trials, at most {search.calls:,} answers; racing stops losing trials. "
        f"{_time(search.seconds)} for all of them, rates {search.rates}.",
    ]
    if search.trainings:
        most = _time(search.trainings * training.seconds)
        lines.append(f"The study trains at most {search.trainings} times: {most}; halving stops losing trainings.")
    return lines


def _table(title: str, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number in (0, 4) else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _size(size: float) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
