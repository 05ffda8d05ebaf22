"""The corpus: endless examples (instructions, named fields and their values), independent of any layout.

Tasks: `qa` (one question on a document), `multi` (several questions), `extract` (several output fields),
`unknown` (the document does not say), `call` (text into `function(attribute[value])`) and `qa_ja` (Japanese).
"""

import random
from dataclasses import dataclass

import documents
import lexicon
import names

TASK_SHARES = {"qa": 0.42, "multi": 0.16, "extract": 0.20, "unknown": 0.05, "call": 0.07, "qa_ja": 0.10}
"""Share of each task among the layout-rendered rows."""

DOC_NAMES = "document context passage text article report source content body story record notes page excerpt".split()
QUESTION_NAMES = "question query request ask prompt inquiry".split()
ANSWER_NAMES = "answer response reply result output solution".split()
_DOC_DESCS = (
    "The text to read.",
    "The source text.",
    "A document with facts.",
    "Text that holds the answer.",
    "Read this.",
)
_QUESTION_DESCS = ("What to find.", "The question to answer.", "A question about the text.", "The thing to look up.")
_ANSWER_DESCS = (
    "A short answer copied from the text.",
    "The answer only.",
    "A few words from the document.",
    "Short answer.",
)
_QA_INSTRUCTIONS = (
    "Answer the question from the {d}.",
    "Read the {d} and answer the {q}.",
    "Find the answer to the {q} in the {d}.",
    "Use the {d} to answer the {q} with a short phrase.",
    "Given the {d}, answer the {q}.",
    "Copy the answer from the {d}.",
    "Given the fields `{d}`, `{q}`, produce the fields `{a}`.",
    "Look up the {q} in the {d}. Reply with the {a} only.",
    "Extract the words of the {d} that answer the {q}.",
    "Answer with a few words taken from the {d}.",
)
_EXTRACT_INSTRUCTIONS = (
    "Extract the fields from the {d}.",
    "Read the {d} and fill in every field.",
    "Copy the values of the fields from the {d}.",
    "Find these values in the {d}.",
    "Given the {d}, give the fields {o}.",
    "Fill in {o} from the {d}.",
)
_CALL_INSTRUCTIONS = (
    "Write the text as a function call.",
    "Turn the {d} into function(attribute[value]).",
    "Parse the {d} into a call.",
    "Give the meaning of the {d} as one call with attributes and values.",
)
_UNKNOWN_HINTS = (
    "If it is not there, answer unknown.",
    "Say unknown if the text does not tell.",
    "Otherwise answer unknown.",
)
_JA_INSTRUCTIONS = (
    "文書を読んで質問に答えてください。",
    "質問の答えを文書から抜き出してください。",
    "次の文書から短く答えてください。",
)
_ACTS = {
    "tell": ("{s} has {x}.", "Here is {s}, with {x}.", "You should know that {s} has {x}."),
    "offer": ("Would you take {s} with {x}?", "I can offer {s} with {x}.", "How about {s}, with {x}?"),
    "order": ("I want {s} with {x}.", "Please order {s} with {x}.", "Bring me {s} with {x}."),
    "check": ("Is it true that {s} has {x}?", "Does {s} have {x}?", "Check if {s} has {x}."),
    "refuse": ("I do not want {s} with {x}.", "No, not {s} with {x}.", "Never bring {s} with {x}."),
    "compare": ("Which is better, {s} or one with {x}?", "Compare {s} and one with {x}.", "Is {s} like one with {x}?"),
}


@dataclass(frozen=True)
class Field:
    """A named field with its description."""

    name: str
    desc: str


@dataclass(frozen=True)
class Example:
    """One task instance: what to do, its fields, and the value of every field."""

    task: str
    instructions: str
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    values: dict[str, str]
    japanese: bool = False
    reason: str = ""


def _doc_field(rng: random.Random) -> Field:
    """The field that holds the document."""
    return Field(rng.choice(DOC_NAMES[:3] if rng.random() < 0.5 else DOC_NAMES), rng.choice(_DOC_DESCS))


def _qa_fields(rng: random.Random) -> tuple[Field, Field, Field]:
    """Document, question and answer fields."""
    ask = Field(rng.choice(QUESTION_NAMES[:2] if rng.random() < 0.6 else QUESTION_NAMES), rng.choice(_QUESTION_DESCS))
    answer = Field(rng.choice(ANSWER_NAMES[:2] if rng.random() < 0.6 else ANSWER_NAMES), rng.choice(_ANSWER_DESCS))
    return _doc_field(rng), ask, answer


def qa(rng: random.Random, count: int, held_out: int, japanese: bool = False) -> Example:
    """A document of `count` facts and one question."""
    doc = documents.make(rng, count, held_out, japanese)
    fact = rng.choice(doc.facts)
    d, q, a = _qa_fields(rng)
    template = rng.choice(_JA_INSTRUCTIONS if japanese else _QA_INSTRUCTIONS)
    values = {d.name: doc.text, q.name: rng.choice(fact.questions), a.name: fact.answer}
    text = template.format(d=d.name, q=q.name, a=a.name)
    return Example("qa_ja" if japanese else "qa", text, (d, q), (a,), values, japanese, fact.sentence)


