"""Rows in a layout: an example written by promptopt's own layout room, in a layout drawn at random.

The weights below say how often each value of each dimension is drawn while training.
"""

import random

import corpus
import drills

from promptopt.layout.render import prefill_text, render_completion, render_messages
from promptopt.layout.signature import FieldSpec, SignatureSpec
from promptopt.layout.spec import Layout

WEIGHTS: dict[str, dict[object, float]] = {
    "query_position": {"declared": 0.1, "before": 0.25, "after": 0.4, "both": 0.25},
    "field_style": {"dspy": 0.15, "xml": 0.25, "markdown": 0.2, "label": 0.25, "json": 0.15},
    "instruction_place": {"system": 0.35, "user_start": 0.3, "user_end": 0.2, "both": 0.15},
    "descriptions": {"none": 0.4, "names": 0.35, "full": 0.25},
    "structure": {True: 0.25, False: 0.75},
    "demo_placement": {"turns": 0.6, "block": 0.4},
    "output_style": {"dspy": 0.15, "xml": 0.2, "json": 0.15, "label": 0.2, "bare": 0.3},
    "reminder": {True: 0.65, False: 0.35},
    "prefill": {True: 0.25, False: 0.75},
    "reasoning": {True: 0.04, False: 0.96},
    "system_role": {"native": 0.65, "merged": 0.35},
}
DSPY_CHAT_SHARE = 0.06
"""Share of rows in the plain `Layout()`, beside what the weights draw."""
DEMO_COUNTS = {0: 0.8, 1: 0.14, 2: 0.06}
"""How many demos a row shows, where its task can have any."""
_DEMO_TASKS = ("qa", "qa_ja", "unknown", "call")


def draw_layout(rng: random.Random, japanese: bool) -> Layout:
    """Draws a layout; the scaffold is Japanese for most Japanese examples and for a few others."""
    language = "ja" if rng.random() < (0.6 if japanese else 0.04) else "en"
    if rng.random() < DSPY_CHAT_SHARE:
        return Layout()
    chosen = {name: rng.choices(list(w), weights=list(w.values()))[0] for name, w in WEIGHTS.items()}
    return Layout.model_validate({**chosen, "language": language})


def signature(example: corpus.Example) -> SignatureSpec:
    """The signature of an example."""
    inputs = tuple(FieldSpec(f.name, f.desc) for f in example.inputs)
    return SignatureSpec(example.instructions, inputs, tuple(FieldSpec(f.name, f.desc) for f in example.outputs))


def tells_format(layout: Layout, demos: int) -> bool:
    """Whether a prompt in this layout shows in which style to answer."""
    return layout.reminder or layout.structure or layout.prefill or demos > 0


def _layout_for(rng: random.Random, example: corpus.Example, demos: int) -> Layout:
    """A layout that suits the example: its query, reasoning only where it has some, a bare answer if nothing tells."""
    layout = draw_layout(rng, example.japanese)
    if not tells_format(layout, demos):
        layout = layout.model_copy(update={"output_style": "bare"})
    query = tuple(f.name for f in example.inputs[1:]) or None
    reasoning = layout.reasoning and bool(example.reason)
    return layout.model_copy(update={"query_fields": query, "reasoning": reasoning})


def chat_text(messages: list[dict[str, str]]) -> str:
    """The messages as the tokenizer's chat template writes them, without a generation prompt."""
    return "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)


def write(layout: Layout, example: corpus.Example, demos: list[dict[str, str]]) -> tuple[str, str, str]:
    """Writes an example in a layout.

    Args:
        layout: The layout.
        example: The example.
        demos: Values of all fields of other examples with the same fields.

    Returns:
        The prompt up to where the model starts, the answer that follows, and the whole completion with its prefill.
    """
    spec = signature(example)
    inputs = {f.name: example.values[f.name] for f in example.inputs}
    outputs = {f.name: example.values[f.name] for f in example.outputs}
    if layout.reasoning:
        outputs = {"reasoning": example.reason, **outputs}
    messages = render_messages(layout, spec, demos, inputs)
    completion, prefill = render_completion(layout, spec, outputs), prefill_text(layout, spec)
    if prefill:
        messages = messages[:-1]
    prompt = f"{chat_text(messages)}<|im_start|>assistant\n{prefill}"
    return prompt, completion[len(prefill) :], completion


def training_row(rng: random.Random, count: int) -> drills.TextRow:
    """One example in a random layout, at times with demos; the answer is supervised up to the end of the turn."""
    example = corpus.sample(rng, count)
    shots = rng.choices(list(DEMO_COUNTS), weights=list(DEMO_COUNTS.values()))[0] if example.task in _DEMO_TASKS else 0
    layout = _layout_for(rng, example, shots)
    demos = [corpus.like(rng, example, rng.randint(1, 3)) for _ in range(shots)]
    prompt, answer, _ = write(layout, example, demos)
    return drills.TextRow(f"{prompt}{answer}<|im_end|>", ((len(prompt), len(prompt) + len(answer) + 10),), len(prompt))
