"""How the next token is chosen: `Sampling`, and the llama.cpp sampler chain made of it."""

from dataclasses import asdict, dataclass
from typing import Any

from promptopt.errors import ConfigError

MAX_SEED = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Sampling:
    """Everything that decides which token follows.

    Attributes:
        temperature: 0 is greedy, and then nothing else here matters.
        top_p: keep the smallest set of tokens with this probability; 1 keeps all.
        top_k: keep this many tokens; 0 keeps all.
        min_p: drop tokens below this share of the likeliest token's probability; 0 keeps all.
        seed: in [0, 2**32 - 1]; larger or negative values wrap around.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        checks = (
            ("temperature", self.temperature, 0.0, 100.0),
            ("top_p", self.top_p, 0.0, 1.0),
            ("top_k", self.top_k, 0, 2**31 - 1),
            ("min_p", self.min_p, 0.0, 1.0),
        )
        for name, value, low, high in checks:
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value!r}; allowed are numbers from {low} to {high}.")

    def cache_key(self) -> dict[str, float | int]:
        """Return what distinguishes answers: greedy decoding does not depend on the seed or on filters."""
        return {"temperature": 0.0} if self.temperature == 0 else asdict(self)


class Sampler:
    """A native sampler chain in the order top_k, top_p, min_p, temperature, draw. One per request."""

    def __init__(self, lib: Any, sampling: Sampling) -> None:
        self._lib = lib
        self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        for link in self._links(sampling):
            lib.llama_sampler_chain_add(self._chain, link)

    def _links(self, sampling: Sampling) -> list[Any]:
        lib = self._lib
        if sampling.temperature == 0:
            return [lib.llama_sampler_init_greedy()]
        links = []
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

    def sample(self, context: Any, index: int) -> int:
        """Choose and accept a token from the logits of batch entry `index`."""
        return int(self._lib.llama_sampler_sample(self._chain, context, index))

    def free(self) -> None:
        """Give the native memory back."""
        self._lib.llama_sampler_free(self._chain)
