"""Candidates: as JSON, as a hash, applied to programs that keep their layout."""

from pathlib import Path

import dspy
import pytest

from promptopt.candidate import Candidate, PredictorPrompt, load_candidate
from promptopt.errors import ConfigError
from promptopt.layout.presets import LAYOUTS
from promptopt.layout.spec import Layout
from promptopt.lm.scripted import ScriptedLM

CANDIDATE = Candidate(
    layout=Layout(query_position="before", field_style="xml", output_style="xml"),
    predictors={
        "self": PredictorPrompt(
            instructions="Answer, 手短に.", demos=({"document": "A is B.", "question": "A?", "answer": "B"},)
        )
    },
)


def _program() -> dspy.Predict:
    return dspy.Predict("document, question -> answer")


def test_it_comes_back_from_disk_with_the_same_key(tmp_path: Path) -> None:
    CANDIDATE.save(tmp_path / "deep" / "candidate.json")
    loaded = load_candidate(tmp_path / "deep" / "candidate.json")
    assert loaded == CANDIDATE
    assert loaded.key() == CANDIDATE.key()
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "candidate.json"]


def test_any_change_changes_the_key() -> None:
    other = CANDIDATE.model_copy(update={"layout": Layout()})
    assert other.key() != CANDIDATE.key()


def test_an_applied_program_carries_its_layout_whatever_is_configured() -> None:
    lm = ScriptedLM(["<answer>B</answer>"] * 3)
    program = CANDIDATE.apply(_program())
    with dspy.context(lm=lm):
        assert program(document="A is B.", question="What is A?").answer == "B"
        assert program.deepcopy()(document="A is B.", question="What is A?").answer == "B"
    prompt = lm.requests[0].messages[-1]["content"]
    assert prompt.index("What is A?") < prompt.index("A is B.")


def test_the_layout_survives_dump_and_load() -> None:
    state = CANDIDATE.apply(_program()).dump_state()
    fresh = Candidate.of_program(_program(), Layout()).apply(_program())
    fresh.load_state(state)
    assert Candidate.of_program(fresh, fresh.layout) == CANDIDATE  # type: ignore[attr-defined]


def test_applying_twice_replaces_the_first_candidate() -> None:
    program = CANDIDATE.apply(_program())
    second = CANDIDATE.model_copy(update={"layout": LAYOUTS["dspy_chat"]})
    assert second.apply(program).layout == LAYOUTS["dspy_chat"]  # type: ignore[attr-defined]
    assert Candidate.of_program(program, LAYOUTS["dspy_chat"]) == second


def test_a_candidate_for_another_program_is_refused() -> None:
    with pytest.raises(ConfigError, match="predict"):
        CANDIDATE.apply(dspy.ChainOfThought("document, question -> answer"))


@pytest.mark.parametrize("text", ["", "{}", '{"layout": {"query_position": "above"}, "predictors": {}}', "\x00"])
def test_a_file_that_is_no_candidate_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "candidate.json").write_text(text)
    with pytest.raises(ConfigError, match="not a candidate file"):
        load_candidate(tmp_path / "candidate.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_candidate(tmp_path / "none.json")
