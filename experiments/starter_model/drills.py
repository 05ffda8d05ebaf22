"""Rows without a layout: copying random tokens, recalling keyed values, and documents with many questions.

They come first in training, because they teach copying and retrieval with many supervised answers per row.
"""

import random
from dataclasses import dataclass

import corpus
import documents
import names

TURN = "<|im_end|>\n"
_QA_STYLES = (
    "{Q}: {q}\n{A}: {{a}}\n",
    "{Q}: {q}\n\n{A}: {{a}}\n\n",
    "<{qn}>{q}</{qn}>\n<{an}>{{a}}</{an}>\n",
    "<{qn}>\n{q}\n</{qn}>\n<{an}>\n{{a}}\n</{an}>\n",
    "## {qn}\n{q}\n\n## {an}\n{{a}}\n\n",
    "[[ ## {qn} ## ]]\n{q}\n\n[[ ## {an} ## ]]\n{{a}}\n\n",
    '{{"{qn}": "{q}", "{an}": "{{a}}"}}\n',
    "<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n{{a}}<|im_end|>\n",
    "<|im_start|>user\n{Q}: {q}<|im_end|>\n<|im_start|>assistant\n{A}: {{a}}<|im_end|>\n",
    "<|im_start|>user\n<{qn}>\n{q}\n</{qn}><|im_end|>\n<|im_start|>assistant\n<{an}>\n{{a}}\n</{an}><|im_end|>\n",
)
_DOC_STYLES = (
    "{D}: {d}\n",
    "{d}\n\n",
    "<{dn}>\n{d}\n</{dn}>\n",
    "## {dn}\n{d}\n\n",
    "[[ ## {dn} ## ]]\n{d}\n\n",
    '"{dn}": "{d}"\n',
)


@dataclass(frozen=True)
class TextRow:
    """A training text, the character spans that carry full loss, and where the text is cut for the tokenizer."""

    text: str
    spans: tuple[tuple[int, int], ...]
    cut: int = 0


class _Writer:
    """Collects text and the spans of its answers."""

    def __init__(self) -> None:
        self.text = ""
        self.spans: list[tuple[int, int]] = []

    def add(self, text: str, answer: bool = False) -> None:
        """Appends text, supervised if it is an answer."""
        if answer:
            self.spans.append((len(self.text), len(self.text) + len(text)))
        self.text += text

    def row(self) -> TextRow:
        """The collected row."""
        return TextRow(self.text, tuple(self.spans))


def copy_ids(rng: random.Random, vocab: int, first: int = 3) -> tuple[list[int], list[bool]]:
    """A row of random token ids that repeat; every token that an earlier one in the row tells is supervised."""
    return _pair_ids(rng, vocab, first) if rng.random() < 0.6 else _block_ids(rng, vocab, first)


def _pair_ids(rng: random.Random, vocab: int, first: int) -> tuple[list[int], list[bool]]:
    """A few keys, each always followed by its own one to three tokens, in random order and many times over."""
    groups = [[rng.randrange(first, vocab) for _ in range(rng.randint(2, 4))] for _ in range(rng.randint(2, 7))]
    ids: list[int] = []
    marks: list[bool] = []
    seen: set[int] = set()
    for _ in range(rng.randint(3, 5) * len(groups)):
        index = rng.randrange(len(groups))
        ids += groups[index]
        marks += [False] + [index in seen] * (len(groups[index]) - 1)
        seen.add(index)
    return ids, marks


def _block_ids(rng: random.Random, vocab: int, first: int) -> tuple[list[int], list[bool]]:
    """A block of ids repeated, at times with other ids between; the later copies are supervised."""
    length = rng.choice((rng.randint(4, 12), rng.randint(8, 40)))
    block = [rng.randrange(first, vocab) for _ in range(length)]
    ids, marks = list(block), [False] * length
    for _ in range(rng.randint(2, 5) if length < 13 else 1):
        gap = [rng.randrange(first, vocab) for _ in range(rng.choice((0, 0, 2, 6)))]
        part = block[rng.randrange(0, max(1, length // 3)) :]
        ids += gap + part
        marks += [False] * (len(gap) + 1) + [True] * (len(part) - 1)
    return ids, marks


def recall(rng: random.Random) -> TextRow:
    """A list of keys with values, then the keys again in another order with their values to recall."""
    kind = rng.choice(("person", "place", "company", "product", "noun", "pseudo", "thing"))
    keys = list(dict.fromkeys(names.draw(kind, rng, names.TRAIN) for _ in range(rng.randint(2, 8))))
    value_kind = rng.choice(("phrase", "noun", "pseudo", "number", "code", "place", "person"))
    pairs = [(k, names.draw(value_kind, rng, names.TRAIN)) for k in keys]
    mark, end = rng.choice(((": ", "\n"), (" is ", ". "), (" = ", "\n"), (" -> ", "; "), ("[", "] "), (" has ", ". ")))
    out = _Writer()
    for key, value in pairs:
        out.add(f"{key}{mark}{value}{end}")
    out.add("\n")
    for key, value in rng.sample(pairs, len(pairs)):
        out.add(f"{key}{mark}")
        out.add(value + end, answer=True)
    return out.row()


def _ask(out: _Writer, style: str, fact: documents.Fact, rng: random.Random, qn: str, an: str) -> None:
    """Writes one question in a style and its supervised answer."""
    text = style.format(q=rng.choice(fact.questions), qn=qn, an=an, Q=qn.capitalize(), A=an.capitalize())
    before, after = text.split("{a}")
    out.add(before)
    out.add(fact.answer + after.split("<|im_start|>")[0], answer=True)


def _names(rng: random.Random, japanese: bool) -> tuple[str, str, str]:
    """Field names for document, question and answer."""
    if japanese:
        return "文書", "質問", "答え"
    return rng.choice(corpus.DOC_NAMES), rng.choice(corpus.QUESTION_NAMES), rng.choice(corpus.ANSWER_NAMES)


def questions_after(rng: random.Random, count: int) -> TextRow:
    """A document, then many questions on it with their answers."""
    japanese = rng.random() < 0.1
    doc = documents.make(rng, count, japanese=japanese)
    dn, qn, an = _names(rng, japanese)
    out = _Writer()
    style = rng.choice(_QA_STYLES)
    if "<|im_start|>" in style:
        out.add("<|im_start|>user\n")
    out.add(rng.choice(_DOC_STYLES).format(d=doc.text, dn=dn, D=dn.capitalize()))
    chosen = rng.sample(doc.facts, min(len(doc.facts), 8))
    for index, fact in enumerate(chosen):
        text = style.removeprefix("<|im_start|>user\n") if index == 0 else style
        _ask(out, text, fact, rng, qn, an)
    return out.row()


def question_before(rng: random.Random, count: int) -> TextRow:
    """Several short documents in one row, each with its question ahead of it and the answer after."""
    dn, qn, an = _names(rng, False)
    doc_style, answer_style = (
        rng.choice(_DOC_STYLES),
        rng.choice(("{A}: {{a}}\n\n", "<{an}>{{a}}</{an}>\n\n", "## {an}\n{{a}}\n\n")),
    )
    out = _Writer()
    for _ in range(rng.randint(2, 4)):
        doc = documents.make(rng, rng.randint(1, max(1, count)))
        fact = rng.choice(doc.facts)
        out.add(
            f"{qn.capitalize()}: {rng.choice(fact.questions)}\n"
            + doc_style.format(d=doc.text, dn=dn, D=dn.capitalize())
        )
        _ask(out, answer_style, fact, rng, qn, an)
    return out.row()
