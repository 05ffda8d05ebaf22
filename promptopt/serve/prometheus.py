"""The model's counters in Prometheus' text format."""

from collections.abc import Mapping

from promptopt.serve.served import ModelStats

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metrics_text(stats: ModelStats) -> str:
    """Return the page that GET /metrics shows."""
    lines: list[str] = []
    for name, kind, text, values in _metrics(stats):
        lines += [f"# HELP promptopt_{name} {text}", f"# TYPE promptopt_{name} {kind}"]
        lines += [f"promptopt_{name}{labels} {value}" for labels, value in values.items()]
    return "\n".join(lines) + "\n"


def _metrics(stats: ModelStats) -> list[tuple[str, str, str, Mapping[str, float]]]:
    """Return (name, type, explanation, labels -> value)."""
    ended = {'{result="done"}': stats.requests_done, '{result="failed"}': stats.requests_failed}
    return [
        ("requests_total", "counter", "Requests that have ended.", ended),
        ("requests_running", "gauge", "Requests that are being answered.", {"": stats.requests_running}),
        ("requests_waiting", "gauge", "Requests that wait for a free sequence.", {"": stats.requests_waiting}),
        ("prompt_tokens_total", "counter", "Tokens of all prompts.", {"": stats.prompt_tokens}),
        (
            "prompt_tokens_computed_total",
            "counter",
            "Prompt tokens that were computed; the others were resident already.",
            {"": stats.prompt_tokens_computed},
        ),
        ("completion_tokens_total", "counter", "Generated tokens.", {"": stats.completion_tokens}),
        ("decode_seconds_total", "counter", "Seconds spent in llama.cpp.", {"": stats.decode_seconds}),
        ("busy_seconds_total", "counter", "Seconds in which there was something to do.", {"": stats.busy_seconds}),
    ]
