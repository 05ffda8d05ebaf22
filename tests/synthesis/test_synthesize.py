"""The whole loop with a scripted teacher: balance, provenance, cost, and going on after a kill."""

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from promptopt.errors import LMError
from promptopt.lm.protocol import Messages
from promptopt.lm.scripted import ScriptedLM
from promptopt.synthesis.passages import SourceDocument
from promptopt.synthesis.synthesize import Synthesis
from tests.synthesis.writers import config, synthesis, write_by_rule

REPOSITORY = Path(__file__).parents[2]


class _Failing:
    """Writes by rule until a request that fails; all of them have one fingerprint."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __call__(self, messages: Messages) -> str:
        self.at -= 1
        if not self.at:
            raise RuntimeError("gone")
        return write_by_rule(messages)


def _content(found: Synthesis) -> list[object]:
    return [[row.line() for row in found.rows], list(found.rejected)]


def test_rows_are_balanced_checked_and_say_where_they_come_from(tmp_path: Path) -> None:
    lm = ScriptedLM(write_by_rule)
    found = synthesis(tmp_path, lm, config())
    report = found.report
    assert (report.rows, report.rows_per_document, report.documents_without_row) == (20, (5, 5), 0)
    assert report.rejected["not_parsed"] == report.rejected["not_answerable"] > 0
    assert report.calls == len(lm.requests) == report.rows + len(found.rejected)
    assert len({str(row.fields["question"]) for row in found.rows}) == 20
    for row in found.rows:
        assert str(row.fields["answer"]) in str(row.fields["document"])
        assert row.provenance["fingerprint"] == lm.fingerprint
        assert row.provenance["checks"] == {"span": 1.0, "overlap": 1.0, "groundedness": 1.0}
        assert str(row.fields["document"]).startswith(f"Item {str(row.provenance['document_id'])[1:]}x0 ")
    seeds = [request.seed for request in lm.requests]
    assert len(set(seeds)) == len(seeds)


def test_cost_is_the_sum_over_all_replies(tmp_path: Path) -> None:
    lm = ScriptedLM(write_by_rule)
    report = synthesis(tmp_path, lm, config()).report
    prompts = [sum(len(message["content"].split()) for message in request.messages) for request in lm.requests]
    lines = [json.loads(line) for line in (tmp_path / "attempts.jsonl").read_text().splitlines()]
    assert report.prompt_tokens == sum(prompts) == sum(line["prompt_tokens"] for line in lines)
    assert report.completion_tokens == sum(len(line["completion"].split()) for line in lines)
    assert report.lm_seconds == pytest.approx(sum(line["latency_s"] for line in lines), abs=1e-3)
    assert report.calls_now == report.calls == len(lines)
    assert f"{report.prompt_tokens} prompt tokens" in "\n".join(report.lines())


def test_requests_at_once_change_no_row(tmp_path: Path) -> None:
    alone = synthesis(tmp_path / "alone", ScriptedLM(write_by_rule), config())
    together = synthesis(tmp_path / "together", ScriptedLM(write_by_rule), config(), parallel=5)
    assert _content(alone) == _content(together)
    other = synthesis(tmp_path / "other", ScriptedLM(write_by_rule), config(seed=1))
    assert _content(other) != _content(alone)


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    whole = synthesis(tmp_path / "whole", ScriptedLM(_Failing(10_000)), config())
    first, second = ScriptedLM(_Failing(9)), ScriptedLM(_Failing(10_000))
    assert first.fingerprint == second.fingerprint
    with pytest.raises(LMError, match=r"The teacher scripted does not answer: .* gone\. .*give the same command again"):
        synthesis(tmp_path / "cut", first, config())
    resumed = synthesis(tmp_path / "cut", second, config())
    assert len(second.requests) == whole.report.calls - 8 == resumed.report.calls_now
    assert _content(resumed) == _content(whole)
    third = ScriptedLM(_Failing(1))
    assert _content(synthesis(tmp_path / "cut", third, config())) == _content(whole)
    assert not third.requests


def test_a_killed_process_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    code = f"""
import os, pathlib
from promptopt.lm.scripted import ScriptedLM
from tests.synthesis.writers import config, synthesis, write_by_rule
class Killed(ScriptedLM):
    fingerprint = "f"
def script(messages):
    if len(lm.requests) == 7:
        os.kill(os.getpid(), 9)
    return write_by_rule(messages)
lm = Killed(script)
synthesis(pathlib.Path({str(tmp_path)!r}), lm, config())
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    store = tmp_path / "attempts.jsonl"
    assert len(store.read_text().splitlines()) == 6
    with store.open("a") as file:
        file.write('{"key": "torn by the ki')

    class Same(ScriptedLM):
        fingerprint = "f"

    lm = Same(write_by_rule)
    report = synthesis(tmp_path, lm, config()).report
    assert report.rows == 20
    assert len(lm.requests) == report.calls - 6
    assert Counter(json.loads(line)["key"] for line in store.read_text().splitlines()).most_common(1)[0][1] == 1


def test_keywords_that_the_source_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [SourceDocument(f"k{i}", ("",), (f"oak table{chr(97 + i)}", "free delivery")) for i in range(3)]
    monkeypatch.setattr("tests.synthesis.writers.documents", lambda n: given)

    def write(messages: Messages) -> str:
        table = "".join(messages[-1]["content"].split("oak table")[1][:1])
        return json.dumps({"text": f"The oak table{table} comes with free delivery, made to last for a lifetime."})

    asked = config(
        task="keywords_text", source={"kind": "jsonl", "path": "k.jsonl"}, fields={"keywords": "k"}, rows=9,
        rows_per_document=1,
    )  # fmt: skip
    found = synthesis(tmp_path, ScriptedLM(write), asked)
    assert [row.fields["keywords"] for row in found.rows] == [list(d.keywords) for d in _in_order(found, given)]
    assert found.report.rows == 3
    assert set(found.rows[0].line()) == {"keywords", "text", "provenance"}


def _in_order(found: Synthesis, given: list[SourceDocument]) -> list[SourceDocument]:
    by_id = {document.id: document for document in given}
    return [by_id[str(row.provenance["document_id"])] for row in found.rows]
