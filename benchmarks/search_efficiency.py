"""How much promptopt's search, DSPy's optimizers and random search find for how many LM tokens, on the same model.

    python benchmarks/search_efficiency.py --out DIR [--lm MODEL.gguf] [--tasks demo,viggo] [--methods all] [--seeds 5]
                                           [--train 100] [--val 48] [--test 150] [--trials 40] [--mipro light]
    python benchmarks/search_efficiency.py --out DIR --report-only [--unit tokens] [--report FILE]

Every finished cell (task, method, seed) is a line of DIR/cells.jsonl, every tested program a line of DIR/tests.jsonl;
the same command goes on where it was killed, and `--report-only` makes the tables of these files alone. What counts as
an equal budget depends on `--unit`: with another one, run once without `--report-only`, which tests what is missing.

Same for all methods: the GGUF, loaded anew for each cell so that no cell profits from another's prompts; rows (a seed
draws train and validation rows, test rows are the same for all seeds and never shown to an optimizer); metric; threads.
`batch_invariant` is off unless asked for: it slows down who asks one request at a time, as DSPy's bootstrapping does.

What is counted: the engine's own counters, prompt and completion tokens of every request that reached the model. So
DSPy's threads, its second attempt through JSONAdapter, MIPROv2's proposer, and rows that promptopt's racing began in
vain all count. A request that repeats one of the same cell is answered from memory, as DSPy's own cache would do it:
TPE proposes the same instructions and demos again, and MIPROv2 should not pay twice (`--no-memory` makes it; the
column `repeated`, or `--unit asked`, says what it would have cost). `--unit computed` leaves out prompt tokens that the
engine still had in memory from an earlier prompt.

Methods, each with its authors' recommended settings:

- untouched: the program through DSPy's ChatAdapter
- promptopt: `promptopt.optimize` with defaults: all layouts, labelled demos, racing, no written instructions
- random: the same space drawn at random, every candidate on all rows
- mipro: dspy.MIPROv2(auto="light"), DSPy's default; task model and prompt model are this LM, the proposer with longer
  answers. Up to 50 validation rows the `auto` modes score every candidate on all rows; above, they draw minibatches,
  and only their full evaluations are points of the curve. What the proposer writes and DSPy cannot read is
  replaced by the program's own instructions and counted: DSPy itself would end with an exception.
- bootstrap: dspy.BootstrapFewShotWithRandomSearch, 16 candidates; it has no seed, its seeds differ by their rows

DSPy's `max_labeled_demos` is lowered to what fits the context (fit.py), `max_errors` is out of reach; both help DSPy.
Demos: DSPy takes the gold answers of train rows as promptopt does, and answers of the model that the metric does not
score 0 (DSPy's default; `--metric-threshold` asks for more).

Curves: a point is a program scored on all validation rows, from DSPy's evaluation callback and promptopt's progress.
Differences on test rows are paired by row, each row's mean over seeds counting once. What it took to reach MIPROv2's
score is counted in those seeds only in which MIPROv2 found something better than the untouched program.
"""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dspy.teleprompt.mipro_optimizer_v2 import AUTO_RUN_SETTINGS
from search_bench.analysis import COSTS, by_task, untested
from search_bench.cells import METHODS, Bench, Results
from search_bench.outcome import Options
from search_bench.records import Setup
from search_bench.report import whole_report
from search_bench.tasks import TASKS, Task, TaskRows

from promptopt.data.sources import DATA_FOLDER_VARIABLE
from promptopt.lm.fingerprint import file_sha256
from promptopt.lm.llama_cpp.facade import LlamaCpp


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results; taken up where it stands")
    parser.add_argument("--report", type=Path, help="write the tables here too")
    parser.add_argument("--report-only", action="store_true", help="compute nothing")
    parser.add_argument("--unit", choices=COSTS, default="tokens", help="what budgets are counted in")
    parser.add_argument("--lm", type=Path, help="a GGUF file; default is the starter model")
    parser.add_argument("--n-ctx", type=int, default=4096, help="capped at what the model was trained for")
    parser.add_argument("--parallel", type=int, help="requests at once, of every method; default is the engine's")
    parser.add_argument("--threads", type=int, help="1 where others work on this machine: waiting threads spin")
    parser.add_argument("--n-gpu-layers", type=int, default=0)
    parser.add_argument("--batch-invariant", action="store_true")
    parser.add_argument("--data", type=Path, help=f"folder of the real data; default ${DATA_FOLDER_VARIABLE}")
    parser.add_argument("--tasks", default="demo,viggo", help=f"all, or of {','.join(TASKS)}")
    parser.add_argument("--methods", default="all", help=f"all, or of {','.join(METHODS)}")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--train", type=int, default=100)
    parser.add_argument("--val", type=int, default=48)
    parser.add_argument("--test", type=int, default=150)
    parser.add_argument("--trials", type=int, default=40, help="of promptopt")
    parser.add_argument("--random-trials", type=int, help="default: as --trials")
    parser.add_argument("--mipro", choices=("light", "medium", "heavy"), default="light")
    parser.add_argument("--bootstrap-candidates", type=int, default=16)
    parser.add_argument("--metric-threshold", type=float)
    parser.add_argument("--no-memory", action="store_true", help="compute repeated requests again")
    arguments = parser.parse_args()
    if arguments.val > (most := AUTO_RUN_SETTINGS[arguments.mipro]["val_size"]):
        parser.error(f"--val {arguments.val}: MIPROv2 in mode {arguments.mipro} would look at {most} rows only")
    arguments.tasks, arguments.methods = chosen(arguments.tasks, TASKS), chosen(arguments.methods, METHODS)
    return arguments


