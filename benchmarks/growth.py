"""What a search costs beside the model, and how that grows with examples and trials.

    python benchmarks/growth.py [--examples 50,200,800] [--trials 20,80,320] [--storages sqlite,memory] [--quick]
                                [--profile] [--out FILE]

The model is a script that answers at once, better in some layouts than in others, so that there is something to race
and to learn. Everything else is real: DSPy, rendering and parsing, metric, Optuna with its storage, JSONL records. The
time of every part is processor time of its own, without the parts inside it, so that other work on the machine changes
it little; only `seconds` is what a clock says. Columns of the last table are means over ranges of trials of
the longest search: a part whose numbers rise there grows faster than the search.
"""

import argparse
import cProfile
import hashlib
import json
import logging
import pstats
import re
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dspy
from engine_bench.report import cpu_model, table

import promptopt as po
from promptopt.config.experiment import SearchConfig

PARTS = {
    "DSPy call (render, script, parse)": ("promptopt.evaluation.evaluate:Evaluator.answer",),
    "metric and record": ("promptopt.evaluation.evaluate:Evaluator.record",),
    "append to evaluations/*.jsonl": ("promptopt.evaluation.evaluate:append_jsonl",),
    "read evaluations/*.jsonl": ("promptopt.evaluation.evaluate:read_jsonl",),
    "report": ("optuna.trial:Trial.report",),
    "should_prune": ("optuna.trial:Trial.should_prune",),
    "suggest": ("optuna.trial:Trial.suggest_categorical",),
    "ask": ("optuna.study:Study.ask",),
    "tell": ("optuna.study:Study.tell",),
    "notes (set_user_attr)": ("optuna.trial:Trial.set_user_attr",),
    "get_trials": ("optuna.study:Study.get_trials",),
    "get_trials, deep copies": (),
    "best_trial": ("optuna.study:Study.best_trial",),
    "new samplers": ("promptopt.study.search:seeded_sampler", "promptopt.study.runner:seeded_sampler"),
    "write trials.jsonl": ("promptopt.study.search:write_jsonl", "promptopt.study.search:trial_record"),
}
"""Part -> the functions it is spent in. Of several places those that are there count."""
OTHER = "everything else"
RANGES = 5


