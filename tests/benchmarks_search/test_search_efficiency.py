"""benchmarks/search_efficiency.py: what it counts, what it keeps, and what it says of known results."""

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import dspy
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "benchmarks"))

from search_bench import analysis  # noqa: E402
from search_bench.cells import Bench, Results  # noqa: E402
from search_bench.meter import Meter, RememberedAnswers  # noqa: E402
from search_bench.outcome import Options  # noqa: E402
from search_bench.programs import build, saved_dspy_program  # noqa: E402
from search_bench.records import Cell, Point, SavedProgram, Setup, Spent, TestScores  # noqa: E402
from search_bench.report import whole_report  # noqa: E402
from search_bench.sql import SqlMatch, sql_pieces  # noqa: E402
from search_bench.tasks import TASKS, examples  # noqa: E402

from promptopt.candidate import Candidate, PredictorPrompt  # noqa: E402
from promptopt.layout.spec import Layout  # noqa: E402
from promptopt.lm.collect import collect_calls  # noqa: E402
from promptopt.lm.llama_cpp.facade import LlamaCpp  # noqa: E402
from promptopt.records import DataRow  # noqa: E402
from tests.fixtures_gguf import write_tiny_gguf  # noqa: E402

SETUP = Setup(model="m.gguf", model_sha256="0" * 64, n_ctx=2048, rows=(8, 4, 3))
HOST = {"cpu": "cpu", "cores": 2, "load_before": 1.0, "libraries": {}}
NOTES = {"train": 8, "val": 4, "test": 3, "rows_too_long": 0, "rows_looked_at": 20, "parallel": 16}


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", n_ctx_train=8192)


@pytest.fixture
def lm(gguf: Path) -> Iterator[LlamaCpp]:
    model = LlamaCpp(gguf, max_tokens=4, cache_dir=None, n_threads=1)
    yield model
    model.close()


def rows(count: int) -> list[DataRow]:
    return [
        DataRow(id=str(n), fields={"document": f"Fact {n}.", "question": "Which?", "answer": str(n)})
        for n in range(count)
    ]


def test_threads_and_second_attempts_of_dspy_are_counted(lm: LlamaCpp) -> None:
    task, meter = TASKS["demo"], Meter(lm)
    evaluate = dspy.Evaluate(devset=examples(task, rows(6)), metric=task.metric, num_threads=4, max_errors=1000)
    with collect_calls() as calls, dspy.context(lm=lm):
        evaluate(task.program())
    spent = meter.settled()
    assert spent.calls == 12  # a random model's answer cannot be read: every row asks again through JSONAdapter
    assert calls == []  # why the meter reads the engine's counters
    assert 12 <= spent.completion_tokens <= 48
    assert spent.prompt_tokens > spent.prompt_tokens_computed > 0


def test_a_repeated_request_costs_nothing_and_is_counted_apart(lm: LlamaCpp) -> None:
    memory = RememberedAnswers()
    lm.chat.cache = memory
    meter = Meter(lm, memory)
    for _ in range(2):
        lm.complete_messages([{"role": "user", "content": "The same."}])
    spent = meter.settled()
    assert (spent.calls, spent.remembered_calls) == (1, 1)
    assert spent.remembered_tokens == spent.prompt_tokens + spent.completion_tokens


def test_a_program_of_dspy_is_built_again_word_for_word() -> None:
    task = TASKS["demo"]
    program = task.program()
    predictor = program.predictors()[0]
    predictor.signature = predictor.signature.with_instructions("Look it up.")
    predictor.demos = [dspy.Example(augmented=True, **rows(1)[0].fields), *examples(task, rows(2)[1:])]
    saved = saved_dspy_program(program)
    again = build(SavedProgram.model_validate_json(saved.model_dump_json()), task).predictors()[0]
    inputs = {"document": "d", "question": "q"}
    first, second = (dspy.ChatAdapter().format(p.signature, p.demos, inputs) for p in (predictor, again))
    assert first == second
    assert "Look it up." in first[0]["content"]


def test_a_finished_cell_is_not_computed_again_and_a_torn_line_is_dropped(gguf: Path, tmp_path: Path) -> None:
    task = TASKS["demo"]
    setup = Setup(model="tiny", model_sha256="", n_ctx=4096, rows=(4, 3, 2))

    def open_lm(max_tokens: int, seed: int) -> LlamaCpp:
        return LlamaCpp(gguf, max_tokens=4, seed=seed, cache_dir=None, n_threads=1)

    bench = Bench(Results(tmp_path), setup, Options(trials=2), open_lm)
    data = bench.rows(task)
    cell = bench.run_cell(data, "promptopt", 0)
    assert cell.spent.calls >= 6
    assert [point.spent.calls for point in cell.curve] == sorted(point.spent.calls for point in cell.curve)
    assert set(cell.programs) <= {point.program for point in cell.curve}
    with (tmp_path / "cells.jsonl").open("a") as file:
        file.write('{"setup": {"mod')
    assert bench.has_cell(task, "promptopt", 0)
    assert not bench.has_cell(task, "promptopt", 1)
    bench.run_test(data, next(iter(cell.programs.values())))
    assert [len(test.scores) for test in bench.results.tests()] == [2]


def test_seeds_draw_other_train_rows_and_the_same_test_rows(gguf: Path, tmp_path: Path) -> None:
    setup = Setup(model="tiny", model_sha256="", n_ctx=4096, rows=(20, 10, 15))
    bench = Bench(Results(tmp_path), setup, Options(), lambda tokens, seed: LlamaCpp(gguf, cache_dir=None))
    data = bench.rows(TASKS["demo"])
    one, two = data.draw(0), data.draw(1)
    assert {row.id for row in one.test} == {row.id for row in two.test}
    assert {row.id for row in one.train} != {row.id for row in two.train}
    assert (len(one.train), len(one.val), len(one.test)) == (20, 10, 15)


