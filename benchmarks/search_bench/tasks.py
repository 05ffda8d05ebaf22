"""What is optimized: programs, metrics and rows. A seed draws train and val; all seeds have the same test rows."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import dspy
from search_bench.held_out import answer_two
from search_bench.sql import SqlMatch, question_to_sql
from search_bench.two_answers import BothAnswers

from programs.document_qa import answer_from_document
from programs.meaning import sentence_to_meaning
from promptopt.config.data import DataConfig
from promptopt.data.loaders import LoadedData, load_rows
from promptopt.data.splits import Splits, position, split_rows
from promptopt.lm.llama_cpp.facade import LlamaCpp
from promptopt.metrics import METRICS
from promptopt.metrics.base import Metric
from promptopt.records import DataRow

TEST_SHARE = 0.4
TEST_SEED = 7
MOST_ROWS_LOOKED_AT = 1500
"""Of each of the two pools, at random: measuring all prompts of a large file would take minutes."""


@dataclass(frozen=True)
class Sizes:
    """How many rows each split gets at most."""

    train: int
    val: int
    test: int


@dataclass(frozen=True)
class Task:
    """One program on one data set.

    Attributes:
        data: keyword arguments of DataConfig, without the split.
        max_tokens: longest answer.
        remark: what a reader of the table has to know of the metric.
    """

    name: str
    program: Callable[[], dspy.Module]
    metric: Metric
    data: dict[str, Any]
    max_tokens: int
    remark: str = ""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The fields the program is given."""
        return tuple(self.data["inputs"])

    def config(self, sizes: Sizes, seed: int) -> DataConfig:
        """Return the data's configuration."""
        split = {"train": sizes.train, "val": sizes.val, "test": sizes.test}
        return DataConfig.model_validate({**self.data, "split": split, "seed": seed})


_QA = {"document": "context", "question": "question", "answer": "answers.0", "answers": "answers"}

_TASKS = (
    Task(
        "facts", answer_from_document, METRICS["answer_f1"],
        {
            "source": {"kind": "python", "factory": "search_bench.held_out:facts", "n": 1000, "seed": 7},
            "fields": {"document": "document", "question": "question", "answer": "answer"},
            "inputs": ("document", "question"), "group": "document",
        }, 32, "documents of the starter model's own kind, with names held out of its training",
    ),
    Task(
        "two_facts", answer_two, BothAnswers(),
        {
            "source": {"kind": "python", "factory": "search_bench.held_out:two_facts", "n": 1000, "seed": 7},
            "fields": {name: name for name in ("document", "question_1", "question_2", "answer_1", "answer_2")},
            "inputs": ("document", "question_1", "question_2"), "group": "document",
        }, 64, "the same documents with two questions; mean F1 of both answers",
    ),
    Task(
        "demo", answer_from_document, METRICS["answer_f1"],
        {
            "source": {"kind": "python", "factory": "experiments.demo.generate:generate", "n": 1000, "seed": 7},
            "fields": {"document": "document", "question": "question", "answer": "answer"},
            "inputs": ("document", "question"), "group": "document",
        }, 48,
    ),
    Task(
        "viggo", sentence_to_meaning, METRICS["viggo"],
        {
            "source": {"kind": "csv", "path": "viggo/train.csv"},
            "test_source": {"kind": "csv", "path": "viggo/valid.csv"},
            "fields": {"sentence": "ref", "meaning": "mr"}, "inputs": ("sentence",), "group": "mr",
        }, 160,
    ),
    Task(
        "docqa_xquad", answer_from_document, METRICS["answer_f1"],
        {
            "source": {"kind": "jsonl", "path": "docqa_xquad/xquad_en.jsonl"},
            "fields": _QA, "inputs": ("document", "question"), "group": "context",
        }, 48,
    ),
    Task(
        "docqa_jsquad", answer_from_document, METRICS["answer_f1_ja"],
        {
            "source": {"kind": "jsonl", "path": "docqa_jsquad/jsquad.jsonl"},
            "fields": _QA, "inputs": ("document", "question"), "group": "context",
        }, 48, "F1 of characters, JSQuAD's rules",
    ),
    Task(
        "sql_wikisql", question_to_sql, SqlMatch(),
        {
            "source": {"kind": "jsonl", "path": "sql_wikisql/wikisql_create_context.train.jsonl"},
            "test_source": {"kind": "jsonl", "path": "sql_wikisql/wikisql_create_context.dev.jsonl"},
            "fields": {"table": "context", "question": "question", "query": "answer"},
            "inputs": ("table", "question"), "group": "table_id",
        }, 96, "F1 of the queries' pieces after normalisation: the slice has no table contents to execute queries on",
    ),
)  # fmt: skip
TASKS = {task.name: task for task in _TASKS}


@dataclass(frozen=True)
class TaskRows:
    """The rows of a task whose prompt fits.

    Attributes:
        pool: what train and val are drawn from; test: the test rows, no matter the seed.
        looked_at, dropped: rows whose prompt was measured, and those that were too long.
    """

    task: Task
    sizes: Sizes
    pool: tuple[DataRow, ...]
    test: tuple[DataRow, ...]
    looked_at: int
    dropped: int

    def draw(self, seed: int) -> Splits:
        """Return train and val of `seed`, and test; no two share a row or a group."""
        return split_rows(LoadedData(self.pool, self.test, 0), self.task.config(self.sizes, seed))


def load_task(task: Task, lm: LlamaCpp, sizes: Sizes) -> TaskRows:
    """Return the task's rows, without those whose plain prompt and answer do not fit into the model's context."""
    loaded = load_rows(task.config(sizes, TEST_SEED))
    if loaded.test_rows is None:
        test = [row for row in loaded.rows if position(_unit(row), TEST_SEED) < TEST_SHARE]
    else:
        test = list(loaded.test_rows)
    held_out = {_unit(row) for row in test}
    pool = [row for row in loaded.rows if _unit(row) not in held_out]
    looked = [_sample(rows, MOST_ROWS_LOOKED_AT) for rows in (pool, test)]
    kept = [tuple(row for row in rows if _fits(task, row, lm)) for rows in looked]
    n_looked, n_kept = sum(map(len, looked)), sum(map(len, kept))
    return TaskRows(task, sizes, kept[0], kept[1][: sizes.test], n_looked, n_looked - n_kept)


def examples(task: Task, rows: Iterable[DataRow]) -> list[dspy.Example]:
    """Return rows as DSPy's examples."""
    return [dspy.Example(**row.fields).with_inputs(*task.inputs) for row in rows]


def prompt_tokens(task: Task, row: DataRow, lm: LlamaCpp, demos: Sequence[DataRow] = ()) -> int:
    """Return how long the prompt of a row is as DSPy's ChatAdapter writes it."""
    signature = task.program().predictors()[0].signature
    shown = [dspy.Example(**demo.fields) for demo in demos]
    inputs = {name: row.fields[name] for name in task.inputs}
    messages = dspy.ChatAdapter().format(signature, shown, inputs)
    return lm.count_tokens([{"role": m["role"], "content": m["content"]} for m in messages])


def _fits(task: Task, row: DataRow, lm: LlamaCpp) -> bool:
    return prompt_tokens(task, row, lm) + task.max_tokens <= lm.n_ctx


def _sample(rows: Sequence[DataRow], most: int) -> list[DataRow]:
    return sorted(rows, key=lambda row: position(row.id, TEST_SEED))[:most]


def _unit(row: DataRow) -> str:
    return row.group or row.id
