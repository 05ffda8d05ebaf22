"""SQL metrics: what counts as the same result and the same form, and what the sandbox refuses."""

import hashlib
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from promptopt import metrics
from promptopt.errors import DataError
from promptopt.metrics.sql.execution import SqlExecution
from promptopt.metrics.sql.logical_form import SqlLogicalForm, logical_form
from promptopt.metrics.sql.rows import same_rows
from promptopt.metrics.sql.sandbox import Database, Limits, QueryResult, run_query
from promptopt.metrics.sql.synthetic import synthetic_script
from promptopt.metrics.sql.text import asks_for_order, order_keys, query_of

QUICK = Limits(time_limit_s=0.3, memory_limit_bytes=2**25, max_rows=1000, max_bytes=2**20)


@pytest.fixture
def towns(tmp_path: Path) -> Path:
    path = tmp_path / "towns #1?.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(
            "CREATE TABLE town (name TEXT, people INTEGER, area REAL);"
            "INSERT INTO town VALUES ('Aa', 5, 1.5), ('Bb', 5, 0.3), ('Cc', 9, 2.0);"
        )
    return path


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("DELETE FROM town", "not authorized"),
        ("INSERT INTO town VALUES ('x', 1, 1)", "not authorized"),
        ("UPDATE town SET people = 0", "not authorized"),
        ("DROP TABLE town", "not authorized"),
        ("CREATE TABLE x (y)", "not authorized"),
        ("CREATE TEMP TABLE x (y)", "not authorized"),
        ("ATTACH 'other.sqlite' AS other", "not authorized"),
        ("ATTACH ':memory:' AS other", "not authorized"),
        ("DETACH main", "not authorized"),
        ("VACUUM INTO 'copy.sqlite'", "authorization denied"),
        ("PRAGMA query_only = OFF", "not authorized"),
        ("PRAGMA writable_schema = ON", "not authorized"),
        ("PRAGMA table_info(town)", "not authorized"),
        ("SELECT * FROM pragma_table_info('town')", "not authorized"),
        ("SELECT load_extension('libc.so.6')", "not authorized"),
        ("SELECT random()", "not authorized"),
        ("BEGIN", "not authorized"),
        ("SELECT 1; DROP TABLE town", "one statement"),
        ("SELECT color FROM town", "no such column"),
        ("what is this", "syntax error"),
        ("", "no SELECT"),
        ("SELECT '\ud800'", "surrogates"),
        ("SELECT 1\0", "null character"),
    ],
)
def test_sandbox_refuses(query: str, error: str, towns: Path) -> None:
    before = hashlib.sha256(towns.read_bytes()).hexdigest(), sorted(os.listdir(towns.parent))
    found = run_query(Database(towns), query, QUICK)
    assert error in found.error
    assert found.rows == ()
    assert (hashlib.sha256(towns.read_bytes()).hexdigest(), sorted(os.listdir(towns.parent))) == before


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT COUNT(*) FROM n", "interrupted"),
        ("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n", "more than 1000 rows"),
        ("SELECT COUNT(*) FROM " + ", ".join(f"town t{n}" for n in range(20)), "interrupted"),
        ("SELECT * FROM " + ", ".join(f"town t{n}" for n in range(20)), "more than 1000 rows"),
        ("SELECT zeroblob(1000000000)", "too big"),
        ("SELECT hex(zeroblob(400000)) FROM town", "1048576 bytes"),
        (
            "WITH RECURSIVE n(x) AS (SELECT zeroblob(500000) UNION ALL SELECT x FROM n LIMIT 9999) "
            "SELECT length(x) FROM n ORDER BY x",
            "out of memory",
        ),
        # One step of SQLite that no progress handler sees: the operating system ends the process.
        ("SELECT printf('%.*c', 2000000000, 'x') LIKE '%a'", "limits of its process"),
    ],
)
def test_sandbox_stops_what_runs_away(query: str, error: str, towns: Path) -> None:
    began = time.monotonic()
    assert error in run_query(Database(towns), query, QUICK).error
    assert time.monotonic() - began < 30
    # The next query finds a process that works.
    assert run_query(Database(towns), "SELECT COUNT(*) FROM town", QUICK).rows == ((3,),)


def test_sandbox_keeps_the_environment_to_itself(towns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "secret")
    limits = Limits(time_limit_s=1.25)  # a process of its own
    assert run_query(Database(towns), "SELECT 1", limits).rows == ((1,),)
    children = Path("/proc/self/task").glob("*/children")
    if not (pids := [pid for file in children for pid in file.read_text().split()]):
        pytest.skip("/proc does not list child processes here")
    assert not any(b"SOME_API_KEY" in Path(f"/proc/{pid}/environ").read_bytes() for pid in pids)


