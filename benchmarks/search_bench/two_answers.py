"""The metric of two questions at once."""

from dataclasses import dataclass

from promptopt.metrics.answers import answer_units, unit_f1
from promptopt.metrics.base import Fields, Metric, Score
from promptopt.metrics.values import feedback, gold_texts, text_of


@dataclass(frozen=True)
class BothAnswers(Metric):
    """Mean token F1 (SQuAD's rules) of `answer_1` and `answer_2`."""

    name: str = "both_answers_f1"

    def score(self, example: Fields, prediction: Fields) -> Score:
        """Return how far both answers are the gold ones."""
        values, said = [], []
        for name in self.requires():
            golds = gold_texts(example, (name,), self.name)
            text = text_of(prediction.get(name))
            values.append(max(unit_f1(answer_units(text), answer_units(gold)) for gold in golds))
            said.append(feedback(golds, text))
        return Score(sum(values) / len(values), " ".join(said))

    def requires(self) -> tuple[str, ...]:
        """Return the gold fields."""
        return ("answer_1", "answer_2")
