"""Checkpoints: torn ones are skipped, the newest and the best stay, early stopping follows from the history."""

from pathlib import Path

from promptopt.finetune.checkpoints import (
    best_point,
    checkpoint_dir,
    loss_points,
    mark_complete,
    newest_complete,
    rotate,
    stops_early,
)
from promptopt.records import LossPoint


def _save(root: Path, step: int) -> Path:
    folder = checkpoint_dir(root, step)
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text("{}", encoding="utf-8")
    (folder / "optimizer.pt").write_bytes(b"12345678")
    mark_complete(folder, step, wall_s=step / 2, trained_tokens=step * 10)
    return folder


def _evals(*losses: float) -> list[LossPoint]:
    return [LossPoint(step=step, epoch=step, eval_loss=loss) for step, loss in enumerate(losses)]


def test_the_newest_is_chosen_by_number_and_torn_ones_go(tmp_path: Path) -> None:
    assert newest_complete(tmp_path / "none") is None
    for step in (9, 10, 11, 12):
        _save(tmp_path, step)
    (checkpoint_dir(tmp_path, 12) / "complete.json").unlink()
    (checkpoint_dir(tmp_path, 11) / "optimizer.pt").write_bytes(b"1234")
    newest = newest_complete(tmp_path)
    assert newest is not None
    assert (newest[0].name, newest[1].wall_s, newest[1].trained_tokens) == ("checkpoint-10", 5.0, 100)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-9"]


def test_rotation_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10):
        _save(tmp_path, step)
    rotate(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-2"]


def test_the_loss_before_training_is_never_the_best() -> None:
    assert best_point(_evals(0.1)) is None
    best = best_point(_evals(0.1, 0.4, 0.3, 0.3))
    assert best is not None
    assert best.step == 2


def test_patience_counts_evaluations_since_the_best() -> None:
    falling, rising = _evals(3, 2, 1), _evals(3, 1, 2, 2)
    assert not stops_early(falling, 1, 1)
    assert stops_early(rising, 2, 1)
    assert not stops_early(rising, 2, 2)
    assert not stops_early(rising, None, 1)


def test_loss_points_leave_out_what_has_no_loss() -> None:
    log: list[dict[str, float]] = [
        {"step": 1, "epoch": 0.5, "loss": 2.0, "learning_rate": 0.1, "grad_norm": 1.0},
        {"step": 1, "epoch": 0.5, "eval_loss": 3.0},
        {"step": 1, "train_runtime": 1.0},
    ]
    assert loss_points(log) == [
        LossPoint(step=1, epoch=0.5, loss=2.0, learning_rate=0.1),
        LossPoint(step=1, epoch=0.5, eval_loss=3.0),
    ]
