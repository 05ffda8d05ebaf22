"""How the next token is chosen: `Sampling`, and the llama.cpp samplers made of it.

Greedy decoding without penalties and grammar needs no sampler: the engine takes the argmax of all rows at once. Draws
use a random generator per request, so they do not depend on what else runs in the batch.
"""

import ctypes
from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from promptopt.errors import ConfigError
from promptopt.lm.llama_cpp import native
from promptopt.lm.llama_cpp.vocabulary import Vocabulary

MAX_SEED = 2**32 - 1
GRAMMARS_KEPT = 64
PENALTY_WINDOW = 4096
"""Generated tokens that penalties look back on."""
_TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


@dataclass(frozen=True, slots=True)
class Sampling:
    """Everything that decides which token follows.

    Attributes:
        temperature: 0 is greedy, and then top_p, top_k, min_p and seed do not matter.
        top_p: keep the smallest set of tokens with this probability; 1 keeps all.
        top_k: keep this many tokens; 0 keeps all.
        min_p: drop tokens below this share of the likeliest token's probability; 0 keeps all.
        seed: in [0, 2**32 - 1]; larger or negative values wrap around.
        repetition_penalty: divides positive logits of tokens already generated, multiplies negative ones; 1 is none.
        frequency_penalty: subtracted from a logit for every time its token was generated.
        presence_penalty: subtracted once from the logits of all tokens already generated.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0

    def __post_init__(self) -> None:
        checks = (
            ("temperature", self.temperature, 0.0, 100.0),
            ("top_p", self.top_p, 0.0, 1.0),
            ("top_k", self.top_k, 0, 2**31 - 1),
            ("min_p", self.min_p, 0.0, 1.0),
            ("repetition_penalty", self.repetition_penalty, 0.01, 10.0),
            ("frequency_penalty", self.frequency_penalty, -2.0, 2.0),
            ("presence_penalty", self.presence_penalty, -2.0, 2.0),
        )
        for name, value, low, high in checks:
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value!r}; allowed are numbers from {low} to {high}.")

    @property
    def penalised(self) -> bool:
        """Whether tokens already generated count against themselves."""
        return (self.repetition_penalty, self.frequency_penalty, self.presence_penalty) != (1.0, 0.0, 0.0)

    def cache_key(self) -> dict[str, float | int]:
        """Return what distinguishes answers: greedy decoding does not depend on the seed or on filters."""
        penalties = ("repetition_penalty", "frequency_penalty", "presence_penalty")
        key = {name: value for name, value in asdict(self).items() if name not in penalties or self.penalised}
        if self.temperature == 0:
            return {"temperature": 0.0, **{name: key[name] for name in penalties if name in key}}
        return key


class SamplerFactory:
    """Makes samplers for one vocabulary; compiled grammars are kept. Used by the engine's worker only."""

    def __init__(self, lib: Any, vocabulary: Vocabulary) -> None:
        self._lib = lib
        self._vocabulary = vocabulary
        self._grammars: OrderedDict[str, Any] = OrderedDict()
        self._candidates = np.zeros(vocabulary.size, dtype=_TOKEN_DATA)
        self._one = np.zeros(1, dtype=_TOKEN_DATA)
        self._ids = np.arange(vocabulary.size, dtype=np.int32)
        self._control = vocabulary.control_tokens()

    def make(self, sampling: Sampling, grammar: str | None) -> "Sampler | None":
        """Return a sampler, or None where the argmax is the choice.

        Raises:
            ConfigError: llama.cpp cannot compile the grammar.
        """
        if sampling.temperature == 0 and not sampling.penalised and grammar is None:
            return None
        rules = None if grammar is None else self._lib.llama_sampler_clone(self._grammar(grammar))
        return Sampler(self, sampling, rules)

    def _grammar(self, text: str) -> Any:
        found = self._grammars.get(text)
        if found is None:
            if "\0" in text:
                raise ConfigError("The grammar contains a NUL character, where llama.cpp would stop reading it.")
            native.clear_log()
            found = self._lib.llama_sampler_init_grammar(self._vocabulary.raw, text.encode("utf-8"), b"root")
            if not found:
                raise ConfigError(
                    f"llama.cpp cannot compile the grammar: {native.last_log_lines()}. It must be GBNF with a rule "
                    f"called root; it begins with {text[:80]!r}."
                )
            self._grammars[text] = found
            if len(self._grammars) > GRAMMARS_KEPT:
                self._lib.llama_sampler_free(self._grammars.popitem(last=False)[1])
        self._grammars.move_to_end(text)
        return found

    def candidates(self, logits: native.Logits, *, text_only: bool) -> Any:
        """Return one row of logits as llama.cpp's array of candidates; valid until the next call.

        Args:
            text_only: leave out control tokens that do not end the turn: a grammar would take them for their text.
        """
        self._candidates["id"] = self._ids
        self._candidates["logit"] = logits
        if text_only:
            self._candidates["logit"][self._control] = -np.inf
        return self._array(self._candidates)

    def one(self, token: int) -> Any:
        """Return an array of a single candidate."""
        self._one["id"], self._one["logit"] = token, 0.0
        return self._array(self._one)

    def accepted(self) -> bool:
        """Whether the grammar left the single candidate in."""
        return bool(np.isfinite(self._one["logit"][0]))

    def token_of(self, array: Any) -> int:
        """Return the token a sampler selected."""
        return int(array.data[array.selected].id)

    def _array(self, data: np.ndarray[Any, Any]) -> Any:
        pointer = ctypes.cast(data.ctypes.data, self._lib.llama_token_data_p)
        return self._lib.llama_token_data_array(pointer, len(data), -1, False)

    @property
    def lib(self) -> Any:
        """llama-cpp-python."""
        return self._lib

    @property
    def vocab_size(self) -> int:
        """Tokens of the vocabulary."""
        return self._vocabulary.size

    def close(self) -> None:
        """Free the compiled grammars."""
        while self._grammars:
            self._lib.llama_sampler_free(self._grammars.popitem()[1])


