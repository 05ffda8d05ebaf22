"""GGUFs that carry a program, written with the tiny random model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

from promptopt.candidate import Candidate, PredictorPrompt
from promptopt.deploy.gguf_programs import gguf_program
from promptopt.layout.spec import Layout
from promptopt.lm.gguf_program import program_metadata
from promptopt.records import AnswerSettings
from tests.fixtures_gguf import write_tiny_gguf

SETTINGS = AnswerSettings(n_ctx=1024, max_tokens=8, temperature=0.0, seed=3)
DEMO = {"document": "Anna is in Rome.", "question": "Where is Anna?", "answer": "Rome"}
LAYOUT = Layout(query_position="after", field_style="xml", output_style="bare", demo_placement="turns")


def candidate_for(program: dspy.Module, layout: Layout = LAYOUT) -> Candidate:
    """Return a candidate that changes everything a candidate can."""
    prompts = {
        name: PredictorPrompt(instructions=f"Copy the answer ({name}).", demos=(DEMO,))
        for name, _ in program.named_predictors()
    }
    return Candidate(layout=layout, predictors=prompts)


@pytest.fixture(scope="session")
def carrying(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a GGUF that carries `program` under `candidate`."""

    def write(program: dspy.Module, candidate: Candidate | None = None, **model: Any) -> Path:
        carried = gguf_program(
            program, candidate or candidate_for(program), SETTINGS, path="somewhere:program", experiment="tiny"
        )
        path = tmp_path_factory.mktemp("carrying") / "model.gguf"
        return write_tiny_gguf(path, metadata=program_metadata(carried), n_ctx_train=2048, **model)

    return write
