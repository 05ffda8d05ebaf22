"""Instructions that a language model proposes from the task's own data.

The method is MIPROv2's grounded proposer (Opsahl-Ong et al. 2024, arXiv 2406.11695): the writer sees the signature, the
program's instructions, examples, and a tip that makes each proposal another one. Two things differ. What the data shows
is counted, not written by a further model, which small models do badly. And the writer is told to leave formats alone:
delimiters and output formats are the layout's, which the same study searches.
"""

import random
from collections.abc import Callable, Mapping, Sequence

import dspy
from pydantic import JsonValue

from promptopt.layout.signature import REASONING
from promptopt.pools.instruction_text import Answers
from promptopt.pools.instructions import Asking, Attempt, ask_for_instructions
from promptopt.pools.pool import Demo, Proposal
from promptopt.pools.task_text import answers_of, example_text, findings, task_of
from promptopt.records import DataRow

TIPS: Mapping[str, str] = {
    "plain": "Say it as you think best.",
    "concise": "Be brief: one or two short sentences.",
    "answer": "Describe exactly what a right answer looks like: how long it is, its wording, units, spelling, and what "
    "to leave out.",
    "role": "Begin with the role of an expert who does this work every day.",
    "steps": "Name the steps that lead from the input to the answer, in their order.",
    "mistakes": "Name the mistakes that are easily made here, and how to avoid them.",
    "detailed": "Be thorough: cover every case that the examples show.",
}
"""Name -> what the writer is told; proposals take them in turn."""

SHOWN = 4
"""Examples in a prompt, each time other ones."""

_PROMPT = """\
You write instructions for a language model. The instruction will stand above every input of one task, so it has to \
fit all inputs, not only those you see here.

# The task
{task}

# Today's instruction
{own}
{seen}
# What you are to do
Write one instruction that makes the model do this task better than today's does. {tip}
- Write in the language of today's instruction.
- Do not repeat an example and do not give an answer away.
- Do not ask for JSON, tags, headings or other delimiters: the program adds its own.
Reply with the instruction and nothing else: no title, no quotes, no explanation."""


def propose_instructions(
    lm: dspy.BaseLM,
    program: dspy.Module,
    predictor: str,
    rows: Sequence[DataRow],
    n: int,
    seed: int,
    *,
    demos: Sequence[Demo] = (),
    known: Sequence[str] = (),
    max_tokens: int = 512,
    on_refused: Callable[[str, str], None] | None = None,
) -> tuple[Proposal, ...]:
    """Return up to `n` new instructions for one predictor; the same for the same arguments and LM.

    An LM that cannot do it (its replies are empty, cut off, known, repeat themselves, or give an answer away) leaves
    fewer, or none.

    Args:
        lm: the writer.
        predictor: its name in `program.named_predictors()`.
        rows: training rows. They are the examples where there are no `demos`.
        demos: what the predictor was given and produced, e.g. bootstrapped: of an inner predictor, the rows know less.
        known: instructions beside the program's own that are not to be proposed again.
        max_tokens: longest reply.
        on_refused: told of every reply that was no new instruction: the text, and why.

    Raises:
        LMError: the LM is broken.
    """
    signature = dict(program.named_predictors())[predictor].signature
    own = signature.instructions
    outputs = [name for name in signature.output_fields if name != REASONING]
    examples = [dict(demo) for demo in demos] or _examples(rows, [*signature.input_fields, *outputs])
    found = findings(rows, outputs)
    task = task_of(program, predictor)
    tips = list(TIPS.items())

    def attempt(number: int) -> Attempt:
        tip, told = tips[number % len(tips)]
        shown = random.Random(f"{seed}:{predictor}:{number}").sample(examples, min(SHOWN, len(examples)))

        def prompt(count: int) -> str:
            seen = "".join(f"\n## Example {i}\n{example_text(one)}\n" for i, one in enumerate(shown[:count], start=1))
            facts = f"\n# What the data shows\n{found}\n" if found else ""
            return _PROMPT.format(task=task, own=own, seen=facts + (f"\n# Examples{seen}" if seen else ""), tip=told)

        return Attempt(prompt, len(shown), 0, f"proposed with tip {tip!r}")

    in_rows = {name for row in rows for name in row.fields}
    # What stands in the rows is judged there: all of them say better than a few demos what is shared vocabulary.
    inner = [name for name in outputs if name not in in_rows]
    owned = answers_of(rows, program) + [(str(i), demo.get(name)) for i, demo in enumerate(demos) for name in inner]
    asking = Asking(
        lm, f"{seed}:{predictor}:proposal", max_tokens, (own, *known), Answers(owned), on_refused=on_refused
    )
    return ask_for_instructions(asking, attempt, n)


def _examples(rows: Sequence[DataRow], fields: Sequence[str]) -> list[dict[str, JsonValue]]:
    """Return the rows as examples of a predictor; whole rows where they lack one of its fields."""
    whole = [{name: row.fields[name] for name in fields} for row in rows if all(name in row.fields for name in fields)]
    return whole or [dict(row.fields) for row in rows]
