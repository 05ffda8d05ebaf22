"""SQL metrics on real databases and queries: defog's sql-eval and WikiSQL."""

import re
from collections.abc import Callable
from itertools import pairwise

import pytest

from promptopt.metrics import sql_logical_form
from promptopt.metrics.sql.execution import SqlExecution
from promptopt.metrics.sql.logical_form import logical_form
from promptopt.metrics.sql.synthetic import columns_of
from tests.data_folder import data_file, read_jsonl_file


def test_all_190_defog_questions_accept_each_of_their_329_gold_queries() -> None:
    metric = SqlExecution(folder=str(data_file("sql_defog/sqlite")))
    rows = list(read_jsonl_file("sql_defog/cases.jsonl"))
    wrong = [
        (row["id"], gold)
        for row in rows
        for gold in row["gold_alternatives"]
        if metric.score(row, {"query": gold}).value != 1.0
    ]
    assert len(rows) == 190
    assert sum(len(row["gold_alternatives"]) for row in rows) == 329
    assert wrong == []


def test_of_183_defog_questions_2_accept_the_query_of_the_next_question() -> None:
    """One asks the same in other words; the other is a ratio that happens to be the same number."""
    metric = SqlExecution(folder=str(data_file("sql_defog/sqlite")))
    rows = list(read_jsonl_file("sql_defog/cases.jsonl"))
    pairs = [(row, other) for row, other in pairwise(rows) if row["db"] == other["db"]]
    right = [row["id"] for row, other in pairs if metric(row, {"query": other["gold_alternatives"][0]}) == 1.0]
    assert len(pairs) == 183
    assert right == ["questions_gen-010", "questions_gen-135"]


def test_wikisql_1499_of_1500_gold_queries_parse_and_every_tenth_runs_on_made_up_tables() -> None:
    rows = list(read_jsonl_file("sql_wikisql/wikisql_create_context.dev.jsonl"))
    forms = [logical_form(row["answer"], columns_of(row["context"])) for row in rows]
    broken = [row["answer"] for row, form in zip(rows, forms, strict=True) if form is None]
    assert len(rows) == 1500
    assert broken == [
        "SELECT MAX(for) FROM table_1_15418319_1 WHERE difference = '7'"
    ]  # sqlglot takes it for a keyword
    assert all(sql_logical_form({"query": query}, {"query": query}) == 1.0 for query in broken)
    for row in rows[::10]:
        score = sql_logical_form.score({"query": row["answer"], **row}, {"query": row["answer"]})
        assert score.details == {"strict": 1.0, "runs": 1.0, "synthetic": 1.0}, row


def dropped(query: str) -> str:
    return re.sub(r"(?: WHERE| AND) (?:(?! AND | WHERE ).)*$", "", query)


def swapped(query: str) -> str:
    return query.replace("MAX(", "MIN(") if "MAX(" in query else query.replace("MIN(", "MAX(")


def widened(query: str) -> str:
    return query.replace(" > ", " >= ") if " > " in query else query.replace(" < ", " <= ")


def misspelt(query: str) -> str:
    return re.sub(r"'([^']*)'$", r"'\1x'", query)


@pytest.mark.parametrize(
    ("change", "told", "of"),
    [
        pytest.param(dropped, 248, 249, id="the-last-condition-dropped-in-248-of-249"),
        pytest.param(swapped, 29, 29, id="max-for-min-in-29-of-29"),
        pytest.param(widened, 43, 44, id="a-neighbouring-operator-in-43-of-44"),
        pytest.param(misspelt, 221, 223, id="another-value-in-221-of-223"),
    ],
)
def test_wikisql_made_up_tables_tell(change: Callable[[str], str], told: int, of: int) -> None:
    """On rows that the tables were not built with in view."""
    verdicts = []
    for row in list(read_jsonl_file("sql_wikisql/wikisql_create_context.train.jsonl"))[1::16]:
        query = row["answer"]
        if (other := change(query)) != query:
            score = sql_logical_form.score({"query": query, **row}, {"query": other})
            assert (score.value, score.details["runs"]) == (0.0, 1.0)
            verdicts.append(score.details["synthetic"] == 0.0)
    assert (sum(verdicts), len(verdicts)) == (told, of)
