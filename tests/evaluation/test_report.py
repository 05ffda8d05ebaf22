"""The Markdown report: its table, its bad news, and that no content breaks it."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptopt.evaluation.findings import bad_news, comparison_sentence
from promptopt.evaluation.markdown import code, escape, fence, sparkline, table
from promptopt.evaluation.report import render_report, summary_table
from promptopt.evaluation.report_data import (
    Comparison,
    DataOverview,
    ReportData,
    RunRecord,
    SearchOverview,
    TrialLine,
)
from promptopt.evaluation.statistics import PairedDifference
from promptopt.records import ChatMessage, EvaluationSummary, FinetuneResult, GgufModel, LossPoint, ParityReport


def make_summary(
    name: str = "base", title: str = "base | plain", mean: float = 0.5, **changes: Any
) -> EvaluationSummary:
    values = {
        "name": name, "title": title, "split": "test", "n": 100, "mean": mean, "ci_low": mean - 0.05,
        "ci_high": mean + 0.05, "parse_failures": 0, "unscored": 0, "prompt_tokens": 312.4, "completion_tokens": 8.0,
        "latency_s": 0.0834, "details": {"exact_match": mean / 2},
    }  # fmt: skip
    return EvaluationSummary.model_validate({**values, **changes})


def make_comparison(low: float, high: float, p_value: float = 0.01, **changes: Any) -> Comparison:
    difference = PairedDifference((low + high) / 2, low, high, p_value, 100)
    return Comparison.model_validate({"before": "base", "after": "best", "difference": difference, **changes})


def make_finetune(history: tuple[LossPoint, ...]) -> FinetuneResult:
    return FinetuneResult(
        lora_dir="lora", base_model="starter", base_quantization="nf4", best_step=20, best_eval_loss=0.4, steps=30,
        epochs=3.0, train_rows=80, val_rows=10, trained_tokens=12345, trainable_parameters=98765, wall_s=61.4,
        device="cpu", stopped_early=True, history=history,
    )  # fmt: skip


def make_report(**changes: Any) -> ReportData:
    history = tuple(
        LossPoint(step=step, epoch=step / 10, loss=2.0 - step / 20, eval_loss=0.5 if step % 10 == 0 else None)
        for step in range(1, 31)
    )
    parity = ParityReport(
        prompts=20, token_ids_equal=20, greedy_prompts=8, greedy_equal=7, mean_agreed_tokens=23.5, max_new_tokens=24,
        quantization="q8_0",
    )  # fmt: skip
    values: dict[str, Any] = {
        "experiment": "demo_run",
        "metric": "answer_f1",
        "summaries": (make_summary(), make_summary("best", "best prompt found", 0.7)),
        "comparisons": (make_comparison(0.1, 0.3),),
        "search": SearchOverview(
            trials=40, raced_out=20, failed=0, examples=64, best_trial=7,
            space=(("query_position", ("before", "after")), ("bars", ("a|b", "`"))),
            top=(TrialLine(number=7, value=0.71, examples=64, description="query_position=after | 2 demos"),),
            importances={"query_position": 0.8, "bars": 0.2},
        ),
        "winning_prompt": (
            ChatMessage(role="system", content="Answer.\n```\n# not a heading\n```"),
            ChatMessage(role="user", content="質問 | ````"),
        ),
        "winning_layout": {"query_position": "after", "prefill": "```"},
        "finetune": make_finetune(history),
        "parity": (parity,),
        "ggufs": (GgufModel(path="/x/model-q8_0.gguf", quantization="q8_0", sha256="ab" * 32, size_bytes=12_345_678),),
        "data": DataOverview(rows={"train": 80, "test": 100}, duplicates=3, fingerprints={"train": "cd" * 32}),
        "run": RunRecord(
            arguments={"experiment": "a.yaml"}, versions={"dspy": "3.4.1"}, seeds={"search": 0},
            file_hashes={"base.gguf": "ef" * 32}, git_revision="1234abc",
        ),
    }  # fmt: skip
    return ReportData.model_validate({**values, **changes})


def outside_fences(markdown: str) -> list[str]:
    """Return the lines that no fenced block holds, as CommonMark reads fences; fail where a fence stays open."""
    lines, fence_length = [], 0
    for line in markdown.split("\n"):
        ticks = re.match(r"`{3,}", line)
        if fence_length:
            if ticks and len(ticks[0]) >= fence_length and line == ticks[0]:
                fence_length = 0
        elif ticks:
            fence_length = len(ticks[0])
        else:
            lines.append(line)
    assert fence_length == 0, "a fence is never closed"
    return lines


def test_summary_table() -> None:
    rows = summary_table([make_summary(parse_failures=3)])
    assert rows == [
        ["", "score", "95 % interval", "parse failures", "prompt tokens", "latency (ms)"],
        ["base | plain", "0.500", "0.450 to 0.550", "3 of 100", "312", "83"],
    ]


def test_the_whole_report() -> None:
    report = render_report(make_report())
    lines = outside_fences(report)
    headings = [line for line in lines if line.startswith("#")]
    assert headings == [
        "# demo\\_run", "## Result", "### Parts of the score", "## Did each step help?", "## Search", "### Best trials",
        "### What mattered", "## The winning prompt", "### Its layout", "## Fine-tuning", "### Loss", "## GGUF files",
        "### Parity with the HF model", "## Data", "## Run record", "### Arguments", "### Seeds", "### Versions",
        "### File hashes (sha256)",
    ]  # fmt: skip
    for wanted in (
        "| base \\| plain | 0.500 | 0.450 to 0.550 | 0 of 100 | 312 | 83 |",
        "| 7 | 0.710 | 64 | complete | frozen |  | query\\_position=after \\| 2 demos |",
        "40 trials on up to 64 val examples: 20 ran to the end, 20 were raced out, 0 failed. Trial 7 won on frozen "
        "weights.",
        "| `bars` | `a\\|b`, `` ` `` |",
        "| `model-q8_0.gguf` | q8_0 | 12.3 MB | `abababababab` |",
        "| q8_0 | 20 of 20 | 7 of 8 | 23.5 of 24 |",
        "Left out: 3 rows with the same inputs as an earlier one.",
        "git revision: `1234abc`",
        "- best prompt found against base \\| plain: +0.200 (95 % interval +0.100 to +0.300, p = 0.010, 100 examples). "
        "It helped.",
    ):
        assert wanted in lines, wanted
    assert "Answer.\n```\n# not a heading\n```\n````" in report
    assert report.endswith("\n")
    assert not report.endswith("\n\n")


def test_tables_are_rectangular() -> None:
    width = 0
    for line in outside_fences(render_report(make_report(warnings=("a | b",)))):
        if not line.startswith("|"):
            width = 0
            continue
        bars = len(re.findall(r"(?<!\\)\|", line))
        assert width in (0, bars), line
        width = bars


def test_an_unfinished_run_has_a_report() -> None:
    report = render_report(ReportData(experiment="x", metric="m", summaries=()))
    assert report == "# x\n\nNo evaluation has run yet.\n"


def test_report_data_survives_json() -> None:
    data = make_report()
    assert ReportData.model_validate_json(data.model_dump_json()) == data


@pytest.mark.parametrize(
    ("comparison", "verdict"),
    [
        (make_comparison(0.1, 0.3), "It helped."),
        (make_comparison(0.1, 0.3, p_value=1.0), "It is not shown to help"),
        (make_comparison(-0.1, 0.3, p_value=0.3), "It is not shown to help: the difference could be chance;"),
        (make_comparison(-0.3, 0.1, p_value=0.3), "It did not help: the score fell"),
        (make_comparison(0.0, 0.0, p_value=1.0), "It did not help: the score is the same."),
        (make_comparison(-0.3, -0.1), "It made the score worse."),
        (make_comparison(-0.1, 0.05, p_value=0.6, purpose="preserve"), "a loss of up to 0.100 cannot be ruled out"),
        (make_comparison(-0.3, -0.1, purpose="preserve"), "It cost score."),
        (make_comparison(0.1, 0.3, purpose="preserve"), "It cost no score; the score even rose."),
    ],
)
def test_verdicts(comparison: Comparison, verdict: str) -> None:
    sentence = comparison_sentence(comparison, {"base": "BASE", "best": "BEST"})
    assert sentence.startswith("BEST against BASE: ")
    assert verdict in sentence


def test_no_bad_news() -> None:
    assert bad_news(make_report()) == []
    assert "Bad news" not in render_report(make_report())


def test_bad_news_is_said() -> None:
    good = make_report()
    assert good.search is not None
    report = render_report(
        make_report(
            summaries=(
                make_summary(mean=0.0, ci_low=0.0, ci_high=0.0, parse_failures=100),
                make_summary("best", "best prompt", unscored=4),
            ),
            comparisons=(make_comparison(-0.1, 0.3, p_value=0.3),),
            search=good.search.model_copy(update={"best_trial": 0, "failed": 2}),
            parity=(good.parity[0].model_copy(update={"token_ids_equal": 18, "first_mismatch": "<|im_start|>"}),),
            warnings=("the engine ran without AMX",),
        )
    )
    for wanted in (
        "It is not shown to help: the difference could be chance;",
        "The search found nothing better than the untouched program (trial 0).",
        "2 of 40 trials failed",
        "100 of 100 answers did not parse",
        "all 100 examples score the same",
        "may be off by about 0.030",
        "4 of 100 examples have no score",
        "reads 2 of 20 prompts as other tokens",
        "\\<\\|im\\_start\\|\\>",
        "- the engine ran without AMX",
    ):
        assert wanted in report, wanted
    assert report.count("**best prompt against base") == 1


def test_long_histories_are_thinned_but_evaluations_kept() -> None:
    history = tuple(
        LossPoint(
            step=step, epoch=step / 100, loss=float("nan") if step == 5 else 1.0, eval_loss=None if step % 100 else 0.5
        )
        for step in range(1, 501)
    )
    report = render_report(make_report(finetune=make_finetune(history)))
    assert "40 of 500 measurements are shown." in report
    assert all(f"\n| {step} |" in report for step in (1, 100, 200, 300, 400, 500))


def test_sparkline() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([2.0, 2.0]) == "▁▁"
    assert sparkline([]) == ""


TEXT = st.text(alphabet=st.sampled_from("`|\\*_<>#[] \nab~"), max_size=20)


@given(TEXT)
@settings(deadline=None)
def test_fences_hold_any_text(text: str) -> None:
    assert outside_fences(f"before\n{fence(text)}\nafter") == ["before", "after"]


@given(TEXT)
@settings(deadline=None)
def test_code_spans_hold_any_text(text: str) -> None:
    span = code(text)
    line = " ".join(text.split())
    if not line:
        assert span == ""
        return
    opening = re.match("`+", span)
    assert opening is not None
    inside = span[len(opening[0]) : -len(opening[0])]
    assert opening[0] not in re.findall("`+", inside)
    assert inside.strip(" ") == line


@given(st.lists(TEXT, min_size=2, max_size=4))
@settings(deadline=None)
def test_cells_hold_any_text(texts: list[str]) -> None:
    lines = table([["h"] * len(texts), [escape(text) for text in texts]]).split("\n")
    assert len(lines) == 3
    # A bar counts as a border unless an odd number of backslashes stands before it.
    borders = [bar for bar in re.finditer(r"\\*\|", lines[2]) if len(bar[0]) % 2 == 1]
    assert len(borders) == len(texts) + 1


def test_every_training_stage_has_a_line() -> None:
    history = (LossPoint(step=0, epoch=0.0, eval_loss=1.25), LossPoint(step=3, epoch=1.0, eval_loss=0.5))
    first, second = (
        make_finetune(history).model_copy(update={"method": kind, "dropped_rows": 2}) for kind in ("causal", "sft")
    )
    report = render_report(make_report(finetune=second.model_copy(update={"stages": (first, second)})))
    assert "### Stages" in report
    assert "| 1 | causal | 80 / 10 | 30 | 1.2500 -> 0.4000 | 61 |" in report
    assert "rows left out as too long | 2" in report
