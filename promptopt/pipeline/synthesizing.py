"""Composes `promptopt data synthesize`: documents, teacher and checks from a config; rows and a report as files."""

import json
from collections.abc import Callable
from pathlib import Path

from promptopt.config.pools import GgufProposer
from promptopt.config.synthesis import SynthesisConfig
from promptopt.errors import DataError
from promptopt.layout.dspy_adapter import LayoutAdapter
from promptopt.metrics.registry import get_metric
from promptopt.pipeline.writers import writer_lm
from promptopt.rundir import RunDir, write_json, write_jsonl, write_text
from promptopt.synthesis.checks import RowChecker
from promptopt.synthesis.passages import load_documents
from promptopt.synthesis.replies import Teacher
from promptopt.synthesis.report import SynthesisReport
from promptopt.synthesis.signatures import signature_for, teacher_layout
from promptopt.synthesis.synthesize import synthesize_rows

ROWS, REJECTED, ATTEMPTS, REPORT = "rows.jsonl", "rejected.jsonl", "attempts.jsonl", "report.json"


def output_folder(config: SynthesisConfig) -> Path:
    """Return the folder that a synthesis writes."""
    return Path(config.out).expanduser() if config.out else Path("synthetic", config.name)


def synthesize(config: SynthesisConfig, on_progress: Callable[[int, int], None] | None = None) -> SynthesisReport:
    """Write `rows.jsonl`, `rejected.jsonl` and `report.json` into the folder of `config`, and return the report.

    `attempts.jsonl` grows reply by reply; what it holds is not asked for again, so the same call goes on after a kill.
    With other checks or more rows, prompts that stay the same are answered from it too; those that name the questions
    written so far may change.

    Raises:
        DataError: the source is missing or has no text; or no row passed (the files are written all the same).
        ConfigError: the metric is not known or cannot be used on such rows; or another process works in the folder.
        ModelError: the teacher's file is missing or damaged.
        LMError: the teacher is broken or out of reach.
        MissingExtraError: the source or the teacher needs a package that is not installed.
    """
    metric = get_metric(config.checks.metric) if config.checks.metric else None
    documents, bad_rows = load_documents(config)
    lm = writer_lm(config.teacher, config.seed, config.temperature, remember=False)
    try:
        local = isinstance(config.teacher, GgufProposer)
        folder = output_folder(config)
        with RunDir(folder).lock():
            teacher = Teacher(
                lm,
                LayoutAdapter(teacher_layout(config.language, constrained=local)),
                signature_for(config.task, keywords_given="keywords" in config.fields),
                folder / ATTEMPTS,
                config.max_tokens,
                config.temperature,
            )
            found = synthesize_rows(
                config,
                documents,
                teacher,
                RowChecker(config.task, config.checks, config.language, metric),
                bad_rows=bad_rows,
                parallel=int(getattr(lm, "parallel", 1)) if local else config.parallel,
                on_progress=on_progress,
            )
            lines = (json.dumps(row.line(), ensure_ascii=False) + "\n" for row in found.rows)
            write_text(folder / ROWS, "".join(lines))
            write_jsonl(folder / REJECTED, found.rejected)
            write_json(folder / REPORT, found.report)
    finally:
        lm.close()
    if not found.rows:
        reasons = ", ".join(f"{reason} {count}" for reason, count in found.report.rejected.items())
        raise DataError(
            f"None of {found.report.calls} replies of {teacher.name} gave a row ({reasons}). {folder / REJECTED} holds "
            "each with its reason: take a better teacher, or loosen `checks`."
        )
    return found.report
