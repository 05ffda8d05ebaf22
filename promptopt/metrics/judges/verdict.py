"""Verdicts in double brackets, `[[7]]` or `[[A]]`: read strictly, and the grammars of replies that hold one."""

import re
from collections.abc import Sequence

from promptopt.errors import ParseError

LOWEST, HIGHEST = 1, 10
RATINGS = tuple(str(n) for n in range(LOWEST, HIGHEST + 1))
PREFERENCES = ("A", "B", "C")
EXPLANATION_CHARS = 400

_VERDICT = re.compile(r"\[\[(.*?)\]\]", re.DOTALL)


def read_verdict(reply: str, allowed: Sequence[str]) -> str:
    """Return the one verdict in `reply`.

    Strict: nothing is guessed from a reply without brackets, with a verdict that is not allowed ("[[7/10]]", "[[0]]"),
    or with several that differ, as where a judge repeats brackets that stood in the answer it judges.

    Raises:
        ParseError: why there is none.
    """
    found = {text.strip() for text in _VERDICT.findall(reply)}
    if not found:
        raise ParseError("the reply holds no verdict in [[ ]]" if reply.strip() else "the reply is empty")
    if len(found) > 1:
        raise ParseError("the reply holds several verdicts")
    verdict: str = found.pop()
    if verdict not in allowed:
        raise ParseError("the verdict is not one of the allowed ones")
    return verdict


def verdict_grammar(allowed: Sequence[str], explain: bool) -> str:
    """Return the GBNF of replies with one verdict; `explain` puts up to EXPLANATION_CHARS characters before it."""
    choices = " | ".join(f'"{text}"' for text in allowed)
    before = f"[^\\[\\]]{{1,{EXPLANATION_CHARS}}} " if explain else ""
    return f'root ::= {before}"[[" ( {choices} ) "]]"'


def reply_tokens(explain: bool) -> int:
    """Return tokens that are enough for every reply of the grammar: a character takes at most four of them."""
    return 4 * EXPLANATION_CHARS + 32 if explain else 32


def unit(rating: float) -> float:
    """Return a rating of 1 to 10 as a score in [0, 1]: (n - 1) / 9."""
    return (rating - LOWEST) / (HIGHEST - LOWEST)
