"""Does it matter where the question stands? One program, one model; question before, after or around the document.

    python -m experiments.query_position.run [--lm MODEL.gguf] [--rows 100] [--languages en,ja] [--out DIR]

Every cell is a language, a kind of prompt and a position; all cells of a language have the same rows. `plain` is a
short instruction before labelled fields and nothing about the answer's form; `structured` is DSPy's own prompt, with
the fields described and the form of the answer shown. A hallucination is an answer that states a number, date, name,
quote or URL that does not stand in the document or question (`promptopt.metrics.grounding`). Intervals: 95 %, bootstrap
over rows.

Each example is a line of DIR/<cell>.jsonl; the same command goes on where it was killed. Writes DIR/table.md and
DIR/figure.svg. Greedy answers, equal on every run with the same model, machine and library versions.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import promptopt as po
from experiments.query_position.figure import Dot, draw
from programs.document_qa import answer_from_document
from promptopt.candidate import Candidate
from promptopt.config.data import DataConfig
from promptopt.data.loaders import load_rows
from promptopt.evaluation.compare import compare
from promptopt.evaluation.evaluate import Evaluator, evaluate_rows
from promptopt.evaluation.markdown import table
from promptopt.evaluation.statistics import Interval, PairedDifference, bootstrap_interval
from promptopt.layout.spec import Layout, QueryPosition
from promptopt.metrics import METRICS, Metric
from promptopt.metrics.grounding import Groundedness
from promptopt.pipeline.models import starter_gguf
from promptopt.records import DataRow, ExampleRecord, Outcome

INPUTS = ("document", "question")
POSITIONS: tuple[QueryPosition, ...] = ("before", "after", "both")
PLAIN = Layout(
    field_style="label", instruction_place="user_start", descriptions="none", structure=False, output_style="bare",
    reminder=False,
)  # fmt: skip
PROMPTS = {"plain": PLAIN, "structured": Layout()}
SOURCES = {
    "en": ("docqa_xquad/xquad_en.jsonl", "https://github.com/google-deepmind/xquad", "answer_f1"),
    "ja": ("docqa_jsquad/jsquad.jsonl", "https://github.com/yahoojapan/JGLUE", "answer_f1_ja"),
}


@dataclass(frozen=True)
class Cell:
    """One way of asking, and what came out."""

    language: str
    prompt: str
    position: str
    records: list[ExampleRecord]
    hallucinated: list[float]

    @property
    def scores(self) -> list[float]:
        """Score of each row; 0 where the answer did not parse."""
        return [record.score or 0.0 for record in self.records]

    @property
    def parse_failures(self) -> int:
        """Answers that are not in the layout's form."""
        return sum(record.outcome is Outcome.PARSE_FAILED for record in self.records)


def rows_of(language: str, n: int) -> list[DataRow]:
    """Return `n` rows of one language's data, one per document as far as they last."""
    path, origin, _ = SOURCES[language]
    config = DataConfig.model_validate(
        {
            "source": {"kind": "jsonl", "path": path},
            "fields": {"document": "context", "question": "question", "answer": "answers.0", "answers": "answers"},
            "inputs": INPUTS,
            "split": {"train": 1, "val": 1, "test": 1},  # not used: nothing is searched or trained
            "origin": origin,
        }
    )
    rows = sorted(load_rows(config).rows, key=lambda row: row.id)
    first = list({row.fields["document"]: row for row in reversed(rows)}.values())[::-1]
    return [*first, *(row for row in rows if row not in first)][:n]


def measure(lm: po.LlamaCpp, language: str, rows: Sequence[DataRow], out: Path) -> list[Cell]:
    """Return all cells of one language."""
    metric: Metric = METRICS[SOURCES[language][2]]
    grounded = Groundedness(language=language, overlap=False)  # type: ignore[arg-type]
    program = answer_from_document()
    cells = []
    for prompt, layout in PROMPTS.items():
        for position in POSITIONS:
            candidate = Candidate.of_program(program, layout.model_copy(update={"query_position": position}))
            evaluator = Evaluator(program, candidate, lm, metric, INPUTS)
            records = evaluate_rows(evaluator, rows, out / f"{language}-{prompt}-{position}.jsonl")
            made_up = [
                grounded.score(row.fields, record.prediction).details.get("hallucinated", 0.0)
                for row, record in zip(rows, records, strict=True)
                if record.outcome is not Outcome.PARSE_FAILED
            ]
            cells.append(Cell(language, prompt, position, records, made_up))
            print(f"{language} {prompt:<10} {position:<6} {fmean(cells[-1].scores):.3f}", file=sys.stderr, flush=True)
    return cells


def as_table(cells: Sequence[Cell]) -> str:
    """Return the cells as a Markdown table; differences are to the question before the document, paired by row."""
    header = ["", "prompt", "question", "score", "95 %", "− before", "95 %", "parse failures", "hallucinated", "95 %"]
    rows = []
    for cell in cells:
        first = next(
            one for one in cells if (one.language, one.prompt, one.position) == (cell.language, cell.prompt, "before")
        )
        found = None if cell is first else compare(first.records, cell.records, seed=0)
        made_up = _interval(cell.hallucinated)
        rows.append(
            [
                cell.language, cell.prompt, cell.position,
                f"{fmean(cell.scores):.3f}", _shown(bootstrap_interval(cell.scores, seed=0)),
                "" if found is None else f"{found.mean:+.3f}", "" if found is None else _shown(found, "+"),
                f"{cell.parse_failures} of {len(cell.records)}",
                f"{fmean(cell.hallucinated):.3f}" if cell.hallucinated else "–",
                "" if made_up is None else _shown(made_up),
            ]
        )  # fmt: skip
    return table([header, *rows], numbers_from=3)


def _interval(values: Sequence[float]) -> Interval | None:
    return bootstrap_interval(values, seed=0) if values else None


def _shown(found: Interval | PairedDifference, sign: str = "") -> str:
    return f"{found.low:{sign}.3f} to {found.high:{sign}.3f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run all cells, write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lm", type=Path, help="a GGUF file; default is the starter model")
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--languages", default="en,ja")
    parser.add_argument("--out", type=Path, default=Path("runs/query_position"))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    # DSPy warns of every truncated answer; here they are data.
    logging.getLogger("dspy").setLevel(logging.ERROR)
    cells: list[Cell] = []
    model = options.lm or starter_gguf()
    with closing(po.LlamaCpp(model, n_ctx=2048, max_tokens=48, n_threads=options.threads, batch_invariant=True)) as lm:
        for language in options.languages.split(","):
            cells += measure(lm, language, rows_of(language, options.rows), options.out)
    text = as_table(cells)
    (options.out / "table.md").write_text(text + "\n", encoding="utf-8")
    dots = [
        Dot(f"{cell.language} {cell.prompt}", cell.position, fmean(cell.scores), found.low, found.high)
        for cell in cells
        if (found := _interval(cell.scores)) is not None
    ]
    title = f"Score by position of the question ({Path(model).stem}, {options.rows} rows)"
    (options.out / "figure.svg").write_text(draw(dots, title), encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