def test_databases_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        Database(tmp_path / "none.sqlite")
    broken = tmp_path / "broken.sqlite"
    broken.write_bytes(b"SQLite format 3\0" + b"\xff" * 2000)
    with pytest.raises(DataError, match="cannot be used by SQLite"):
        run_query(Database(broken), "SELECT 1")
    with pytest.raises(DataError, match="no such table"):
        run_query(Database(script="INSERT INTO absent VALUES (1)"), "SELECT 1")
    with pytest.raises(DataError, match="not authorized"):
        run_query(Database(script="ATTACH 'x' AS y"), "SELECT 1")


def test_hostile_view_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / "view.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript("CREATE TABLE t (x); CREATE VIEW v AS SELECT load_extension('x') FROM t")
    assert "load_extension" in run_query(Database(path), "SELECT * FROM v").error


def result(columns: str, *rows: tuple[int | float | str | None, ...]) -> QueryResult:
    return QueryResult(tuple(columns.split()), rows)


def test_rows_are_compared_as_a_set_unless_order_counts() -> None:
    gold = result("name people", ("a", 1), ("b", 1), ("c", 2))
    assert same_rows(gold, result("n p", ("c", 2), ("a", 1), ("b", 1), ("b", 1)))
    assert not same_rows(gold, result("n p", ("a", 1), ("b", 1)))
    assert not same_rows(gold, result("n", ("a",), ("b",), ("c",)))
    assert same_rows(gold, result("n p", ("b", 1), ("a", 1), ("c", 2)), order=(1,))
    assert not same_rows(gold, result("n p", ("b", 1), ("a", 1), ("c", 2)), order=())
    assert not same_rows(gold, result("n p", ("c", 2), ("a", 1), ("b", 1)), order=(1,))


def test_columns_may_change_places_by_name_and_numbers_may_differ_in_the_tenth_digit() -> None:
    gold = result("name people", ("a", 1))
    assert same_rows(gold, result("PEOPLE Name", (1, "a")))
    assert not same_rows(gold, result("people other", (1, "a")))
    assert same_rows(result("x", (0.1 + 0.2,), (2,)), result("y", (0.3,), (2.0,)))
    assert not same_rows(result("x", (0.3,)), result("y", (0.3000001,)))
    assert not same_rows(result("x", (None,)), result("y", ("",)))


@pytest.mark.parametrize(
    ("query", "keys"),
    [
        ("SELECT name, people FROM town", None),
        ("SELECT name FROM (SELECT name FROM town ORDER BY people)", None),
        ("SELECT name, people AS p FROM town ORDER BY p DESC, name", (1, 0)),
        ("SELECT town.name, COUNT(*) FROM town GROUP BY 1 ORDER BY 2", (1,)),
        ("SELECT name, COUNT(*) FROM town GROUP BY name ORDER BY count(*)", (1,)),
        ("SELECT name FROM town ORDER BY people", ()),
        ("SELECT * FROM town ORDER BY people", ()),
        ("SELECT name FROM a UNION SELECT name FROM b ORDER BY name", (0,)),
    ],
)
def test_order_keys(query: str, keys: tuple[int, ...] | None) -> None:
    assert order_keys(query) == keys


def test_question_asks_for_order() -> None:
    assert asks_for_order("List the towns, sorted by size.")
    assert asks_for_order("人口の多い順に並べてください")
    assert not asks_for_order("Which town is the biggest?")


def test_query_of_what_a_model_wrote() -> None:
    assert query_of("Here it is:\n```sql\nSELECT 1;\n```\nDone.") == "SELECT 1"
    assert query_of(" SELECT 1 ;\n") == "SELECT 1"
    assert query_of("```\nSELECT 1") == "SELECT 1"


def test_execution_keeps_order_where_the_question_asks_for_one(towns: Path) -> None:
    row = {"db": towns.stem, "query": "SELECT name FROM town ORDER BY name", "question": "Which towns?"}
    backwards = {"query": "SELECT name FROM town ORDER BY name DESC"}
    assert SqlExecution(folder=str(towns.parent))(row, backwards) == 1.0
    assert SqlExecution(folder=str(towns.parent))({**row, "question": "Sort the towns."}, backwards) == 0.0
    assert SqlExecution(folder=str(towns.parent), order="gold")(row, backwards) == 0.0
    assert SqlExecution(folder=str(towns.parent), order="never")({**row, "question": "Sort."}, backwards) == 1.0
    del row["question"]
    assert SqlExecution(folder=str(towns.parent))(row, backwards) == 0.0


def test_execution_says_why(towns: Path) -> None:
    row = {"database": str(towns), "query": "SELECT name FROM town"}
    score = metrics.sql_execution.score(row, {"query": "SELECT nam FROM town"})
    assert score.value == score.details["runs"] == 0.0
    assert score.feedback.endswith("no such column: nam")
    score = metrics.sql_execution.score(row, {"query": "SELECT name FROM town LIMIT 1"})
    assert (score.value, score.details["runs"]) == (0.0, 1.0)
    assert "(1 rows; expected 3)" in score.feedback
    with pytest.raises(DataError, match=r"gold query.*fails"):
        metrics.sql_execution.score({**row, "query": "SELECT x FROM town"}, {"query": "SELECT 1"})
    with pytest.raises(DataError, match="there is no database"):
        metrics.sql_execution.score({**row, "database": "nowhere"}, {"query": "SELECT 1"})


