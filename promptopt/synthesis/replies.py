"""Asks a teacher, and keeps every reply in a file at once: what was answered is never asked again."""

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import dspy
from pydantic import JsonValue

from promptopt.errors import ContextLengthError, LMError
from promptopt.layout.dspy_adapter import LayoutAdapter, grammar_of
from promptopt.lm.dspy_chat import as_chat_lm
from promptopt.lm.protocol import ChatLM, Completion, FinishReason
from promptopt.records import Record
from promptopt.rundir import append_jsonl, hash_inputs, read_jsonl


class Reply(Record):
    """One reply of a teacher, as one line of `attempts.jsonl`.

    Attributes:
        key: hash of everything that decides it: the teacher, the prompt, the seed, the settings.
        document, visit: what it was asked about; the number of attempts on that document before it.
        seed: it was drawn with.
        latency_s: seconds from request to answer.
    """

    key: str
    document: str
    visit: int
    seed: int
    completion: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    latency_s: float


@dataclass(frozen=True)
class Question:
    """What a teacher is asked: the inputs of the signature, and what `Reply` says of them."""

    document: str
    visit: int
    seed: int
    inputs: dict[str, JsonValue]


@dataclass
class Teacher:
    """An LM with a signature and a layout, and the file of its replies; `ask` may be called by several threads.

    Attributes:
        lm: any dspy.LM.
        store: JSONL file of `Reply`.
        asked: replies that were computed now, not read.
    """

    lm: dspy.BaseLM
    adapter: LayoutAdapter
    signature: type[dspy.Signature]
    store: Path
    max_tokens: int
    temperature: float
    asked: int = 0
    _chat: ChatLM = field(init=False)
    _known: dict[str, Reply] = field(init=False)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._chat = as_chat_lm(self.lm)
        self._known = {reply.key: reply for reply in read_jsonl(self.store, Reply)}

    @property
    def name(self) -> str:
        """What reports call the teacher."""
        return self._chat.name

    @property
    def fingerprint(self) -> str:
        """Of the model; of a server's, only of its name and settings."""
        return self._chat.fingerprint

    def ask(self, question: Question) -> Reply | None:
        """Return the reply to `question`, read or computed; None where the prompt does not fit the context.

        Raises:
            LMError: the teacher is broken or out of reach; the message is one line.
        """
        messages = self.adapter.format(self.signature, [], dict(question.inputs))
        settings: dict[str, JsonValue] = {"max_tokens": self.max_tokens, "temperature": self.temperature}
        decides: dict[str, JsonValue] = {
            "teacher": self.fingerprint,
            "messages": json.loads(json.dumps(messages)),
            "layout": self.adapter.layout.key(),
            "seed": question.seed,
            **settings,
        }
        key = hash_inputs(decides)
        if key in self._known:
            return self._known[key]
        extra = (
            {"grammar": grammar_of(self.adapter.layout, cast(Any, self.signature))}
            if self.adapter.layout.constrained
            else {}
        )
        try:
            # Any: `grammar` is no part of the protocol; it is given only to an LM that takes it.
            completion: Completion = cast(Any, self._chat).complete_messages(
                messages, max_tokens=self.max_tokens, temperature=self.temperature, seed=question.seed, **extra
            )
        except ContextLengthError:
            return None
        except LMError as error:
            said = " ".join(str(error).split())[:400].rstrip(".")
            raise LMError(
                f"The teacher {self.name} does not answer: {said}. What it wrote so far is kept; see that it "
                "runs, then give the same command again."
            ) from error
        reply = Reply(
            key=key, document=question.document, visit=question.visit, seed=question.seed,
            completion=completion.text, finish_reason=completion.finish_reason,
            prompt_tokens=completion.prompt_tokens, completion_tokens=completion.completion_tokens,
            latency_s=completion.latency_s,
        )  # fmt: skip
        with self._lock:
            self.asked += 1
            self._known[key] = reply
            append_jsonl(self.store, reply)
        return reply
