"""Agreement with people: figures computed by hand, and those of the judges without an LM on the real labels."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from promptopt.data.judged_answers import BEGIN, EVOUNA, JudgedAnswer, judged_answers
from promptopt.errors import DataError
from promptopt.evaluation.calibration import JudgeAgreement, auroc, cohens_kappa, judge_agreement
from promptopt.metrics.base import Metric
from promptopt.metrics.judges.floors import GoldContained, WordOverlap
from promptopt.records import ExampleRecord, Outcome
from tests.data_folder import data_file, data_folder


def record(name: str, score: float | None, reason: str = "") -> ExampleRecord:
    outcome = Outcome.UNSCORED if score is None else Outcome.SCORED
    return ExampleRecord(example_id=name, outcome=outcome, score=score, error=reason)


def test_figures_of_six_answers_by_hand() -> None:
    scores = {"a": 1.0, "b": 0.5, "c": 0.4, "d": 0.9, "e": 0.0, "f": None}
    labels = {"a": True, "b": True, "c": True, "d": False, "e": False, "f": True}
    found = judge_agreement("judge", [record(name, score, "no verdict") for name, score in scores.items()], labels, 0)
    # Verdicts: a, b, d right; c, e wrong. They agree on a, b, e. Right by the judge 3/5, by people 3/5.
    assert (found.n, found.decided, found.undecided) == (6, 5, {"no verdict": 1})
    assert found.agreement == pytest.approx(0.6)
    assert found.kappa == pytest.approx((0.6 - 0.52) / 0.48)
    # Of the pairs (right, wrong): a > d, a > e, b < d, b > e, c < d, c > e.
    assert found.auroc == pytest.approx(4 / 6)
    assert found.agreement_low is not None and found.agreement_high is not None
    assert found.agreement_low < 0.6 < found.agreement_high


def test_a_judge_that_decides_nothing_has_no_figures() -> None:
    found = judge_agreement("judge", [record("a", None, "why")], {"a": True}, 0)
    assert (found.agreement, found.kappa, found.auroc, found.undecided) == (None, None, None, {"why": 1})
    with pytest.raises(DataError):
        judge_agreement("judge", [], {}, 0)


def test_kappa_is_0_at_chance_and_1_at_full_agreement() -> None:
    assert cohens_kappa([(True, True), (True, False), (False, True), (False, False)]) == pytest.approx(0.0)
    assert cohens_kappa([(True, True), (False, False)]) == 1.0
    assert cohens_kappa([(True, True)]) is None


def test_auroc_counts_ties_half_and_needs_both_labels() -> None:
    assert auroc([(0.5, True), (0.5, False)]) == 0.5
    assert auroc([(0.2, True), (0.7, False)]) == 0.0
    assert auroc([(0.2, True)]) is None


@pytest.fixture
def real_data(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(os.environ, "PROMPTOPT_DATA", str(data_folder()))
    yield


def of_floor(floor: Metric, answers: list[JudgedAnswer]) -> JudgeAgreement:
    records = [record(one.id, floor.score(one.example, {"answer": one.answer}).value) for one in answers]
    return judge_agreement(floor.name, records, {one.id: one.right for one in answers}, 0)


@pytest.mark.parametrize(
    ("system", "agreement"),
    [
        pytest.param("fid", 0.921, id="fid_0.921"),
        pytest.param("gpt35", 0.918, id="gpt35_0.918"),
        pytest.param("chatgpt", 0.916, id="chatgpt_0.916"),
        pytest.param("gpt4", 0.902, id="gpt4_0.902"),
        pytest.param("newbing", 0.899, id="newbing_0.899"),
    ],
)
@pytest.mark.usefixtures("real_data")
def test_gold_contained_agrees_with_people_on_evouna(system: str, agreement: float) -> None:
    data_file(EVOUNA)
    answers = [one for one in judged_answers("evouna") if one.source == system]
    assert len(answers) == 961
    assert of_floor(GoldContained(), answers).agreement == pytest.approx(agreement, abs=0.0005)


@pytest.mark.usefixtures("real_data")
def test_word_overlap_has_auroc_0_947_on_begins_430_answers() -> None:
    data_file(BEGIN)
    answers = judged_answers("begin")
    assert (len(answers), sum(one.right for one in answers)) == (430, 180)
    assert of_floor(WordOverlap(), answers).auroc == pytest.approx(0.947, abs=0.0005)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "q", "label": true}', "line 2: field 'answer' is None"),
        ('{"answer": "a", "label": "yes"}', "line 2: field 'label' is 'yes'"),
        ('{"answer": "a", "label": 0.5}', "line 2: field 'label' is 0.5"),
        ("[1]", "line 2: a JSON list"),
    ],
)
def test_a_wrong_line_of_a_file_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text('{"answer": "a", "label": true}\n' + line + "\n")
    with pytest.raises(DataError, match=message):
        judged_answers(str(path))


def test_a_file_gives_the_same_sample_every_time(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(f'{{"question": "q", "answer": "a{n}", "label": {n % 2}}}\n' for n in range(20)))
    answers = judged_answers(str(path))
    assert [one.id for one in answers] == [one.id for one in judged_answers(str(path))]
    assert [one.answer for one in answers] != [f"a{n}" for n in range(20)]
    assert sum(one.right for one in answers) == 10
    assert answers[0].example == {"question": "q"}