def test_execution_sees_a_changed_database(towns: Path) -> None:
    row, query = {"database": str(towns), "query": "SELECT COUNT(*) FROM town"}, {"query": "SELECT 3"}
    assert metrics.sql_execution(row, query) == 1.0
    with closing(sqlite3.connect(towns)) as connection, connection:
        connection.execute("DELETE FROM town WHERE people = 9")
    os.utime(towns, ns=(1, 1))
    assert metrics.sql_execution(row, query) == 0.0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT a FROM t WHERE a = 1 AND b = 'X'", "select A from T where B='x' and 1 = a;"),
        ("SELECT a FROM t WHERE (a > 1 OR a < -1) AND NOT b", "SELECT a FROM t WHERE NOT b AND (-1 > a OR 1 < a)"),
        ('SELECT a FROM t WHERE b = "some text"', "SELECT a FROM t WHERE b = 'some text'"),
        ("SELECT x.a FROM t AS x WHERE x.b = 5.0", "SELECT a FROM t WHERE b = '5'"),
        ("SELECT COUNT(*) AS n FROM t WHERE a IN (1, 2)", 'SELECT count(*) FROM "t" WHERE a IN (2, 1)'),
        ("SELECT t.a FROM t JOIN u ON t.a = u.a", "SELECT t.a FROM t INNER JOIN u ON u.a = t.a"),
        ("SELECT a FROM t WHERE b <> 1", "SELECT a FROM t WHERE b != 1"),
    ],
)
def test_same_form(one: str, other: str) -> None:
    columns = frozenset("ab")
    assert logical_form(one, columns) == logical_form(other, columns) is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT a FROM t WHERE a > 1", "SELECT a FROM t WHERE a < 1"),
        ("SELECT a FROM t WHERE a > 1", "SELECT a FROM t WHERE a >= 1"),
        ("SELECT a FROM t WHERE a = 1 AND b = 2", "SELECT a FROM t WHERE a = 1 OR b = 2"),
        ("SELECT a, b FROM t", "SELECT b, a FROM t"),
        ("SELECT a FROM t", "SELECT DISTINCT a FROM t"),
        ("SELECT MAX(a) FROM t", "SELECT MIN(a) FROM t"),
        ("SELECT a FROM t ORDER BY a", "SELECT a FROM t ORDER BY a DESC"),
        ("SELECT a FROM t LIMIT 1", "SELECT a FROM t LIMIT 2"),
        ("SELECT a FROM t WHERE b = 'a'", "SELECT a FROM t WHERE b = a"),
        ("SELECT t.a FROM t JOIN u ON t.a = u.a", "SELECT u.a FROM t JOIN u ON t.a = u.a"),
        ("SELECT a - b FROM t", "SELECT b - a FROM t"),
        ("SELECT a FROM t WHERE a AND b OR a", "SELECT a FROM t WHERE a AND (b OR a)"),
    ],
)
def test_other_form(one: str, other: str) -> None:
    assert logical_form(one) != logical_form(other)


@pytest.mark.parametrize(
    "text", ["", "no SQL", "SELECT", "DROP TABLE t", "SELECT 1; SELECT 2", "(" * 5000, "SELECT 'a"]
)
def test_no_form(text: str) -> None:
    assert logical_form(text) is None


def test_made_up_tables_tell_conditions_apart() -> None:
    schema = "CREATE TABLE t (a INTEGER, b VARCHAR, c VARCHAR)"
    gold = "SELECT c FROM t WHERE a > 52 AND b = 'it''s'"
    row = {"query": gold, "context": schema}

    def synthetic(query: str) -> float:
        score = SqlLogicalForm().score(row, {"query": query})
        assert score.details["runs"] == 1.0
        return score.details["synthetic"]

    assert synthetic("SELECT c FROM t WHERE b = 'it''s' AND a >= 53") == 1.0  # not the same form, but the same rows
    assert synthetic("SELECT c FROM t WHERE a >= 52 AND b = 'it''s'") == 0.0
    assert synthetic("SELECT c FROM t WHERE a > 52") == 0.0
    assert synthetic("SELECT b FROM t WHERE a > 52 AND b = 'it''s'") == 0.0
    assert synthetic("SELECT COUNT(c) FROM t WHERE a > 52 AND b = 'it''s'") == 0.0
    assert SqlLogicalForm().score(row, {"query": "SELECT d FROM t"}).details == {
        "strict": 0.0,
        "runs": 0.0,
        "synthetic": 0.0,
    }
    assert synthetic_script(schema, [gold]) == synthetic_script(schema, [gold])


def test_broken_schema_is_a_data_error() -> None:
    row = {"query": "SELECT a FROM t", "schema": "CREATE TABLE t (a INTEGER); CREATE TABLE t (a INTEGER)"}
    with pytest.raises(DataError, match="already exists"):
        metrics.sql_logical_form(row, {"query": "SELECT a FROM t"})
