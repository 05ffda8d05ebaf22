"""The rule that groups trainings measures this machine once, and remembers."""

from pathlib import Path

import pytest

from promptopt.config.recipe import TrainingRecipe
from promptopt.finetune.resident import ResidentBase
from promptopt.finetune.together import rule
from promptopt.finetune.together.rule import TogetherTimes, groups_pay, measure

RECIPES = [TrainingRecipe(rank=4, batch_size=1), TrainingRecipe(rank=8, batch_size=2)]


def test_it_measures_once_per_base_and_shape(base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ResidentBase(base_dir) as base:
        measured = measure(base, RECIPES, 20, tmp_path)
        assert measured.together is not None and measured.together > 0 < measured.alone
        assert measured.gain == pytest.approx(measured.alone / measured.together)
        base.check()  # the base is as it was
        monkeypatch.setattr(rule, "_timed", lambda *arguments: pytest.fail("measured again"))
        assert measure(base, RECIPES, 32, tmp_path) == measured  # 20 tokens count as 32
        assert measure(base, [RECIPES[1], RECIPES[0]], 20, tmp_path) == measured
        assert groups_pay(base, RECIPES, 20, tmp_path) == (measured.gain >= rule.LEAST_GAIN)
        monkeypatch.setattr(rule, "_timed", lambda *arguments: TogetherTimes(together=1.0, alone=1.2))
        assert measure(base, RECIPES, 33, tmp_path).gain == pytest.approx(1.2)
        assert measure(base, [*RECIPES, RECIPES[0]], 20, tmp_path).gain == pytest.approx(1.2)
        assert len(list(tmp_path.iterdir())) == 3
        (note,) = [path for path in tmp_path.iterdir() if measured.model_dump_json() in path.read_text()]
        note.write_text("torn", encoding="utf-8")
        assert measure(base, RECIPES, 20, tmp_path).gain == pytest.approx(1.2)


@pytest.mark.parametrize(("together", "pays"), [(1.0, False), (0.95, False), (0.9, True), (None, False)])
def test_only_a_clear_gain_counts(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch, together: float | None, pays: bool
) -> None:
    monkeypatch.setattr(rule, "_timed", lambda *arguments: TogetherTimes(together=together, alone=1.0))
    with ResidentBase(base_dir) as base:
        assert groups_pay(base, RECIPES, 32) is pays


def test_what_cannot_be_grouped_is_not_measured(base_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule, "_timed", lambda *arguments: pytest.fail("measured"))
    with ResidentBase(base_dir) as base:
        assert not groups_pay(base, RECIPES[:1], 32)
        assert not groups_pay(base, [RECIPES[0], RECIPES[1].model_copy(update={"packing": True})], 32)
