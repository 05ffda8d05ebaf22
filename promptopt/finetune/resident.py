"""A base model that stays in memory while training after training puts LoRA weights on it and takes them off again.

Loading and quantizing the base, the self-test and tokenising take longer than a short training of a small model, and
none of them depends on the recipe. Every training gets the base as it was loaded, to the last bit and attribute, so
that its result does not depend on what was trained before.
"""

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from promptopt.errors import TrainingError
from promptopt.extras import require
from promptopt.finetune.base_folder import check_base_folder, end_token_ids, folder_hash
from promptopt.finetune.base_model import (
    LoadedBase,
    Quantization4,
    Residency,
    load_base,
    load_tokenizer,
    quiet_libraries,
    require_one_process,
    resolve_residency,
    training_device,
)
from promptopt.finetune.linear4bit import check_guarded
from promptopt.finetune.row_cache import RowCache
from promptopt.finetune.selftest import require_selftest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from promptopt.finetune.pristine import Pristine

logger = logging.getLogger(__name__)


class ResidentBase:
    """The model and tokenizer in `base_dir`, loaded when they are first needed and kept until `close`.

    A context manager. One training at a time; not for several threads.

    Args:
        base_dir: Hugging Face model folder; never written to, and expected to stay as it is.
        quantization: how the base is held; only recipes with the same one can be trained on it.
        residency: see `base_model.load_base`.

    Attributes:
        residency: what `auto` came to.
        device: "cpu" or "cuda".

    Raises:
        ModelError: the folder is incomplete.
        TrainingError: this is one of several processes of a launcher.
        MissingExtraError: the `finetune` extra is not installed.
    """

    def __init__(self, base_dir: Path, quantization: Quantization4 = "nf4", residency: Residency = "auto") -> None:
        check_base_folder(base_dir)
        require_one_process()
        for module in ("torch", "transformers", "peft", "trl", "datasets", "accelerate"):
            require(module)
        self.base_dir = base_dir
        self.quantization: Quantization4 = quantization
        self.device = training_device()
        self.residency = resolve_residency(base_dir, quantization, residency, self.device)
        self._loaded: LoadedBase | None = None
        self._pristine: Pristine | None = None
        self._lent = False
        self._closed = False
        self._broke_off = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @cached_property
    def base_hash(self) -> str:
        """Hash of the files, as `base_folder.folder_hash` says; taken once."""
        return folder_hash(self.base_dir)

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Tokens at which generation stops."""
        eos = self.tokenizer.eos_token_id
        return end_token_ids(self.base_dir, eos if isinstance(eos, int) else None)

    @cached_property
    def rows(self) -> RowCache:
        """Tokenised rows of the last trainings."""
        return RowCache(self.tokenizer, self.end_ids)

    def require_fits(self, base_dir: Path, quantization: Quantization4, residency: Residency) -> None:
        """Raise TrainingError unless this is the base that a training asks for, and free for it.

        Args:
            residency: `auto` takes the base as it is held.
        """
        if self._closed or self._lent:
            state = "closed" if self._closed else "in use by another training"
            raise TrainingError(f"The resident base {self.base_dir} is {state}. Make a ResidentBase for this training.")
        asked: dict[str, tuple[object, object]] = {
            "base_dir": (base_dir.resolve(), self.base_dir.resolve()),
            "base_quantization": (quantization, self.quantization),
        }
        if residency != "auto":
            asked["residency"] = (resolve_residency(base_dir, quantization, residency, self.device), self.residency)
        for name, (wanted, held) in asked.items():
            if wanted != held:
                raise TrainingError(
                    f"The training asks for {name} {wanted}, but the resident base has {name} {held}. Train it on a "
                    f"ResidentBase of its own, or without one; a study keeps {name} fixed."
                )

    @contextmanager
    def lend(self) -> Iterator[LoadedBase]:
        """Lend the base to one training; take it back as it was loaded, also when the training raises.

        Raises:
            ModelError, TrainingError: as `load_base`; it is closed or lent already.
        """
        self.require_fits(self.base_dir, self.quantization, self.residency)
        loaded = self._load()
        self._lent = True
        if self._broke_off:
            gc.collect()  # its error is gone by now, and with it the last references to its trainer
        # A full collection looks at everything that the libraries made at import: 0.3 s, and accelerate asks for one
        # in every training. What is there already is set aside meanwhile; only what the training makes is looked at.
        gc.freeze()
        self._broke_off = True
        try:
            yield loaded
            self._broke_off = False
        finally:
            self._take_back()
            if self._broke_off and not self._is_whole():
                logger.warning("A training that broke off has changed the base in memory; it is loaded again")
                self._drop()

    def check(self) -> None:
        """Prove that no training has changed the base; costs reading its weights in memory once.

        Raises:
            TrainingError: one has. The base is dropped; the next training loads it again.
        """
        if not self._is_whole():
            self._drop()
            raise TrainingError(
                f"The base {self.base_dir} has changed in memory while LoRA weights were trained on it, so they belong "
                "to no model on disk and are thrown away. Start again: the base is loaded anew. If it happens again, "
                "install the versions in constraints.txt."
            )

    def close(self) -> None:
        """Give all memory back; harmless when done already."""
        self._closed = True
        self.__dict__.pop("rows", None)
        if self._loaded is not None:
            self._drop()

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer of the base; read without its weights."""
        with quiet_libraries():
            return load_tokenizer(self.base_dir)

    def _load(self) -> LoadedBase:
        if self._loaded is None:
            from promptopt.finetune.pristine import Pristine

            if self.quantization != "none":
                require_selftest(self.device, self.quantization)
            with quiet_libraries():
                self._loaded = load_base(self.base_dir, self.quantization, self.residency, self.device, self.tokenizer)
            self._pristine = Pristine(self._loaded.model, self._loaded.tokenizer)
        return self._loaded

    def _take_back(self) -> None:
        self._lent = False
        if self._pristine is not None:
            self._pristine.restore()
        gc.collect()
        gc.unfreeze()
        self._empty_device()

    def _is_whole(self) -> bool:
        if self._loaded is None or self._pristine is None:
            return True
        try:
            if self._loaded.held in ("nf4", "fp4"):
                check_guarded(self._loaded.model)
        except TrainingError:
            return False
        return self._pristine.is_unchanged()

    def _drop(self) -> None:
        self._loaded = self._pristine = None
        gc.collect()
        self._empty_device()

    def _empty_device(self) -> None:
        if self.device == "cuda":
            require("torch").cuda.empty_cache()
