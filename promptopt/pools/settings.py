"""PoolSettings: how many instructions and demo sets of each kind a pool gets. Builds nothing."""

from dataclasses import dataclass

from promptopt.errors import ConfigError

_AT_LEAST = {"demos_per_set": 1, "bootstrap_rows": 1, "proposal_tokens": 16}


@dataclass(frozen=True)
class PoolSettings:
    """What `build_rich_pools` makes. Demo sets are counted per predictor; fewer come where the data has no more.

    Attributes:
        written: instructions beside the program's own; the same for all predictors.
        labelled: sets of random training rows with their own answers.
        diverse: sets that cover the training inputs.
        typical: sets from the middle of the training inputs.
        bootstrapped: sets of a teacher's good answers, for every predictor; needs a teacher.
        demos_per_set: largest number of demos in a set.
        min_score: a teacher's answer is a demo from this score on.
        bootstrap_rows: most training rows the teacher is asked.
        proposals: instructions that a language model writes for each predictor; needs a proposer.
        proposal_tokens: longest reply of the proposer. A model that thinks first needs thousands.

    Raises:
        ConfigError: a number is out of its range.
    """

    written: tuple[str, ...] = ()
    labelled: int = 4
    diverse: int = 0
    typical: int = 0
    bootstrapped: int = 0
    demos_per_set: int = 3
    min_score: float = 1.0
    bootstrap_rows: int = 64
    proposals: int = 0
    proposal_tokens: int = 512

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = _AT_LEAST.get(name, 0)
            if isinstance(value, int) and value < least:
                raise ConfigError(f"{name} of the pools is {value}; allowed are whole numbers from {least}.")
        if not 0 <= self.min_score <= 1:
            raise ConfigError(f"min_score of the pools is {self.min_score}; allowed are scores, 0 to 1.")
