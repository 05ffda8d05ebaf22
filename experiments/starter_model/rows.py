"""Turns drills and examples into token rows with marks on the supervised tokens."""

import random
from dataclasses import dataclass

import drills
import layouts
import schedule
from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Row:
    """Token ids and, for each, whether it carries full loss."""

    ids: list[int]
    marks: list[bool]


class RowMaker:
    """Makes training rows from one seed."""

    def __init__(self, tok: PreTrainedTokenizerFast, seed: int) -> None:
        self.tok = tok
        self.rng = random.Random(seed)

    def _text(self, stage: schedule.Stage, kind: str) -> drills.TextRow:
        """One text row of a kind."""
        count = self.rng.randint(*stage.facts)
        if self.rng.random() < stage.stretch:
            count *= 3
        if kind == "recall":
            return drills.recall(self.rng)
        if kind == "after":
            return drills.questions_after(self.rng, count)
        if kind == "before":
            return drills.question_before(self.rng, count)
        return layouts.training_row(self.rng, count)

    def _encode(self, texts: list[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Ids and character offsets of each text."""
        found = self.tok.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
        return [(e.ids, e.offsets) for e in found]

    def make(self, stage: schedule.Stage, count: int) -> list[Row]:
        """Draws `count` rows by the stage's shares; rows longer than the stage allows are dropped."""
        kinds = self.rng.choices(list(stage.shares), weights=list(stage.shares.values()), k=count)
        texts = [self._text(stage, kind) for kind in kinds if kind != "copy"]
        made = [Row(*drills.copy_ids(self.rng, len(self.tok))) for kind in kinds if kind == "copy"]
        heads = self._encode([t.text[: t.cut] for t in texts])
        tails = self._encode([t.text[t.cut :] for t in texts])
        for text, head, tail in zip(texts, heads, tails, strict=True):
            offsets = [*head[1], *((a + text.cut, b + text.cut) for a, b in tail[1])]
            if len(offsets) <= stage.longest:
                made.append(Row([*head[0], *tail[0]], marked(offsets, text.spans)))
        return made


def marked(offsets: list[tuple[int, int]], spans: tuple[tuple[int, int], ...]) -> list[bool]:
    """Marks the tokens that overlap one of the (ordered) spans."""
    marks, at = [], 0
    for start, end in offsets:
        while at < len(spans) and spans[at][1] <= start:
            at += 1
        marks.append(at < len(spans) and end > spans[at][0])
    return marks
