"""What is asked: calls with token ids, and which call must have ended before another can begin.

The order of calls is their natural order of arrival. Every round has prompts of its own, so that no side profits from
what it computed in the round before.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from promptopt.lm.llama_cpp.local_chat import LocalChat

MAX_TOKENS_OF_A_PROMPT = 1000
"""No prompt below is longer, its answer included."""


@dataclass(frozen=True, slots=True)
class Call:
    """One prompt.

    Attributes:
        head: token ids.
        takes: number of an earlier call whose answer follows `head`.
        tail: token ids after that answer.
        after: numbers of calls that must have ended before.
    """

    head: tuple[int, ...]
    max_tokens: int
    takes: int | None = None
    tail: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Workload:
    """Calls in their natural order of arrival.

    Attributes:
        clients: how many ask at once, on the sides that can answer more than one.
        independent: all prompts are known at the start, and no call waits for another.
    """

    name: str
    title: str
    calls: tuple[Call, ...]
    clients: int
    independent: bool = True

    def beginning(self, count: int) -> "Workload":
        """Return the first calls alone: enough to warm up with."""
        return replace(self, calls=self.calls[:count])


class Words:
    """Draws token ids that survive the way through text.

    Args:
        tokens: see `text_tokens`.
        seed: same seed, same draws.
    """

    def __init__(self, tokens: Sequence[int], seed: int) -> None:
        self._tokens = tokens
        self._random = random.Random(seed)

    def draw(self, count: int) -> tuple[int, ...]:
        """Return `count` token ids."""
        return tuple(self._random.choices(self._tokens, k=count))


def text_tokens(chat: LocalChat) -> list[int]:
    """Return the tokens that are a blank and letters, and that their own text is read back as."""
    vocabulary = chat.model.vocabulary
    found = []
    for token in range(vocabulary.size):
        data = vocabulary.token_bytes(token)
        if data[:1] == b" " and data[1:].isalpha() and vocabulary.tokenize(data.decode(), special=False) == [token]:
            found.append(token)
    return found or list(range(vocabulary.size))


def _scaled(full: int, scale: float, least: int) -> int:
    return min(full, max(least, round(full * scale)))


def shared_prefix(words: Words, scale: float) -> Workload:
    """One prefix of 600 tokens; 64 inputs of 60 tokens, 32 tokens out."""
    count = _scaled(64, scale, 16)
    prefix = words.draw(600)
    calls = tuple(Call(prefix + words.draw(60), 32) for _ in range(count))
    return Workload("prefix", f"one 600-token prefix, {count} inputs of 60 tokens, 32 out", calls, 16)


def query_after(words: Words, scale: float) -> Workload:
    """16 documents of 800 tokens x 8 questions of 30, the question behind the document; all first questions first."""
    return _documents(words, scale, "after", lambda document, question: document + question)


def query_before(words: Words, scale: float) -> Workload:
    """The same with the question in front: documents share nothing, only the question is common to all documents."""
    return _documents(words, scale, "before", lambda document, question: question + document)


def _documents(
    words: Words, scale: float, position: str, join: Callable[[tuple[int, ...], tuple[int, ...]], tuple[int, ...]]
) -> Workload:
    n_documents, n_questions = _scaled(16, scale, 4), _scaled(8, scale, 3)
    documents = [words.draw(800) for _ in range(n_documents)]
    questions = [words.draw(30) for _ in range(n_questions)]
    calls = tuple(Call(join(document, question), 16) for question in questions for document in documents)
    title = f"{n_documents} documents of 800 tokens x {n_questions} questions of 30, query {position}, 16 out"
    return Workload(f"query-{position}", title, calls, 16)


def two_predictors(words: Words, scale: float) -> Workload:
    """32 calls of a program from 8 threads: two predictors with own prefixes of 500 tokens, 16 tokens out each.

    The second prompt holds the first one's answer. Sides that answer one call at a time run program after program, so
    that the prefixes alternate.
    """
    count, threads = _scaled(32, scale, 8), 8
    first, second = words.draw(500), words.draw(500)
    calls: list[Call] = []
    for program in range(count):
        earlier = 2 * (program - threads) + 1
        calls.append(Call(first + words.draw(60), 16, after=(earlier,) if earlier >= 0 else ()))
        calls.append(Call(second, 16, takes=2 * program, tail=words.draw(30), after=(2 * program,)))
    title = f"{count} calls of a program of two predictors from {threads} threads, 500-token prefixes, 16 out each"
    return Workload("program", title, tuple(calls), threads, independent=False)


def search(words: Words, scale: float) -> Workload:
    """40 layouts with prefixes of 300 tokens x 25 examples of 60, 8 tokens out, as a search with racing issues them.

    Four layouts are evaluated at once, in turns of 5 examples; a layout's next 5 start when its last 5 have ended, and
    the next layout starts when an earlier one has ended.
    """
    at_once, block = 4, 5
    n_examples = block * _scaled(5, scale, 2)
    n_layouts = at_once * _scaled(10, scale, 1)
    prefixes = [words.draw(300) for _ in range(n_layouts)]
    examples = [words.draw(60) for _ in range(n_examples)]
    calls: list[Call] = []
    last: dict[int, tuple[int, ...]] = {}
    for group in range(0, n_layouts, at_once):
        for start in range(0, n_examples, block):
            for place in range(at_once):
                number = len(calls)
                calls += [
                    Call(prefixes[group + place] + examples[n], 8, after=last.get(place, ()))
                    for n in range(start, start + block)
                ]
                last[place] = tuple(range(number, number + block))
    title = f"{n_layouts} layouts of 300 tokens x {n_examples} examples of 60, raced 4 at once in blocks of 5, 8 out"
    return Workload("search", title, tuple(calls), at_once * block, independent=False)


WORKLOADS: dict[str, Callable[[Words, float], Workload]] = {
    "prefix": shared_prefix,
    "query-after": query_after,
    "query-before": query_before,
    "program": two_predictors,
    "search": search,
}
