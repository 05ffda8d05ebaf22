"""One of several trainings, ready to begin. Imports no torch."""

from dataclasses import dataclass

from promptopt.finetune.plan import TrainingPlan
from promptopt.finetune.rows import TokenizedRows


@dataclass(frozen=True)
class Prepared:
    """A training whose rows are tokenised and whose folder is open."""

    plan: TrainingPlan
    rows: TokenizedRows
    measured: TokenizedRows
    method: str
