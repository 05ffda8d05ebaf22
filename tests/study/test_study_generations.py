"""Generations: instructions that reflection adds, and a study version that knows the trials of the one before."""

import re
from pathlib import Path

import pytest

from promptopt.config.experiment import SearchConfig
from promptopt.config.pools import PoolsConfig
from promptopt.errors import ConfigError, LMError
from promptopt.lm.scripted import ScriptedLM
from promptopt.pools.pool import Pools
from promptopt.rundir import read_json
from tests.study.test_search import CONFIG, answer, run

BETTER = "Find the code that the document gives to the item and write its digits."


def heedful(messages: list[dict[str, str]]) -> str:
    """A model that answers well once it is told how."""
    if BETTER not in messages[0]["content"]:
        return "[[ ## answer ## ]]\nunknown\n\n[[ ## completed ## ]]"
    number = re.findall(r"item(\d+)\?", messages[-1]["content"])[-1]
    return f"[[ ## answer ## ]]\n{number}\n\n[[ ## completed ## ]]"


def proposer(fails: bool = False) -> ScriptedLM:
    def write(messages: list[dict[str, str]]) -> str:
        if fails:
            raise LMError("the proposer is gone")
        return f"They all failed.\n```\n{BETTER}\n```"

    return ScriptedLM(write)


def grown(generations: int = 2, **changes: object) -> SearchConfig:
    fields = {"layout": {"reminder": (True, False)}, "pools": PoolsConfig(generations=generations), **changes}
    return CONFIG.model_copy(update=fields)


def test_reflection_adds_instructions_and_the_next_version_knows_the_old_trials(tmp_path: Path) -> None:
    lm = ScriptedLM(heedful)
    result = run(tmp_path, lm=lm, config=grown(), trials=12, proposer=proposer())
    assert result.baseline_score == 0
    assert result.best_score == 1.0
    assert result.best.predictors["self"].instructions == BETTER
    assert [trial.number for trial in result.trials] == list(range(12))
    first, second = (read_json(tmp_path / "search" / name, Pools) for name in ("pools.json", "pools-g1.json"))
    assert second.continues(first)
    assert second.predictors["self"].instructions[-1] == BETTER
    assert all(trial.params.get("self.instructions", 0) == 0 for trial in result.trials[:6])
    assert any(trial.params["self.instructions"] == 1 for trial in result.trials[6:])

    asked = len(lm.requests)
    again = run(tmp_path, lm=lm, config=grown(), trials=12, proposer=proposer(fails=True))
    assert again.trials == result.trials
    assert len(lm.requests) == asked


def test_a_proposer_that_dies_loses_nothing(tmp_path: Path) -> None:
    with pytest.raises(LMError, match="proposer is gone"):
        run(tmp_path, lm=ScriptedLM(heedful), config=grown(), trials=8, proposer=proposer(fails=True))
    lm = ScriptedLM(heedful)
    resumed = run(tmp_path, lm=lm, config=grown(), trials=8, proposer=proposer())
    assert resumed.trials == run(lm=ScriptedLM(heedful), config=grown(), trials=8, proposer=proposer()).trials


def test_a_generation_that_finds_nothing_goes_on_with_the_old_pools(tmp_path: Path) -> None:
    silent = ScriptedLM(lambda messages: "")
    result = run(tmp_path, lm=ScriptedLM(answer), config=grown(3), trials=9, proposer=silent)
    assert len(result.trials) == 9
    third = read_json(tmp_path / "search" / "pools-g2.json", Pools)
    assert len(third.predictors["self"].instructions) == 1


@pytest.mark.parametrize("pools", [PoolsConfig(generations=2), PoolsConfig(proposals=1)])
def test_someone_has_to_write(pools: PoolsConfig) -> None:
    with pytest.raises(ConfigError, match=r"search\.pools\.proposer"):
        run(config=CONFIG.model_copy(update={"pools": pools}), trials=4)
