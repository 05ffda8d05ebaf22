"""The student's prompt: what the tuned model will be given. Knows no rollouts."""

import re
from typing import Literal

from promptopt.candidate import Candidate, PredictorPrompt
from promptopt.config.recipe import TrainingRecipe
from promptopt.layout.spec import Layout

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")


def student_candidate(
    best: Candidate, teacher: Literal["gold", "candidate"], recipe: TrainingRecipe | None = None
) -> Candidate:
    """Return the candidate the student is trained, evaluated and served under: what `recipe` leaves of `best`.

    What a tuned model knows by heart need not stand in every prompt: instructions may be shortened or left out, demos
    dropped, reasoning no longer asked for. Gold answers carry no reasoning, so a student of gold answers is never asked
    for any (by its layout; a `reasoning` field of the signature stays).
    """
    view = recipe or TrainingRecipe()
    dropped = teacher == "gold" or view.student_reasoning == "drop"
    return best.model_copy(
        update={
            "layout": _without_reasoning(best.layout) if dropped else best.layout,
            "predictors": {name: _seen(prompt, view, dropped) for name, prompt in best.predictors.items()},
        }
    )


def first_sentence(text: str) -> str:
    """Return the first sentence of `text`, or its first line where that is shorter."""
    line = next((line for line in text.strip().splitlines() if line.strip()), "")
    return _SENTENCE_END.split(line.strip(), maxsplit=1)[0]


def _seen(prompt: PredictorPrompt, view: TrainingRecipe, dropped: bool) -> PredictorPrompt:
    # DSPy writes instructions of its own in place of an empty text; a blank is kept, and rendered as nothing.
    words = {"full": prompt.instructions, "short": first_sentence(prompt.instructions), "none": " "}
    own = prompt.layout
    return prompt.model_copy(
        update={
            "instructions": words[view.student_instructions],
            "demos": prompt.demos[: view.student_demos],
            "layout": _without_reasoning(own) if own is not None and dropped else own,
        }
    )


def _without_reasoning(layout: Layout) -> Layout:
    return layout.model_copy(update={"reasoning": False}) if layout.reasoning else layout