def test_two_writings_of_a_query() -> None:
    assert sql_pieces('```sql\nSELECT a FROM t WHERE b = "X";\n```') == sql_pieces("select a from t where b = 'x'")
    score = SqlMatch().score({"query": "SELECT a FROM t"}, {"query": "SELECT b FROM t"})
    assert (score.value, score.details["exact_match"]) == (0.75, 0.0)


# What the report says of results that are known.


def program(name: str) -> SavedProgram:
    candidate = Candidate(layout=Layout(), predictors={"self": PredictorPrompt(instructions=name)})
    return SavedProgram(candidate=candidate, laid_out=False)


def cell(method: str, seed: int, curve: list[tuple[int, float]], total: int) -> Cell:
    def spent(tokens: int) -> Spent:
        return Spent(
            calls=1, prompt_tokens=tokens, prompt_tokens_computed=tokens // 2, completion_tokens=0, remembered_calls=0,
            remembered_tokens=0, seconds=tokens / 10,
        )  # fmt: skip

    programs = [program(f"{method} {n}" if n else "untouched") for n in range(len(curve))]
    notes = {**NOTES, "proposals": 3, "proposals_unread": 1} if method == "mipro" else NOTES
    return Cell(
        setup=SETUP, task="demo", method=method, seed=seed, settings={"mipro": "light"}, metric="answer_f1",
        metric_remark="", spent=spent(total), notes=notes, code="c", host=HOST,
        curve=tuple(Point(spent=spent(t), score=s, program=p.key()) for (t, s), p in zip(curve, programs, strict=True)),
        programs={p.key(): p for p in programs},
    )  # fmt: skip


def scored(scores: dict[str, list[float]]) -> list[TestScores]:
    return [
        TestScores(setup=SETUP, task="demo", program=program(name).key(), unparsed=0, too_long=0, seconds=1.0,
                   scores={str(n): value for n, value in enumerate(values)})
        for name, values in scores.items()
    ]  # fmt: skip


def cells() -> list[Cell]:
    return [
        *(cell("untouched", seed, [(50, 0.2)], 50) for seed in range(3)),
        cell("promptopt", 0, [(50, 0.2), (100, 0.6)], 500),
        cell("promptopt", 1, [(50, 0.2), (300, 0.4)], 500),
        cell("promptopt", 2, [(50, 0.2), (100, 0.5)], 500),
        cell("mipro", 0, [(200, 0.2), (800, 0.6)], 1000),
        cell("mipro", 1, [(200, 0.2), (800, 0.5)], 1000),
        cell("mipro", 2, [(200, 0.2), (800, 0.2)], 1000),
    ]


def test_the_tokens_to_the_peers_score() -> None:
    (results,) = analysis.by_task(cells(), [])
    assert analysis.seeds_that_count(results) == [0, 1]  # in seed 2 MIPROv2 found nothing
    reach = analysis.reach_of_peer(results, "promptopt", analysis.COSTS["tokens"])
    assert reach is not None
    assert list(reach.costs) == [100, math.inf]
    assert list(reach.shares) == [100 / 800, math.inf]
    assert list(reach.shares_of_all) == [100 / 1000, math.inf]
    assert reach.reached == 1


def test_equal_tokens_mean_the_smallest_total_of_all_searches() -> None:
    (results,) = analysis.by_task(cells(), [])
    cost = analysis.COSTS["tokens"]
    budgets = analysis.common_budgets(results, cost)
    assert budgets == {0: 500, 1: 500, 2: 500}
    chosen = analysis.choose(results, "mipro", cost, budgets).programs
    assert chosen[0] == program("untouched")
    assert analysis.choose(results, "mipro", cost).programs[0] == program("mipro 1")


def test_a_test_row_counts_once_whatever_the_number_of_seeds() -> None:
    scores = {"untouched": [0.0, 0.0, 1.0], "promptopt 1": [1.0, 0.0, 1.0]}
    (results,) = analysis.by_task(cells(), scored(scores))
    made = {c.method: c for c in analysis.choices(results, analysis.COSTS["tokens"])["equal"]}
    difference = analysis.test_difference(results, made["untouched"], made["promptopt"])
    assert difference is not None
    assert (difference.n, difference.mean) == (3, pytest.approx(1 / 3))


def test_the_report_is_made_of_the_lines_alone() -> None:
    lines = [c.model_dump_json() for c in cells()]
    read = [Cell.model_validate(json.loads(line)) for line in lines]
    scores = {"untouched": [0.0, 0.0, 1.0], "promptopt 1": [1.0, 0.0, 1.0], "mipro 1": [0.0, 0.0, 1.0]}
    text = whole_report(analysis.by_task(read, scored(scores)), "tokens")
    assert "2 of 3 seeds in which MIPROv2 improved" in text
    assert "not reached, never" in text
    assert "| promptopt | 0.500 | 500 | 250 |" in text
    assert "3 of the 9 instructions" in text


def test_a_reach_is_not_claimed_where_the_peer_improved_nothing() -> None:
    same = [cell("untouched", 0, [(50, 0.2)], 50), cell("promptopt", 0, [(50, 0.2)], 90)]
    text = whole_report(analysis.by_task([*same, cell("mipro", 0, [(200, 0.2)], 900)], []), "tokens")
    assert "nothing can be said" in text
    assert "reached" not in text
