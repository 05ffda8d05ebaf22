"""Builds judges from their configuration, and calibrates them on answers that people labelled."""

from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import dspy

from promptopt.config.experiment import ExperimentConfig
from promptopt.config.judge import GgufJudge, JudgeConfig, JudgeLmConfig
from promptopt.data.judged_answers import JudgedAnswer, judged_answers
from promptopt.errors import ConfigError, ModelError, PromptoptError
from promptopt.evaluation.calibration import Calibration, beats_floor, calibration_sentence, judge_agreement
from promptopt.evaluation.in_order import in_order
from promptopt.lm.fingerprint import file_sha256
from promptopt.lm.llama_cpp.facade import LlamaCpp
from promptopt.metrics.base import Metric, Score
from promptopt.metrics.judges.asking import JudgeLM
from promptopt.metrics.judges.floors import GoldContained, WordOverlap
from promptopt.metrics.judges.jury import Jury
from promptopt.metrics.judges.rag import ASPECTS, RagJudge
from promptopt.metrics.judges.rating import CriteriaJudge, RatingJudge, ReferenceJudge
from promptopt.metrics.registry import get_metric
from promptopt.records import ExampleRecord, Outcome
from promptopt.rundir import RunDir, append_jsonl, hash_inputs, read_json, read_jsonl, write_json

CALIBRATION = "calibration.json"

PUBLISHED = {
    "evouna": "'gold contained in answer' agrees with people on 0.90 to 0.92 of the answers of each system",
    "begin": "word overlap has AUROC 0.947",
}
"""Data -> the floor that is known of it: what a judge must beat to be worth its calls."""


def experiment_metric(config: ExperimentConfig) -> Metric:
    """Return the metric of an experiment; a judge's model is loaded at its first question.

    Raises:
        ConfigError: there is no such metric, or no calibration where one is named.
        ModelError: a judge's GGUF is missing.
    """
    if isinstance(config.metric, str):
        return get_metric(config.metric)
    if config.metric.calibration is not None:
        _calibration(config.metric.calibration)
    return build_judge(config.metric, config.seed)


def build_judge(config: JudgeConfig, seed: int) -> RatingJudge | Jury:
    """Return the judge that `config` describes."""
    if config.jury:
        return Jury([_judge(config, _judge_lm(lm, seed)) for lm in config.jury])
    assert config.lm is not None
    return _judge(config, _judge_lm(config.lm, seed))


def _judge(config: JudgeConfig, lm: JudgeLM) -> RatingJudge:
    explain, temperature, field = config.explain, config.temperature, config.prediction_field
    if config.judge == "criteria":
        return CriteriaJudge(
            lm, explain=explain, temperature=temperature, prediction_field=field, criteria=config.criteria
        )
    assert field is not None
    if config.judge == "reference":
        return ReferenceJudge(lm, explain=explain, temperature=temperature, prediction_field=field)
    aspects = config.aspects or ASPECTS
    return RagJudge(lm, explain=explain, temperature=temperature, prediction_field=field, aspects=aspects)


def _judge_lm(config: JudgeLmConfig, seed: int) -> JudgeLM:
    if not isinstance(config, GgufJudge):
        server = config

        def connect() -> dspy.BaseLM:
            return dspy.LM(server.model, api_base=server.api_base)

        return JudgeLM(connect, name=server.model, identity=f"{server.model} {server.api_base or ''}".strip())
    gguf, path = config, Path(config.path).expanduser()
    if not path.is_file():
        raise ModelError(f"The judge's GGUF {str(path)!r} does not exist. `promptopt models` lists those at hand.")

    def load() -> dspy.BaseLM:
        return LlamaCpp(
            path, n_ctx=gguf.n_ctx, n_gpu_layers=gguf.n_gpu_layers, n_threads=gguf.n_threads, parallel=4,
            # A verdict must not depend on what is judged beside it.
            batch_invariant=True, seed=seed,
        )  # fmt: skip

    return JudgeLM(load, name=path.name, identity=f"{file_sha256(path)} seed {seed}")


def stated_calibration(config: ExperimentConfig, metric: Metric) -> tuple[str, tuple[str, ...]]:
    """Return what the report says of the judge's calibration, and its warnings; ("", ()) where no judge scores.

    Raises:
        ConfigError: the file is missing or no calibration.
    """
    if isinstance(config.metric, str) or not isinstance(metric, RatingJudge | Jury):
        return "", ()
    if config.metric.calibration is None:
        nobody = "Nobody measured how far the judge agrees with people: `promptopt judge calibrate` does."
        return "", (nobody,)
    found = _calibration(config.metric.calibration)
    warnings = []
    if found.asks != metric.asks():
        warnings.append("The calibration that is stated is of another judge: model, wording, temperature or aspects.")
    than = f"'{found.floor.judge}', which asks no model" if found.floor else "chance"
    if not beats_floor(found):
        warnings.append(f"The judge does not rank answers better than {than}.")
    return calibration_sentence(found), tuple(warnings)


