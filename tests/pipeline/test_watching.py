"""The stage `finetune` without a joint study: chosen recipe, task metric at every evaluation, the best by metric."""

import json
from pathlib import Path

import pytest
import yaml

from promptopt.config.load import load_experiment
from promptopt.pipeline.run import run_experiment
from promptopt.records import FinetuneResult
from promptopt.rundir import read_json

pytest.importorskip("trl")
REPOSITORY = Path(__file__).parents[2]


class Said:
    """Notes lines and steps."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: list[tuple[str, str]] = []
        self.states: list[str] = []

    def stage(self, name: str, state: str) -> None:
        self.states.append(f"{name} {state}")

    def step(self, done: int, total: int, text: str, speed: str = "") -> None:
        self.steps.append((text, speed))

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_a_training_is_watched_by_task_metric_and_its_recipe_is_recorded(tmp_path: Path) -> None:
    values = yaml.safe_load((REPOSITORY / "experiments" / "demo" / "smoke.yaml").read_text(encoding="utf-8"))
    values["search"] = {"trials": 1, "val_rows": 4, "demo_sets": 0, "weights": None}
    values["finetune"] = {"epochs": 2, "best_by": "metric", "watched_rows": 4, "rank": 8}
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(values))
    config = load_experiment(path).model_copy(update={"run_dir": str(tmp_path / "run")})
    for stage in ("search", "distill", "finetune"):
        run = run_experiment(config, said := Said(), only=stage)
    result = read_json(run / "finetune" / "result.json", FinetuneResult)
    metrics = {point.step: point.metric for point in result.history if point.metric is not None}
    assert len(metrics) == 2
    assert result.best_by == "metric"
    assert result.best_metric == max(metrics.values())
    assert result.best_metric == metrics[result.best_step]
    for step in metrics:
        watched = (run / "finetune" / "watched" / f"{step}.jsonl").read_text().splitlines()
        assert len(watched) == 4
        assert sum(json.loads(line)["score"] for line in watched) / 4 == pytest.approx(metrics[step])
    assert not list((run / "finetune").rglob("*.gguf"))
    assert result.verdict in said.lines
    assert any("metric" in text and "tokens/s" in speed and "GiB" in speed for text, speed in said.steps)

    recipe = json.loads((run / "recipe.json").read_text())
    assert recipe["recipe"]["rank"] == 8
    assert recipe["recipe"]["alpha"] == 16.0
    assert {"learning_rate", "batch_size", "max_length"} <= set(recipe["reasons"])
    assert "rank" not in recipe["reasons"]
    assert any(line.startswith("  finetune.learning_rate: ") for line in said.lines)

    # What was chosen is part of the stage's key, and is chosen again.
    same = run_experiment(config, said := Said(), only="finetune")
    assert (same, said.states[-1]) == (run, "finetune kept")
