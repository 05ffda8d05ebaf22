"""One question to a judge's LM: constrained where the LM can be, a reason where it cannot answer. Knows no verdict."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.utils.exceptions import ContextWindowExceededError

from promptopt.errors import ContextLengthError, LMError, ParseError, PromptoptError


class JudgeLM:
    """The LM behind a judge: at hand, or opened at the first question (a model is big, and a finished run asks none).

    Args:
        lm: any `dspy.LM`, or what opens one.
        name: what reports call it; needed where `lm` is a function.
        identity: what changes whenever it may answer differently, without secrets; needed where `lm` is a function.
    """

    def __init__(self, lm: dspy.BaseLM | Callable[[], dspy.BaseLM], *, name: str = "", identity: str = "") -> None:
        self._lm: dspy.BaseLM | None = lm if isinstance(lm, dspy.BaseLM) else None
        self._open = lm
        self._lock = threading.Lock()
        self.name = name or str(getattr(lm, "name", "") or getattr(lm, "model", ""))
        self.identity = identity or str(getattr(lm, "fingerprint", "") or getattr(lm, "model", ""))

    def opened(self) -> dspy.BaseLM:
        """Return the LM."""
        with self._lock:
            if self._lm is None:
                self._lm = self._open()
            return self._lm

    @property
    def parallel(self) -> int:
        """How many questions it answers at once; 1 where it does not say. Opens it."""
        said = getattr(self.opened(), "parallel", 1)
        return max(1, said) if isinstance(said, int) else 1

    def close(self) -> None:
        """Free the LM, if it was opened and can be freed."""
        close = getattr(self._lm, "close", None)
        if callable(close):
            close()

    def __deepcopy__(self, memo: dict[int, Any]) -> "JudgeLM":
        return self


@dataclass(frozen=True)
class Question:
    """What a judge asks.

    Attributes:
        grammar: GBNF of the replies that hold a verdict; LMs that list `grammar` among their `supported_params` can
            write nothing else.
    """

    text: str
    grammar: str
    temperature: float
    max_tokens: int


def ask(lm: JudgeLM, question: Question) -> str:
    """Return the reply.

    Raises:
        ParseError: the question does not fit into the LM's context: this example cannot be judged.
        LMError: the LM broke. A breakdown is never a verdict.
    """
    opened = lm.opened()
    settings: dict[str, Any] = {"temperature": question.temperature, "max_tokens": question.max_tokens}
    if can_be_constrained(opened):
        settings["grammar"] = question.grammar
    try:
        replies = opened(question.text, **settings)
    except Exception as error:
        cause = _cause(error)
        if isinstance(cause, ContextLengthError | ContextWindowExceededError):
            raise ParseError("the question does not fit into the judge's context") from error
        if isinstance(cause, PromptoptError):
            raise cause from error
        raise LMError(f"The judge {lm.name} failed: {type(error).__name__}: {error}") from error
    # DSPy gives texts, or mappings where a reply has parts beside its text (reasoning, log probabilities).
    first = replies[0] if replies else ""
    return str((first.get("text") if isinstance(first, dict) else first) or "")


def can_be_constrained(lm: dspy.BaseLM) -> bool:
    """Return whether the LM obeys a grammar, as `LayoutAdapter` asks."""
    # An engine that is only named is one of DSPy's own; none of them carries a grammar.
    return not isinstance(getattr(lm, "engine", None), str) and "grammar" in getattr(lm, "supported_params", ())


def _cause(error: BaseException) -> BaseException:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, PromptoptError | ContextWindowExceededError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return error
