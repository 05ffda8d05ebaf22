"""Checkpoints on disk: complete or torn, newest, best, rotated. Knows files and numbers, no torch.

The trainer writes a checkpoint file by file; a kill in between leaves a folder that looks whole. So `complete.json`,
with the size of every file, is written last and atomically, and a folder without a matching one is torn.
"""

import json
import os
import shutil
from pathlib import Path

from pydantic import ValidationError

from promptopt.records import BestBy, LossPoint, Record

MARKER = "complete.json"
STATE = "trainer_state.json"
METRICS = "metrics.json"
BEST_BY: tuple[BestBy, ...] = ("eval_loss", "metric")


class CheckpointMarker(Record):
    """What a complete checkpoint says about itself.

    Attributes:
        wall_s: seconds of training up to here, all starts of this run together.
        trained_tokens: completion tokens that carried loss up to here.
        files: file name -> size in bytes.
    """

    step: int
    wall_s: float
    trained_tokens: int
    files: dict[str, int]


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to `path`, so that a kill leaves the old file or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def checkpoint_dir(root: Path, step: int) -> Path:
    """Return the folder of the checkpoint at `step` under `root`, named as transformers' Trainer names it."""
    return root / f"checkpoint-{step}"


def mark_complete(folder: Path, step: int, wall_s: float, trained_tokens: int) -> None:
    """Declare `folder` complete."""
    files = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file() and path.name != MARKER}
    marker = CheckpointMarker(step=step, wall_s=wall_s, trained_tokens=trained_tokens, files=files)
    write_atomically(folder / MARKER, marker.model_dump_json())


def read_marker(folder: Path) -> CheckpointMarker | None:
    """Return the marker of a complete checkpoint; None for a torn one."""
    try:
        marker = CheckpointMarker.model_validate_json((folder / MARKER).read_text(encoding="utf-8"))
        whole = all((folder / name).stat().st_size == size for name, size in marker.files.items())
    except (OSError, ValidationError):
        return None
    return marker if whole and STATE in marker.files else None


def newest_complete(root: Path) -> tuple[Path, CheckpointMarker] | None:
    """Return the complete checkpoint with the highest step under `root`, or None; torn ones are deleted."""
    found: list[tuple[int, Path, CheckpointMarker]] = []
    for folder in root.glob("checkpoint-*"):
        marker = read_marker(folder)
        if marker is None:
            shutil.rmtree(folder)
        else:
            found.append((marker.step, folder, marker))
    if not found:
        return None
    _, folder, marker = max(found, key=lambda item: item[0])
    return folder, marker


def rotate(root: Path, *best_steps: int) -> None:
    """Delete all complete checkpoints under `root` but the newest and those at `best_steps`."""
    steps = sorted(marker.step for folder in root.glob("checkpoint-*") if (marker := read_marker(folder)) is not None)
    for step in steps[:-1]:
        if step not in best_steps:
            # The marker goes first, so that a kill in the middle leaves a torn folder and not a wrong one.
            (checkpoint_dir(root, step) / MARKER).unlink()
            shutil.rmtree(checkpoint_dir(root, step))


def loss_points(log_history: list[dict[str, float]]) -> list[LossPoint]:
    """Return the trainer's log as loss points; entries without any loss are left out."""
    points: list[LossPoint] = []
    for entry in log_history:
        if "loss" in entry or "eval_loss" in entry:
            points.append(
                LossPoint(
                    step=int(entry["step"]),
                    epoch=float(entry.get("epoch", 0.0)),
                    loss=entry.get("loss"),
                    eval_loss=entry.get("eval_loss"),
                    learning_rate=entry.get("learning_rate"),
                )
            )
    return points


def saved_points(folder: Path) -> list[LossPoint]:
    """Return the loss points recorded in a complete checkpoint."""
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    return loss_points(state["log_history"])


def note_metric(root: Path, step: int, metric: float) -> None:
    """Remember the task metric of the checkpoint at `step` under `root`; it survives a kill."""
    known = read_metrics(root)
    if known.get(step) != metric:
        write_atomically(root / METRICS, json.dumps({**known, step: metric}))


def read_metrics(root: Path) -> dict[int, float]:
    """Return step -> task metric of the checkpoints under `root` that were judged."""
    try:
        return {int(step): metric for step, metric in json.loads((root / METRICS).read_text(encoding="utf-8")).items()}
    except (OSError, ValueError):
        return {}


def judged_points(root: Path, log_history: list[dict[str, float]]) -> list[LossPoint]:
    """Return the trainer's log as loss points, each evaluation with the task metric that `root` knows of it."""
    metrics = read_metrics(root)
    return [
        point.model_copy(update={"metric": metrics[point.step]})
        if point.eval_loss is not None and point.step in metrics
        else point
        for point in loss_points(log_history)
    ]


def best_steps(points: list[LossPoint]) -> set[int]:
    """Return the steps of the checkpoints that may yet be published: the best by either measure."""
    return {best.step for by in BEST_BY if (best := best_point(points, by)) is not None}


def best_point(points: list[LossPoint], by: BestBy = "eval_loss") -> LossPoint | None:
    """Return the best evaluation after training began, the earliest of equals; None where nothing was measured.

    Args:
        by: the lowest loss, or the highest metric with the lowest loss.
    """
    evaluated = [point for point in points if point.eval_loss is not None and point.step > 0]
    if by == "metric":
        evaluated = [point for point in evaluated if point.metric is not None]
        return min(evaluated, key=lambda point: (-(point.metric or 0.0), point.eval_loss, point.step), default=None)
    return min(evaluated, key=lambda point: (point.eval_loss, point.step), default=None)


def stops_early(points: list[LossPoint], patience: int | None, eval_per_epoch: int, by: BestBy = "eval_loss") -> bool:
    """Say whether `patience` epochs of evaluations have passed since the best one.

    Computed from the history alone, so that a run that goes on after a kill decides as an unbroken one would.
    """
    best = best_point(points, by)
    if patience is None or best is None:
        return False
    later = [point for point in points if point.eval_loss is not None and point.step > best.step]
    return len(later) >= patience * eval_per_epoch
