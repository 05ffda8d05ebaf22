"""Asks a language model for instructions: attempt by attempt, until enough replies hold one that is new and harmless.

Knows neither what a prompt says (proposals, reflection) nor the rules of a good text (instruction_text). A reply that
is no instruction costs an attempt and nothing else; a broken model raises.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import dspy

from promptopt.errors import ContextLengthError
from promptopt.evaluation.in_order import in_order
from promptopt.lm.dspy_chat import as_chat_lm
from promptopt.lm.protocol import ChatLM
from promptopt.pools.instruction_text import Answers, instruction_in, refusal_reason
from promptopt.pools.pool import Proposal

TEMPERATURE = 1.0
"""As MIPROv2 asks; the only one that hosted reasoning models allow."""

ATTEMPTS = 3
"""For each proposal that is wanted, at most so many replies are asked for."""


@dataclass(frozen=True)
class Attempt:
    """One question to the model.

    Attributes:
        prompt: returns the prompt that shows so many examples.
        most, least: examples it may show; long ones are left out until the prompt fits.
        origin: what the proposal's origin says of this attempt.
    """

    prompt: Callable[[int], str]
    most: int
    least: int
    origin: str


@dataclass(frozen=True)
class Asking:
    """What all attempts have in common.

    Attributes:
        seed: attempt number n has a seed of its own, drawn from this one.
        max_tokens: longest reply.
        known: instructions there are already, the program's own first.
        answers: must not be given away.
        marked: see `instruction_in`.
        on_refused: told of every reply that was no new instruction: the text, and why.
    """

    lm: dspy.BaseLM
    seed: str
    max_tokens: int
    known: tuple[str, ...]
    answers: Answers
    marked: bool = False
    on_refused: Callable[[str, str], None] | None = None


def ask_for_instructions(asking: Asking, attempt: Callable[[int], Attempt], wanted: int) -> tuple[Proposal, ...]:
    """Return up to `wanted` different instructions, from at most ATTEMPTS times as many replies.

    The same come out however many requests the LM answers at once.

    Args:
        attempt: returns attempt number n.

    Raises:
        LMError: the language model is broken.
    """
    chat = as_chat_lm(asking.lm)
    said = getattr(asking.lm, "parallel", 1)
    parallel = min(wanted, said) if isinstance(said, int) else 1

    def reply_to(number: int) -> tuple[Attempt, int, str | None]:
        asked = attempt(number)
        seed = random.Random(f"{asking.seed}:{number}").randrange(2**31)
        return asked, seed, _reply(chat, asked, seed, asking.max_tokens)

    found: list[Proposal] = []
    if wanted < 1:
        return ()
    with closing(in_order(reply_to, range(ATTEMPTS * wanted), max(1, parallel))) as replies:
        for asked, seed, reply in replies:
            text = _accepted(asking, reply, [proposal.text for proposal in found])
            if text:
                found.append(Proposal(text, f"{asked.origin}, seed {seed}, by {chat.name}"))
            if len(found) == wanted:
                break
    return tuple(found)


def _accepted(asking: Asking, reply: str | None, found: Sequence[str]) -> str:
    if reply is None:
        text, reason = "", "no whole reply fits the model's context or the limit of its answer"
    else:
        text = instruction_in(reply, marked=asking.marked)
        reason = refusal_reason(text, [*asking.known, *found], asking.answers)
    if reason and asking.on_refused:
        asking.on_refused(reply or "", reason)
    return "" if reason else text


def _reply(chat: ChatLM, asked: Attempt, seed: int, max_tokens: int) -> str | None:
    """Return the model's whole reply, with as many examples as fit; None where nothing fits or it was cut off."""
    for messages in _shorter_and_shorter(asked):
        if chat.n_ctx is not None and chat.count_tokens(messages) + max_tokens > chat.n_ctx:
            continue
        try:
            completion = chat.complete_messages(messages, max_tokens=max_tokens, temperature=TEMPERATURE, seed=seed)
        except ContextLengthError:
            continue
        return completion.text if completion.finish_reason == "stop" else None
    return None


def _shorter_and_shorter(asked: Attempt) -> Iterator[list[dict[str, str]]]:
    for shown in range(asked.most, asked.least - 1, -1):
        # One user message: every chat template has that role, not every one has a system message.
        yield [{"role": "user", "content": asked.prompt(shown)}]
