"""How long training rows will be, in tokens, before there are any: the data under the untouched program."""

import json
from collections.abc import Sequence
from itertools import takewhile

from pydantic import JsonValue

from promptopt.finetune.estimate import RowLengths
from promptopt.finetune.token_count import MESSAGE_TOKENS, token_counter
from promptopt.layout.dspy_adapter import signature_spec
from promptopt.layout.render import render_messages
from promptopt.pipeline.context import RunContext
from promptopt.records import DataRow

_SAMPLE = 512
"""Rows that are tokenised at most, evenly spaced; a prompt's length varies little."""
_DEMO_TOKENS = 2 * MESSAGE_TOKENS


def training_rows(context: RunContext, train: int) -> int:
    """Return about how many rows are trained on when the train split has `train` rows."""
    distill, recipe = context.config.distill, context.config.finetune
    asked = train if distill.rows is None else min(train, distill.rows)
    return max(1, round(asked * (1 - distill.val_share) * recipe.row_share))


def row_lengths(context: RunContext, rows: Sequence[DataRow], count: int, demos: int = 0) -> RowLengths:
    """Return about how long `count` training rows are, made of data rows like `rows`.

    The prompt is that of the first predictor in the start layout, the answer the data's own where it is mapped, else
    `lm.max_tokens`; a layout that is found later may say the same in a fifth more or fewer tokens.

    Args:
        demos: demos in every prompt, as long as the longest.
    """
    tokens = token_counter(context.hf_dir)
    sample = rows[:: max(1, len(rows) // _SAMPLE)]
    name, predictor = context.program.named_predictors()[0]
    spec, prompt = signature_spec(predictor.signature), context.untouched.predictors[name]
    prompts, answers, shown, texts = [], [], [], []
    for row in sample:
        inputs: dict[str, JsonValue] = {field: row.fields.get(field, "") for field in predictor.signature.input_fields}
        messages = render_messages(context.untouched.layout, spec, prompt.demos, inputs)
        prompts.append(sum(tokens(message["content"]) + MESSAGE_TOKENS for message in messages))
        texts.append("".join(message["content"] for message in messages))
        outputs = [row.fields.get(field) for field in predictor.signature.output_fields]
        # The layout's own words stand around the answer as they stand around a field of a demo.
        answer = sum(tokens(_text(value)) + MESSAGE_TOKENS for value in outputs if value is not None)
        answers.append(answer if None not in outputs else context.config.lm.max_tokens)
        shown.append(sum(tokens(_text(value)) for value in inputs.values()) + answers[-1] + _DEMO_TOKENS)
    beside = demos * max(shown)
    totals = [prompt_tokens + answer + beside for prompt_tokens, answer in zip(prompts, answers, strict=True)]
    shared = tokens(_common_beginning(texts)) if len(texts) > 1 else 0
    return RowLengths(count, max(totals), sum(totals) / len(totals), max(answers), sum(answers) / len(answers), shared)


def _common_beginning(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    return first[: sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))]


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
