"""Measures the starter model per layout on held-out documents, by greedy generation.

Run: ``python measure.py --model FOLDER --count 100`` (see README.md). Prints a Markdown table.
"""

import argparse
import json
import pathlib
import random
from dataclasses import dataclass

import corpus
import layouts
import names
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from promptopt.errors import ParseError
from promptopt.layout.parse import parse_completion
from promptopt.layout.signature import SignatureSpec
from promptopt.layout.spec import Layout

BASE: dict[str, object] = {
    "descriptions": "none",
    "structure": False,
    "reminder": True,
    "instruction_place": "user_start",
}
"""The plain setting on which the grid varies one or two dimensions."""


@dataclass(frozen=True)
class Score:
    """What one layout reached on one task."""

    exact: float
    unparsed: float
    count: int


def grid() -> dict[str, Layout]:
    """The measured layouts by name."""
    found: dict[str, Layout] = {
        "dspy_chat (DSPy's ChatAdapter)": Layout(),
        "dspy_chat, query after": Layout(query_position="after"),
        "dspy_chat, query before": Layout(query_position="before"),
    }
    for style in ("dspy", "xml", "markdown", "label", "json"):
        for position in ("before", "after", "both"):
            found[f"{style} input, query {position}, bare output"] = Layout.model_validate(
                {**BASE, "field_style": style, "query_position": position, "output_style": "bare"}
            )
    for output in ("dspy", "xml", "json", "label"):
        base = {**BASE, "field_style": "label", "query_position": "after", "output_style": output}
        found[f"label input, query after, {output} output"] = Layout.model_validate(base)
        found[f"label input, query after, {output} output, prefill"] = Layout.model_validate({**base, "prefill": True})
    plain = {"field_style": "xml", "query_position": "after", "output_style": "xml"}
    found["xml in and out, query after, all other dimensions as in dspy_chat"] = Layout.model_validate(plain)
    return found


@torch.no_grad()
def generate(net: PreTrainedModel, tok: PreTrainedTokenizerFast, prompts: list[str], limit: int = 64) -> list[str]:
    """Greedy continuations of the prompts, in batches of like length with left padding."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers = [""] * len(prompts)
    for start in range(0, len(order), 100):
        part = order[start : start + 100]
        batch = tok(
            [prompts[i] for i in part], return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
        )
        ids = net.generate(batch.input_ids, attention_mask=batch.attention_mask, max_new_tokens=limit, do_sample=False)  # type: ignore[operator]
        for i, text in zip(
            part, tok.batch_decode(ids[:, batch.input_ids.shape[1] :], skip_special_tokens=True), strict=True
        ):
            answers[i] = text
    return answers


def _right(layout: Layout, spec: SignatureSpec, example: corpus.Example, text: str) -> bool | None:
    """Whether every output equals the expected value; None if the answer does not parse."""
    try:
        found = parse_completion(layout, spec, text)
    except ParseError:
        return None
    return all(str(found.get(f.name, "")).strip() == example.values[f.name] for f in example.outputs)


def score(net: PreTrainedModel, tok: PreTrainedTokenizerFast, layout: Layout, examples: list[corpus.Example]) -> Score:
    """Exact match of all fields and share of unparsed answers."""
    prompts, prefills, specs, used = [], [], [], []
    for example in examples:
        query = tuple(f.name for f in example.inputs[1:]) or None
        own = layout.model_copy(update={"query_fields": query})
        prompt, answer, completion = layouts.write(own, example, [])
        prompts.append(prompt)
        prefills.append(completion[: len(completion) - len(answer)])
        specs.append(layouts.signature(example))
        used.append(own)
    texts = generate(net, tok, prompts)
    marks = [
        _right(own, spec, example, prefill + text)
        for own, spec, example, prefill, text in zip(used, specs, examples, prefills, texts, strict=True)
    ]
    size = len(marks)
    return Score(sum(m is True for m in marks) / size, sum(m is None for m in marks) / size, size)


def held_out(task: str, count: int, low: int, high: int, part: int, seed: int = 90_001) -> list[corpus.Example]:
    """Held-out examples of one task: the same ones for every layout."""
    rng = random.Random(f"{seed}-{task}-{low}-{high}-{part}")
    return [corpus.sample(rng, rng.randint(low, high), part, task) for _ in range(count)]


def main() -> None:
    """Measures and prints a table; with `--json` also writes the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--sets", nargs="*", help="measure only these sets")
    parser.add_argument("--only", default="", help="measure only layouts whose name contains this text")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tok = PreTrainedTokenizerFast.from_pretrained(args.model)
    net = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    sets = {
        "qa 1-3": held_out("qa", args.count, 1, 3, names.NAMES),
        "qa 6-8": held_out("qa", args.count, 6, 8, names.NAMES),
        "qa 6-8, new templates": held_out("qa", args.count, 6, 8, names.TEMPLATES),
        "extract": held_out("extract", args.count, 4, 6, names.NAMES),
        "ja": held_out("qa_ja", args.count, 3, 5, names.NAMES),
    }
    sets = {name: rows for name, rows in sets.items() if not args.sets or name in args.sets}
    print("| layout | " + " | ".join(f"{name} | unparsed" for name in sets) + " |")
    print("|---|" + "---|" * (2 * len(sets)))
    rows: dict[str, dict[str, list[float]]] = {}
    for name, layout in grid().items():
        if args.only not in name:
            continue
        scores = {kind: score(net, tok, layout, examples) for kind, examples in sets.items()}
        rows[name] = {kind: [s.exact, s.unparsed] for kind, s in scores.items()}
        print(
            f"| {name} | " + " | ".join(f"{s.exact:.2f} | {s.unparsed:.2f}" for s in scores.values()) + " |", flush=True
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
