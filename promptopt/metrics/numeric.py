"""Numbers at the end of a solution, by the GSM8K rules. Knows no arithmetic."""

import re
import unicodedata
from dataclasses import dataclass

from promptopt.errors import DataError
from promptopt.metrics.base import Fields, GoldMetric, Score
from promptopt.metrics.values import feedback, first_field, text_of

# A minus sign counts only where no operand stands before it: the last number of "16-3" is 3.
_SIGN = r"(?:(?<![\w.)])-\$?|\$-?)?"
_DIGITS = r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<![\d.])\.\d+)"
_NUMBER = _SIGN + _DIGITS
_ANY_NUMBER = re.compile(_NUMBER)
_MARKED = re.compile(rf"####\s*({_NUMBER})")


def final_number(text: str) -> str | None:
    """Return the number that `text` ends on, without commas and currency sign; None where there is none.

    The last `#### n` decides where there is one, else the last number of the text (Cobbe et al. 2021). Full-width
    digits and the typographic minus are read as ASCII.
    """
    plain = unicodedata.normalize("NFKC", text).replace("−", "-")
    marked = _MARKED.findall(plain)
    found = marked[-1:] or _ANY_NUMBER.findall(plain)[-1:]
    return found[0].replace(",", "").replace("$", "") if found else None


@dataclass(frozen=True)
class NumericAnswer(GoldMetric):
    """1 where the final number equals the gold's as a string ("18.0" is not "18"), else 0; no number is wrong.

    Source: GSM8K (Cobbe et al. 2021, arXiv 2110.14168) and its `extract_answer`. A prediction typed as a number is
    written without a needless ".0" first.

    Attributes:
        gold_fields: the first of these that the example has holds the gold solution or number.
    """

    name: str = "numeric_answer"
    prediction_field: str = "answer"
    gold_fields: tuple[str, ...] = ("answer",)

    def score(self, example: Fields, prediction: Fields) -> Score:
        """Return whether the final number is right.

        Raises:
            DataError: the gold answer is missing or holds no number.
        """
        field = first_field(example, self.gold_fields, self.name)
        solution = text_of(example.get(field))
        gold = final_number(solution)
        if gold is None:
            raise DataError(f"The metric {self.name!r}: field {field!r} holds no number: {solution!r}")
        text = text_of(prediction.get(self.prediction_field))
        found = final_number(text)
        return Score(float(found == gold), feedback([gold], text if found is None else found))
