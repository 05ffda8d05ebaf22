"""The results on disk, and the loop that fills them: what is there is not computed again."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine_bench.report import machine
from joint_bench.arms import ARMS, JOINT, NEED_JOINT, Best, Outcome
from joint_bench.ledger import Ledger
from joint_bench.records import Cell, Settings, Tested
from joint_bench.studies import ArmRun
from search_bench.meter import Meter
from search_bench.programs import build, score_rows
from search_bench.records import SavedProgram, Setup
from search_bench.tasks import Sizes, Task, TaskRows, load_task

import promptopt
from promptopt.config.experiment import DistillConfig, SearchConfig
from promptopt.config.joint import HalvingConfig, WeightsSearch
from promptopt.lm.fingerprint import file_sha256
from promptopt.lm.llama_cpp.facade import LlamaCpp
from promptopt.rundir import append_jsonl, hash_inputs, read_jsonl
from promptopt.study.search import search
from promptopt.study.task import SearchTask, Training

SOURCES = (
    "candidate.py", "config", "distill", "evaluation", "export", "finetune", "layout", "lm", "metrics", "pools",
    "study",
)  # fmt: skip
OpenLm = Callable[[int, int], LlamaCpp]


def opener(path: Path, **options: Any) -> OpenLm:
    """Return what loads the model anew, for answers of at most so many tokens with a seed."""

    def open_lm(max_tokens: int, seed: int) -> LlamaCpp:
        return LlamaCpp(path, max_tokens=max_tokens, seed=seed, cache_dir=None, **options)

    return open_lm


def setup_of(open_lm: OpenLm, sizes: tuple[int, int, int]) -> Setup:
    """Return what all cells on this model at these sizes have in common."""
    lm = open_lm(1, 0)
    options = lm.dump_state()
    setup = Setup(
        model=lm.name, model_sha256=file_sha256(lm.chat.path), n_ctx=lm.n_ctx, rows=sizes, parallel=lm.parallel,
        threads=options["n_threads"], n_gpu_layers=options["n_gpu_layers"], batch_invariant=options["batch_invariant"],
    )  # fmt: skip
    lm.close()
    return setup


def code_hash() -> str:
    """Return a hash of what decides a study's course, as it stands in this working tree."""
    package = Path(str(promptopt.__file__)).parent
    digest = hashlib.sha256()
    for name in SOURCES:
        place = package / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@dataclass(frozen=True)
class Results:
    """One `cells-TASK.jsonl` per task, so that processes with different tasks never write to the same file."""

    folder: Path

    def cells(self) -> list[Cell]:
        """Return all cells; a line that is just being written, or that a kill has torn, is passed over."""
        lines = [line for path in sorted(self.folder.glob("cells-*.jsonl"))
                 for line in path.read_text(encoding="utf-8").splitlines(keepends=True)]  # fmt: skip
        return [Cell.model_validate_json(line) for line in lines if line.endswith("\n")]

    def repair(self, task: str) -> None:
        """Cut off a line that a kill has torn, before another is written behind it."""
        read_jsonl(self._path(task), Cell)

    def keep(self, cell: Cell) -> None:
        """Append a finished cell."""
        append_jsonl(self._path(cell.task), cell)

    def _path(self, task: str) -> Path:
        return self.folder / f"cells-{task}.jsonl"


