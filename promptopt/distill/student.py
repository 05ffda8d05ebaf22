"""The student's prompt: what the tuned model will be given. Knows no rollouts."""

from typing import Literal

from promptopt.candidate import Candidate


def student_candidate(best: Candidate, teacher: Literal["gold", "candidate"]) -> Candidate:
    """Return the candidate the student is trained, evaluated and served under.

    The best candidate itself; only that gold answers carry no reasoning, so a student of gold answers is not asked for
    any.
    """
    if teacher == "gold" and best.layout.reasoning:
        return best.model_copy(update={"layout": best.layout.model_copy(update={"reasoning": False})})
    return best