def chosen(text: str, allowed: Any) -> list[str]:
    """Return the names of a comma-separated list, in the order they are known in."""
    names = list(allowed) if text == "all" else text.split(",")
    if unknown := [name for name in names if name not in allowed]:
        raise SystemExit(f"{', '.join(unknown)} is unknown; allowed are {', '.join(allowed)}.")
    return [name for name in allowed if name in names]


def make_bench(arguments: argparse.Namespace) -> Bench:
    """Return the benchmark on the model that was asked for."""
    if arguments.lm is None:
        from promptopt.pipeline.models import starter_gguf

        path = starter_gguf()
    else:
        path = arguments.lm

    def open_lm(max_tokens: int, seed: int) -> LlamaCpp:
        return LlamaCpp(
            path, n_ctx=arguments.n_ctx, parallel=arguments.parallel, n_gpu_layers=arguments.n_gpu_layers,
            n_threads=arguments.threads, seed=seed, max_tokens=max_tokens, cache_dir=None,
            batch_invariant=arguments.batch_invariant,
        )  # fmt: skip

    lm = open_lm(1, 0)
    sizes = (arguments.train, arguments.val, arguments.test)
    setup = Setup(
        model=path.name, model_sha256=file_sha256(path), n_ctx=lm.n_ctx, rows=sizes, threads=arguments.threads,
        parallel=lm.parallel, n_gpu_layers=arguments.n_gpu_layers, batch_invariant=arguments.batch_invariant,
    )  # fmt: skip
    lm.close()
    options = Options(
        arguments.trials, arguments.random_trials or arguments.trials, arguments.mipro, arguments.bootstrap_candidates,
        arguments.metric_threshold, not arguments.no_memory,
    )  # fmt: skip
    return Bench(Results(arguments.out), setup, options, open_lm)


def measure(bench: Bench, arguments: argparse.Namespace) -> None:
    """Fill in the cells that are missing, seed by seed, and test what the report compares."""
    loaded: dict[str, TaskRows] = {}

    def rows(task: Task) -> TaskRows:
        if task.name not in loaded:
            loaded[task.name] = bench.rows(task)
        return loaded[task.name]

    for seed in range(arguments.seeds):
        for task in (TASKS[name] for name in arguments.tasks):
            for method in arguments.methods:
                if not bench.has_cell(task, method, seed):
                    cell = bench.run_cell(rows(task), method, seed)
                    best = max((point.score for point in cell.curve), default=float("nan"))
                    note(f"{task.name} {method} seed {seed}: validation {best:.3f}, {cell.spent.calls} calls, "
                         f"{COSTS['tokens'](cell.spent):,.0f} tokens, {cell.spent.seconds:.0f} s")  # fmt: skip
            test_programs(bench, rows, task, arguments.unit)


def test_programs(bench: Bench, rows: Any, task: Task, unit: str) -> None:
    """Score on the test rows what the report compares and has no scores yet."""
    for results in by_task(bench.results.cells(), bench.results.tests()):
        if results.task == task.name and results.setup == bench.setup and results.seeds:
            for program in untested(results, COSTS[unit]).values():
                tested = bench.run_test(rows(task), program)
                mean = sum(tested.scores.values()) / len(tested.scores)
                note(f"{task.name} {tested.program}: test {mean:.3f}, {tested.seconds:.0f} s")


def note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    arguments = parse()
    logging.getLogger("dspy").setLevel(logging.CRITICAL)  # one line per answer that was cut off
    if arguments.data is not None:
        os.environ[DATA_FOLDER_VARIABLE] = str(arguments.data)
    if not arguments.report_only:
        measure(make_bench(arguments), arguments)
    results = Results(arguments.out)
    text = whole_report(by_task(results.cells(), results.tests()), arguments.unit)
    if arguments.report is not None:
        arguments.report.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