class Stopwatch:
    """Own processor time and calls of every part; threads are added up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._inner = threading.local()

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, timed as `part`."""

        def call(*arguments: Any, **options: Any) -> Any:
            outside = getattr(self._inner, "seconds", 0.0)
            self._inner.seconds = 0.0
            started = time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                took = time.thread_time() - started
                copies = part == "get_trials" and options.get("deepcopy", True)
                name = f"{part}, deep copies" if copies else part
                self.seconds[name] += took - self._inner.seconds
                self.calls[name] += 1
                self._inner.seconds = outside + took

        return call

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Time all PARTS while the block runs."""
        undo: list[tuple[Any, str, Any]] = []
        try:
            for part, places in PARTS.items():
                before = len(undo)
                for place in places:
                    owner, name, original = found_at(place)
                    if original is None:
                        continue
                    getter = original.fget if isinstance(original, property) else original
                    timed: Any = self.timed(part, getter)
                    undo.append((owner, name, original))
                    setattr(owner, name, property(timed) if isinstance(original, property) else timed)
                if places and len(undo) == before:
                    print(f"{part}: {' and '.join(places)} are gone; it counts as {OTHER!r}.", file=sys.stderr)
            yield
        finally:
            for owner, name, original in reversed(undo):
                setattr(owner, name, original)


def found_at(place: str) -> tuple[Any, str, Any]:
    """Return the owner, the name and the object at `module:path`; None for what is not there."""
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    try:
        owner: Any = import_module(module)
    except ModuleNotFoundError:
        return None, name, None
    for each in owners:
        owner = getattr(owner, each, None)
    return owner, name, None if owner is None else vars(owner).get(name)


@dataclass
class Found:
    """One search: its size, its time, and the parts of that time; `by_trial`: part -> seconds after every trial."""

    storage: str
    examples: int
    trials: int
    evaluations: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    by_trial: list[dict[str, float]] = field(default_factory=list)
    evaluations_by_trial: list[int] = field(default_factory=list)


def answer(messages: list[dict[str, str]]) -> str:
    """A model that is right more often where the question stands last and the fields are in XML."""
    text = "\n".join(message["content"] for message in messages)
    number = re.findall(r"What is the code of item(\d+)\?", text)[-1]
    ability = 0.4 + 0.2 * ("<question>" in text) + 0.1 * (len(messages) == 1)
    ability += 0.2 * (text.rfind("The code of item") < text.rfind("What is the code of"))
    luck = int.from_bytes(hashlib.sha256(f"{number} {ability:.1f}".encode()).digest()[:4], "big") / 2**32
    shared = int.from_bytes(hashlib.sha256(number.encode()).digest()[:4], "big") / 2**32
    said = number if 0.7 * shared + 0.3 * luck < ability else "unknown"
    return f"[[ ## answer ## ]]\n{said}\n\n[[ ## completed ## ]]"


def examples_of(count: int) -> list[dspy.Example]:
    return [
        dspy.Example(document=f"The code of item{n} is {n}.", question=f"What is the code of item{n}?", answer=str(n))
        .with_inputs("document", "question")
        for n in range(count)
    ]  # fmt: skip


def search_once(storage: str, examples: int, trials: int, folder: Path) -> Found:
    """Search, with every part timed."""
    watch, found = Stopwatch(), Found(storage, examples, trials)
    seen = {"trial": 0, "evaluations": 0}

    def on_progress(progress: Any) -> None:
        if progress.trial != seen["trial"]:
            seen["trial"] = progress.trial
            found.by_trial.append({**watch.seconds, "all": time.process_time() - started_cpu})
            found.evaluations_by_trial.append(seen["evaluations"])
        seen["evaluations"] += 1

    # One output format, so that the script always answers in it.
    layout = {name: values for name, values in default_layout().items() if name not in ("output_style", "prefill")}
    frozen = {"weights": None} if "weights" in SearchConfig.model_fields else {}
    config = SearchConfig(
        layout=layout, demo_sets=3, demos_per_set=2, instructions=("Answer.", "Find the code."), **frozen
    )
    rows = examples_of(examples + 20)
    with watch.watching():
        started, started_cpu = time.perf_counter(), time.process_time()
        po.optimize(
            dspy.Predict("document, question -> answer"), lm=po.ScriptedLM(answer), metric=po.metrics.answer_f1,
            train=rows[:20], val=rows[20:], trials=trials, config=config,
            folder=folder if storage == "sqlite" else None, on_progress=on_progress,
        )  # fmt: skip
        found.wall_s, found.cpu_s = time.perf_counter() - started, time.process_time() - started_cpu
    found.evaluations, found.calls = seen["evaluations"], dict(watch.calls)
    found.by_trial.append({**watch.seconds, "all": found.cpu_s})
    found.evaluations_by_trial.append(found.evaluations)
    found.seconds = dict(watch.seconds)
    found.seconds[OTHER] = found.cpu_s - sum(watch.seconds.values())
    return found


def default_layout() -> dict[str, tuple[Any, ...]]:
    from promptopt.study.space import SEARCHED_BY_DEFAULT

    return dict(SEARCHED_BY_DEFAULT)


def growth_table(found: list[Found]) -> str:
    rows = []
    for each in found:
        outside = each.cpu_s - each.seconds.get("DSPy call (render, script, parse)", 0.0)
        rows.append([
            each.storage, str(each.examples), str(each.trials), str(each.evaluations),
            f"{1 - each.evaluations / each.examples / each.trials:.0%}", f"{each.wall_s:.1f}", f"{each.cpu_s:.1f}",
            f"{1e3 * each.cpu_s / each.evaluations:.2f}", f"{1e3 * outside / each.evaluations:.2f}",
            f"{1e3 * outside / each.trials:.0f}",
        ])  # fmt: skip
    headings = ("storage", "examples", "trials", "evaluations", "saved by racing", "seconds", "processor seconds",
                "processor ms per evaluation", "outside DSPy's call", "outside DSPy's call, per trial")  # fmt: skip
    return table(headings, rows)


def parts_table(found: list[Found]) -> str:
    headings = ("part", *(f"{f.storage}, {f.examples} x {f.trials}: s (calls)" for f in found))
    names = [*PARTS, OTHER]
    rows = [[n, *(f"{f.seconds.get(n, 0):.2f} ({f.calls.get(n, 0)})" for f in found)] for n in names]
    return table(headings, rows)


def ranges_table(found: Found) -> str:
    """Return the parts in milliseconds per trial, for early to late trials."""
    names = [*PARTS, OTHER]
    marks = sorted({round(len(found.by_trial) * share / RANGES) for share in range(RANGES + 1)})
    rows = []
    for name in names:
        cells = []
        for low, high in pairwise(marks):
            spent = part_seconds(found, name, high) - part_seconds(found, name, low)
            cells.append(f"{1e3 * spent / (high - low):.1f}")
        rows.append([name, *cells])
    evaluated = [0, *found.evaluations_by_trial]
    pairs = list(pairwise(marks))
    rows.append(["evaluations", *(f"{(evaluated[high] - evaluated[low]) / (high - low):.1f}" for low, high in pairs)])
    return table(("ms per trial", *(f"trials {low}-{high - 1}" for low, high in pairs)), rows)


def part_seconds(found: Found, name: str, trials: int) -> float:
    if not trials:
        return 0.0
    spent = found.by_trial[trials - 1]
    if name == OTHER:
        return 2 * spent["all"] - sum(spent.values())
    return spent.get(name, 0.0)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", default="50,200,800", help="at the smallest number of trials")
    parser.add_argument("--trials", default="20,80,320", help="at the smallest number of examples")
    parser.add_argument("--storages", default="sqlite,memory")
    parser.add_argument("--quick", action="store_true", help="50 and 200 examples, 20 and 80 trials: a minute")
    parser.add_argument("--profile", action="store_true", help="cProfile of the longest search instead of the tables")
    parser.add_argument("--out", type=Path, help="raw numbers as JSON; searches that it holds are not run again")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.examples, arguments.trials = "50,200", "20,80"
    return arguments


def main() -> int:
    arguments = parse()
    logging.getLogger("dspy").setLevel(logging.ERROR)
    sizes, counts = ([int(n) for n in text.split(",")] for text in (arguments.examples, arguments.trials))
    runs = [(size, counts[0]) for size in sizes] + [(sizes[0], count) for count in counts[1:]]
    print(f"{cpu_model()}; python benchmarks/growth.py {' '.join(sys.argv[1:])}\n")
    found: list[Found] = []
    kept = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out and arguments.out.exists() else []
    known = {(each["storage"], each["examples"], each["trials"]): Found(**each) for each in kept}
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.profile:
            profile = cProfile.Profile()
            profile.runcall(search_once, arguments.storages.split(",")[0], sizes[0], counts[-1], Path(temporary))
            pstats.Stats(profile).sort_stats("cumulative").print_stats(45)
            return 0
        search_once("memory", 10, 2, Path(temporary))  # imports and DSPy's first call
        for storage in arguments.storages.split(","):
            for number, (size, count) in enumerate(runs):
                if (storage, size, count) in known:
                    found.append(known[storage, size, count])
                    continue
                found.append(search_once(storage, size, count, Path(temporary) / f"{storage}{number}"))
                if arguments.out:
                    arguments.out.write_text(json.dumps([asdict(each) for each in found], indent=1), encoding="utf-8")
                print(f"{storage} {size} x {count}: {found[-1].wall_s:.1f} s", file=sys.stderr, flush=True)
    print(growth_table(found) + "\n")
    largest = [f for f in found if (f.examples, f.trials) in ((sizes[-1], counts[0]), (sizes[0], counts[-1]))]
    print(parts_table(largest) + "\n")
    for each in found:
        if each.trials == counts[-1]:
            print(f"{each.storage}, {each.examples} examples, {each.trials} trials:\n\n{ranges_table(each)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
