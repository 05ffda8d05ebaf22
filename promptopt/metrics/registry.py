"""Metrics by name: the ones that promptopt carries, and those a user names by import path. Scores nothing itself."""

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from promptopt.errors import ConfigError
from promptopt.metrics.answers import ExactMatch, TokenF1
from promptopt.metrics.base import Metric
from promptopt.metrics.choices import ChoiceLetter
from promptopt.metrics.grounding import Groundedness
from promptopt.metrics.json_text import JsonSchemaMatch, JsonValid
from promptopt.metrics.labels import FieldMatch, LabelAccuracy
from promptopt.metrics.meaning import MeaningMatch
from promptopt.metrics.numeric import NumericAnswer
from promptopt.metrics.overlap import Bleu, Chrf, NgramSimilarity, Rouge
from promptopt.metrics.sql.execution import SqlExecution
from promptopt.metrics.sql.logical_form import SqlLogicalForm
from promptopt.metrics.structured import FieldF1

answer_f1 = TokenF1()
answer_exact_match = ExactMatch()
answer_f1_ja = TokenF1(name="answer_f1_ja", language="ja")
answer_exact_match_ja = ExactMatch(name="answer_exact_match_ja", language="ja")
numeric_answer = NumericAnswer()
label_accuracy = LabelAccuracy()
choice_letter = ChoiceLetter()
field_match = FieldMatch()
field_f1 = FieldF1()
json_valid = JsonValid()
json_schema = JsonSchemaMatch()
viggo = MeaningMatch()
viggo_strict = MeaningMatch(name="viggo_strict", counts="strict")
viggo_slots = MeaningMatch(name="viggo_slots", counts="slots")
sql_execution = SqlExecution()
sql_logical_form = SqlLogicalForm()
bleu = Bleu()
bleu_ja = Bleu(name="bleu_ja", language="ja")
chrf = Chrf()
rouge_1 = Rouge(name="rouge_1", variant="rouge1")
rouge_2 = Rouge(name="rouge_2", variant="rouge2")
rouge_l = Rouge()
rouge_1_ja = Rouge(name="rouge_1_ja", variant="rouge1", language="ja")
rouge_2_ja = Rouge(name="rouge_2_ja", variant="rouge2", language="ja")
rouge_l_ja = Rouge(name="rouge_l_ja", language="ja")
ngram_similarity = NgramSimilarity()
ngram_similarity_ja = NgramSimilarity(name="ngram_similarity_ja", language="ja")
groundedness = Groundedness()
groundedness_ja = Groundedness(name="groundedness_ja", language="ja")

METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            answer_f1,
            answer_exact_match,
            answer_f1_ja,
            answer_exact_match_ja,
            numeric_answer,
            label_accuracy,
            choice_letter,
            field_match,
            field_f1,
            json_valid,
            json_schema,
            viggo,
            viggo_strict,
            viggo_slots,
            sql_execution,
            sql_logical_form,
            bleu,
            bleu_ja,
            chrf,
            rouge_1,
            rouge_2,
            rouge_l,
            rouge_1_ja,
            rouge_2_ja,
            rouge_l_ja,
            ngram_similarity,
            ngram_similarity_ja,
            groundedness,
            groundedness_ja,
        )
    }
)
"""Name -> metric, as an experiment's `metric:` names it."""


def get_metric(name: str) -> Metric:
    """Return the metric called `name`, or the one that the import path `module:name` leads to.

    Raises:
        ConfigError: there is no such metric, or the import path leads to something else.
    """
    if ":" in name:
        return _imported(name)
    if name in METRICS:
        return METRICS[name]
    close = difflib.get_close_matches(name, METRICS, n=1, cutoff=0.4)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ConfigError(
        f"There is no metric {name!r}.{hint} Allowed: {', '.join(sorted(METRICS))}, or an import path `module:name` of "
        "a promptopt.metrics.base.Metric."
    )


def _imported(path: str) -> Metric:
    # Imported here: `import promptopt.metrics` alone should not load every config model.
    from promptopt.config.load import import_object

    found = import_object(path, what="metric")
    if isinstance(found, type) and issubclass(found, Metric):
        raise ConfigError(f"The metric {path!r} is a class. Name an instance, e.g. `my_metric = {found.__name__}()`.")
    if not isinstance(found, Metric):
        raise ConfigError(
            f"The metric {path!r} is a {type(found).__name__}. It must be an instance of promptopt.metrics.base.Metric."
        )
    return found