@dataclass
class Bench:
    """Everything that cells have in common.

    Attributes:
        hf_dir: the model that is trained; open_lm: loads its GGUF, with nothing of an earlier cell in memory.
    """

    results: Results
    setup: Setup
    settings: Settings
    hf_dir: Path
    open_lm: OpenLm
    _warm: bool = field(default=False, init=False)

    @contextmanager
    def lm(self, task: Task, seed: int) -> Iterator[LlamaCpp]:
        """Yield a fresh LM."""
        lm = self.open_lm(task.max_tokens, seed)
        try:
            yield lm
        finally:
            lm.close()

    def rows(self, task: Task) -> TaskRows:
        """Return the task's rows."""
        train, val, test = self.setup.rows
        with self.lm(task, 0) as lm:
            return load_task(task, lm, Sizes(train, val, test))

    def cell(self, task: Task, arm: str, seed: int) -> Cell | None:
        """Return a finished cell with these settings."""
        wanted = (self.setup, self.settings, task.name, arm, seed)
        found = [c for c in self.results.cells() if (c.setup, c.settings, c.task, c.arm, c.seed) == wanted]
        return found[-1] if found else None

    def has_cell(self, task: Task, arm: str, seed: int) -> bool:
        """Whether this cell is finished."""
        return self.cell(task, arm, seed) is not None

    def run_cell(self, rows: TaskRows, arm: str, seed: int) -> Cell | None:
        """Run one arm on one task with one seed, and keep what came out; None where there is nothing to ask."""
        task, splits = rows.task, rows.draw(seed)
        joint = self.cell(task, JOINT, seed) if arm in NEED_JOINT else None
        if arm in NEED_JOINT and joint is None:
            raise SystemExit(f"{arm} needs joint's cell of {task.name}, seed {seed}: run --arms joint first.")
        self._warm_up(rows)
        identity = {"setup": self.setup.model_dump(mode="json"), "settings": self.settings.model_dump(mode="json")}
        folder = self.results.folder / "studies" / f"{task.name}-{seed}-{arm}-{hash_inputs(identity)[:8]}"
        with self.lm(task, seed) as lm:
            host = machine()
            ledger = Ledger(folder / "ledger.json", Meter(lm))
            run = ArmRun(
                task, lm, splits.train, splits.val, seed, self.settings, self.hf_dir, folder, ledger, joint,
            )  # fmt: skip
            outcome = ARMS[arm](run)
            if outcome is None:
                return None
            cell = self._cell(run, arm, outcome, rows, host)
        self.results.keep(cell)
        return cell

    def _cell(self, run: ArmRun, arm: str, outcome: Outcome, rows: TaskRows, host: dict[str, Any]) -> Cell:
        spent, lines = run.ledger.total(), run.lines()
        notes = {
            "train": len(run.train), "val": len(run.val), "test": len(rows.test), "rows_looked_at": rows.looked_at,
            "rows_too_long": rows.dropped, "parallel": run.lm.parallel, "load_after": os.getloadavg()[0],
        }  # fmt: skip
        return Cell(
            setup=self.setup, task=run.task.name, arm=arm, seed=run.seed, settings=self.settings,
            metric=run.task.metric.name, metric_remark=run.task.remark, frozen=tested(run, outcome.frozen, rows),
            tuned=None if outcome.tuned is None else tested(run, outcome.tuned, rows), budget=outcome.budget,
            spent=spent, trials=lines, notes=notes, code=code_hash(), host=host,
        )  # fmt: skip

    def _warm_up(self, rows: TaskRows) -> None:
        """Train once for nothing: what a process imports and tests at its first training belongs to no arm."""
        if self._warm:
            return
        splits = rows.draw(0)
        weights = WeightsSearch(trials=1, winners=1, after=0, halving=HalvingConfig(enabled=False))
        config = SearchConfig(trials=1, layout={}, demo_sets=0, weights=weights)
        with self.lm(rows.task, 0) as lm:
            training = Training(self.hf_dir, self.settings.recipe.model_copy(update={"epochs": 1.0}), DistillConfig())
            task = SearchTask(
                rows.task.program(), lm, rows.task.metric, rows.task.inputs, splits.train[:32], splits.val[:4],
                training=training,
            )  # fmt: skip
            search(task, config, 0)
        self._warm = True


def tested(run: ArmRun, best: Best, rows: TaskRows) -> Tested:
    """Score what an arm would deploy on the test rows, with its LoRA weights on the quantized base."""
    lm = run.lm if best.lora is None else run.lm.with_lora(best.lora)
    program = build(SavedProgram(candidate=best.candidate, laid_out=True), run.task)
    scored = score_rows(program, run.task, lm, rows.test)
    return Tested(
        study=best.study, trial=best.trial, weights_of=best.weights_of, val=best.value, candidate=best.candidate,
        params=best.params, recipe=best.recipe, scores=scored.scores, unparsed=scored.unparsed,
        too_long=scored.too_long,
    )  # fmt: skip