def multi(rng: random.Random, count: int, held_out: int) -> Example:
    """A document and two or three questions, answered in as many fields."""
    doc = documents.make(rng, max(count, 2), held_out)
    chosen = rng.sample(doc.facts, min(len(doc.facts), rng.randint(2, 3)))
    d, q, a = _qa_fields(rng)
    asks = tuple(Field(f"{q.name}_{i}", q.desc) for i in range(1, len(chosen) + 1))
    answers = tuple(Field(f"{a.name}_{i}", a.desc) for i in range(1, len(chosen) + 1))
    values = {d.name: doc.text}
    for ask, answer, fact in zip(asks, answers, chosen, strict=True):
        values[ask.name] = rng.choice(fact.questions)
        values[answer.name] = fact.answer
    text = rng.choice(_QA_INSTRUCTIONS).format(d=d.name, q=q.name, a=a.name)
    return Example("multi", text, (d, *asks), answers, values)


def unknown(rng: random.Random, count: int, held_out: int) -> Example:
    """A question whose fact is cut out of the document; one in three is answerable, so the hint decides nothing."""
    example = qa(rng, max(count, 2), held_out)
    ask = example.inputs[1]
    answer = example.outputs[0].name
    other = qa(rng, 2, held_out)
    values = dict(example.values)
    if rng.random() < 0.67:
        values[ask.name], values[answer] = other.values[other.inputs[1].name], "unknown"
    hint = f"{example.instructions} {rng.choice(_UNKNOWN_HINTS)}"
    return Example("unknown", hint, example.inputs, example.outputs, values)


def extract(rng: random.Random, count: int, held_out: int) -> Example:
    """A document about one subject and two to four output fields to fill from it."""
    doc = documents.make(rng, max(count, 2), held_out)
    subject = rng.choice(doc.facts).subject
    own = [f for f in doc.facts if f.subject == subject]
    rng.shuffle(own)
    outputs: dict[str, str] = {"name": subject} if rng.random() < 0.5 or len(own) < 2 else {}
    for fact in own[:4]:
        outputs.setdefault(rng.choice(fact.labels), fact.answer)
    d = _doc_field(rng)
    fields = [
        Field(n, rng.choice((f"The {n} in the text.", f"The {n.replace('_', ' ')}.", "Copied from the text.")))
        for n in outputs
    ]
    inputs: tuple[Field, ...] = (d,)
    values = {d.name: doc.text, **outputs}
    if len({f.subject for f in doc.facts}) > 1:
        about = Field(rng.choice(("subject", "about", "entity")), "Whom or what the fields are about.")
        inputs = (d, about)
        values[about.name] = subject
    listed = ", ".join(f"`{n}`" for n in outputs)
    text = rng.choice(_EXTRACT_INSTRUCTIONS).format(d=d.name, o=listed)
    if d.name in outputs or (len(inputs) > 1 and inputs[1].name in outputs):
        return extract(rng, count, held_out)
    return Example("extract", text, inputs, tuple(fields), values)


def call(rng: random.Random, count: int, held_out: int) -> Example:
    """A sentence to be written as `act(name[...], attribute[...])`."""
    act, templates = rng.choice(sorted(_ACTS.items()))
    kind = rng.choice(("product", "company", "place", "thing"))
    subject = names.draw(kind, rng, held_out)
    pairs = [
        (a, names.draw(rng.choice(("noun", "colour", "number", "pseudo", "code")), rng, held_out))
        for a in rng.sample(lexicon.NOUNS, min(3, max(1, count // 2)))
    ]
    said = [rng.choice(("the {a} {v}", "{a} {v}", "{v} as its {a}", "a {a} of {v}")).format(a=a, v=v) for a, v in pairs]
    text = rng.choice(templates[-1:] if held_out == names.TEMPLATES else templates[:-1]).format(
        s=subject, x=" and ".join(said)
    )
    meaning = f"{act}({', '.join(f'{a}[{v}]' for a, v in [('name', subject), *pairs])})"
    d = Field(rng.choice(("text", "sentence", "utterance", "message")), "A sentence.")
    out = Field(rng.choice(("meaning", "call", "parse", "output")), "One function call.")
    instructions = rng.choice(_CALL_INSTRUCTIONS).format(d=d.name)
    return Example("call", instructions, (d,), (out,), {d.name: text[:1].upper() + text[1:], out.name: meaning})


def sample(rng: random.Random, count: int, held_out: int = names.TRAIN, task: str | None = None) -> Example:
    """Draws one example.

    Args:
        rng: Source of every choice.
        count: How many facts the document states, about.
        held_out: What is held out (see `names.TRAIN`).
        task: A task name, or None to draw one by `TASK_SHARES`.

    Returns:
        The example.
    """
    kind = task or rng.choices(list(TASK_SHARES), weights=list(TASK_SHARES.values()))[0]
    if kind in ("qa", "qa_ja"):
        return qa(rng, count, held_out, japanese=kind == "qa_ja")
    makers = {"multi": multi, "unknown": unknown, "extract": extract, "call": call}
    return makers[kind](rng, count, held_out)


def like(rng: random.Random, example: Example, count: int, held_out: int = names.TRAIN) -> dict[str, str]:
    """Values of another example for the fields of this one, to serve as a demo.

    Args:
        rng: Source of every choice.
        example: An example of the task `qa`, `qa_ja`, `unknown` or `call`, whose fields stand in a fixed order.
        count: How many facts the demo's document states, about.
        held_out: What is held out (see `names.TRAIN`).

    Returns:
        A value for every field of `example`.
    """
    other = sample(rng, count, held_out, example.task)
    fields = zip((*example.inputs, *example.outputs), (*other.inputs, *other.outputs), strict=True)
    return {own.name: other.values[theirs.name] for own, theirs in fields}
