"""LoRA weights in GGUF files, applied at run time to one loaded base: which ones, and the native handles of them.

A set of weights has a key, so that keys and values computed with one set are never used with another. llama.cpp applies
LoRA weights to a whole context, not per sequence: requests with different sets take turns.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptopt.errors import ConfigError, ModelError
from promptopt.lm.fingerprint import file_sha256
from promptopt.lm.llama_cpp import native


@dataclass(frozen=True, slots=True)
class LoraWeights:
    """One LoRA GGUF and how strongly it counts.

    Attributes:
        path: a GGUF with general.type "adapter", made for this base.
        scale: multiplies alpha / rank of the file; 1 is as trained.
        fingerprint: SHA-256 of the file, read at construction: another file under the same name is another set.

    Raises:
        ModelError: there is no such file.
        ConfigError: `scale` is not finite.
    """

    path: Path
    scale: float = 1.0
    fingerprint: str = field(default="", compare=True)

    def __post_init__(self) -> None:
        path = Path(self.path)
        if not path.is_file():
            raise ModelError(f"There are no LoRA weights at {path}. Give the path of a LoRA GGUF made for this base.")
        if not abs(self.scale) < 1e6:
            raise ConfigError(f"The scale of {path} is {self.scale}; allowed are finite numbers, 1 is as trained.")
        object.__setattr__(self, "path", path)
        if not self.fingerprint:
            object.__setattr__(self, "fingerprint", file_sha256(path))


LoraSet = tuple[LoraWeights, ...]
"""LoRA weights applied together; empty is the bare base."""


def lora_set(weights: "Iterable[LoraWeights | Path | str] | LoraWeights | Path | str | None") -> LoraSet:
    """Return LoRA weights as a set; a bare path counts with scale 1."""
    if weights is None:
        return ()
    if isinstance(weights, LoraWeights | Path | str):
        weights = [weights]
    return tuple(item if isinstance(item, LoraWeights) else LoraWeights(Path(item)) for item in weights)


def weights_key(weights: LoraSet) -> str:
    """Return what tells sets apart: files by content, with their scales; a scale of 0 counts as absent."""
    return "+".join(f"{item.fingerprint}*{item.scale!r}" for item in weights if item.scale != 0)


class LoraShelf:
    """The LoRA weights that are loaded beside one base. Used by the engine's worker only."""

    def __init__(self, lib: Any, model: Any, name: str) -> None:
        self._lib = lib
        self._model = model
        self._name = name
        self._handles: dict[str, Any] = {}

    def load(self, weights: LoraSet) -> list[tuple[Any, float]]:
        """Return native handles and scales of a set, loading what is not loaded yet.

        Raises:
            ModelError: a file is no LoRA GGUF for this base.
        """
        return [(self._handle(item), item.scale) for item in weights if item.scale != 0]

    def _handle(self, item: LoraWeights) -> Any:
        if item.fingerprint not in self._handles:
            native.clear_log()
            handle = self._lib.llama_adapter_lora_init(self._model, str(item.path).encode())
            if not handle:
                raise ModelError(
                    f"llama.cpp cannot use {item.path} as LoRA weights for {self._name}: {native.last_log_lines()}. "
                    "They must be a LoRA GGUF that was trained on this base."
                )
            self._handles[item.fingerprint] = handle
        return self._handles[item.fingerprint]

    def free(self, fingerprint: str) -> None:
        """Unload one file; the context must not be using it."""
        handle = self._handles.pop(fingerprint, None)
        if handle is not None:
            self._lib.llama_adapter_lora_free(handle)

    def close(self) -> None:
        """Unload everything; must happen before the base is freed."""
        for fingerprint in list(self._handles):
            self.free(fingerprint)