def _calibration(path: str) -> Calibration:
    try:
        return read_json(Path(path).expanduser(), Calibration)
    except (PromptoptError, OSError, ValueError) as error:
        raise ConfigError(
            f"metric.calibration {path!r} is missing, or no file that `promptopt judge calibrate` wrote."
        ) from error


def calibrate(
    config: JudgeConfig,
    data: str,
    limit: int | None,
    folder: Path,
    seed: int = 0,
    on_answer: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Measure a judge against human labels; write `folder`/calibrate/records.jsonl, line by line, and calibration.json.

    The same call after a kill goes on; so does one with a higher limit. Another judge sets the folder aside.

    Args:
        data: "evouna", "begin", or a JSONL file (`judged_answers`).
        limit: answers to judge; None = all.
        on_answer: told after each answer how many are done, of how many.

    Raises:
        ConfigError: limit is not positive. DataError: the labelled answers lack what the judge needs.
        LMError: the judge's LM broke; what was judged is kept.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit is {limit}; allowed are whole numbers from 1.")
    answers = judged_answers(data)[:limit]
    judge = build_judge(_suited(config, data), seed)
    labels = {one.id: one.right for one in answers}
    run = RunDir(folder)
    with run.lock():
        stage = run.stage("calibrate", {"judge": judge.identity(), "data": Path(data).name, "seed": seed})
        store = stage.path / "records.jsonl"
        records = _judged(judge, answers, store, on_answer)
        floor = _floor(answers[0])
        plain = [_record(one, floor.score(one.example, {"answer": one.answer})) for one in answers] if floor else []
        found = Calibration(
            kind=config.judge,
            lms=tuple(lm.name for lm in judge.lms),
            asks=judge.asks(),
            data=Path(data).name,
            sample=hash_inputs([*sorted(labels)]),
            right=sum(labels.values()) / len(labels),
            judge=judge_agreement(judge.name, records, labels, seed),
            floor=judge_agreement(floor.name, plain, labels, seed) if floor else None,
            published=PUBLISHED.get(data, ""),
            date=datetime.now(UTC).strftime("%Y-%m-%d"),
        )
        write_json(folder / CALIBRATION, found)
    return found


def _suited(config: JudgeConfig, data: str) -> JudgeConfig:
    """Return the judge with the aspect that people labelled in `data`, where it has several and none is named."""
    labelled = {"evouna": "accuracy", "begin": "faithfulness"}.get(data)
    if config.judge != "rag" or config.aspects is not None or labelled is None:
        return config
    return config.model_copy(update={"aspects": (labelled,)})


def _judged(
    judge: RatingJudge | Jury,
    answers: Sequence[JudgedAnswer],
    store: Path,
    on_answer: Callable[[int, int], None] | None,
) -> list[ExampleRecord]:
    records = {record.example_id: record for record in read_jsonl(store, ExampleRecord)}
    missing = [one for one in answers if one.id not in records]
    if missing:
        lacking = judge.lacking(missing[0].example)
        if lacking:
            raise ConfigError(
                f"The judge {judge.name!r} needs the field(s) {lacking}, and the labelled answers have "
                f"{sorted(missing[0].example)}. Take another judge, or data that has them."
            )

    def work(one: JudgedAnswer) -> ExampleRecord:
        return _record(one, judge.score(one.example, {"answer": one.answer}))

    parallel = min(lm.parallel for lm in judge.lms) if missing else 1
    with closing(in_order(work, missing, parallel)) as done:
        for number, record in enumerate(done, start=len(answers) - len(missing) + 1):
            append_jsonl(store, record)
            records[record.example_id] = record
            if on_answer:
                on_answer(number, len(answers))
    for lm in judge.lms:
        lm.close()
    return [records[one.id] for one in answers]


def _record(one: JudgedAnswer, score: Score) -> ExampleRecord:
    undecided = score.value is None
    return ExampleRecord(
        example_id=one.id,
        outcome=Outcome.UNSCORED if undecided else Outcome.SCORED,
        score=score.value,
        feedback=score.feedback,
        details=dict(score.details),
        prediction={"answer": one.answer},
        error=score.feedback if undecided else "",
    )


def _floor(answer: JudgedAnswer) -> Metric | None:
    """Return the judge without an LM that can judge such answers; None where there is neither reference nor context."""
    floors: tuple[Metric, ...] = (GoldContained(), WordOverlap())
    return next((floor for floor in floors if not floor.lacking(answer.example)), None)