class Sampler:
    """One request's samplers: penalties, top_k, top_p, min_p, temperature, draw; and its grammar."""

    def __init__(self, factory: SamplerFactory, sampling: Sampling, grammar: Any | None) -> None:
        self._factory = factory
        self._lib = lib = factory.lib
        self._grammar = grammar
        self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        for link in _links(lib, factory.vocab_size, sampling):
            lib.llama_sampler_chain_add(self._chain, link)

    def sample(self, logits: native.Logits) -> int:
        """Choose and accept a token.

        With a grammar the token is drawn first and checked after, and drawn again from what the grammar allows only if
        it was refused: that gives the same distribution, and spares checking the whole vocabulary every time.
        """
        lib, factory = self._lib, self._factory
        array = factory.candidates(logits, text_only=self._grammar is not None)
        lib.llama_sampler_apply(self._chain, ctypes.byref(array))
        token = factory.token_of(array)
        if self._grammar is not None:
            one = factory.one(token)
            lib.llama_sampler_apply(self._grammar, ctypes.byref(one))
            if not factory.accepted():
                array = factory.candidates(logits, text_only=True)
                lib.llama_sampler_apply(self._grammar, ctypes.byref(array))
                lib.llama_sampler_apply(self._chain, ctypes.byref(array))
                token = factory.token_of(array)
            lib.llama_sampler_accept(self._grammar, token)
        lib.llama_sampler_accept(self._chain, token)
        return token

    def free(self) -> None:
        """Give the native memory back."""
        self._lib.llama_sampler_free(self._chain)
        if self._grammar is not None:
            self._lib.llama_sampler_free(self._grammar)


def _links(lib: Any, vocab_size: int, sampling: Sampling) -> list[Any]:
    links = []
    if sampling.penalised:
        penalties = (sampling.repetition_penalty, sampling.frequency_penalty, sampling.presence_penalty)
        links.append(lib.llama_sampler_init_penalties(vocab_size, PENALTY_WINDOW, *penalties))
    if sampling.temperature == 0:
        return [*links, lib.llama_sampler_init_greedy()]
    if sampling.top_k > 0:
        links.append(lib.llama_sampler_init_top_k(sampling.top_k))
    if sampling.top_p < 1:
        links.append(lib.llama_sampler_init_top_p(sampling.top_p, 1))
    if sampling.min_p > 0:
        links.append(lib.llama_sampler_init_min_p(sampling.min_p, 1))
    links.append(lib.llama_sampler_init_temp(sampling.temperature))
    # llama.cpp reads 2**32 - 1 as "any seed", which would make that one seed irreproducible.
    links.append(lib.llama_sampler_init_dist(sampling.seed % MAX_SEED))
    return links
