"""One forward and one backward for several sets of LoRA weights on one base.

The rows of a set stand next to each other in the batch. Every layer computes the base's part for all rows at once, and
each set's low-rank part for its own rows alone: no gradient can cross from set to set. PEFT has the like for inference
(`adapter_names`) and refuses it in training; there its LoRA path is switched off, and a forward hook on every
`LoraLayer` takes its place. Other systems that share a base: mLoRA (arXiv 2312.02515), ALTO, LoRAFusion.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from peft import get_peft_model
from peft.tuners.lora import LoraLayer
from torch.nn.functional import pad

from promptopt.config.recipe import TrainingRecipe
from promptopt.finetune.lora import lora_config
from promptopt.finetune.together.noise import NoiseSource, drop_out, neftune

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class LoraSet:
    """LoRA weights that are trained beside others: the `name` PEFT knows them by, and what shapes them."""

    name: str
    recipe: TrainingRecipe
    seed: int


@dataclass(frozen=True)
class Slice:
    """Rows of a batch that belong to one set.

    Attributes:
        rows: how many; None = all of the batch.
        tokens: the longest of them; what lies beyond is padding.
        noise: where dropout and NEFTune noise come from; None = without noise.
    """

    lora: LoraSet
    rows: int | None = None
    tokens: int = 0
    noise: NoiseSource | None = None


class SharedForward:
    """A base with several sets of LoRA weights. Changes `base`, as its owner knows (see `resident.ResidentBase.lend`).

    Every set starts with the values that `lora.add_lora` would give it alone.

    Attributes:
        model: the wrapped model; answers with the weights that `using` names, and with the bare base outside of it.
        grouped: whether sets with equal numbers of rows go through one batched product, with ranks padded to the
            largest; for measurements alone, it is faster (docs/weights.md).

    Raises:
        TrainingError: as `lora.lora_config`.
    """

    def __init__(self, base: "PreTrainedModel", sets: Sequence[LoraSet]) -> None:
        self._slices: tuple[Slice, ...] = ()
        self.grouped = True
        # Resolved while the model is bare: LoRA weights are linear layers, too.
        configs = [lora_config(base, lora.recipe) for lora in sets]
        model: Any = None
        for lora, config in zip(sets, configs, strict=True):
            torch.manual_seed(lora.seed)
            if model is None:
                model = get_peft_model(base, config, adapter_name=lora.name)
            else:
                config.base_model_name_or_path = base.name_or_path  # as `get_peft_model` does
                model.add_adapter(lora.name, config)
        self.model = model
        model.base_model.disable_adapter_layers()
        for number, layer in enumerate(self._layers()):
            layer.register_forward_hook(_LayerHook(self, number))
        model.get_input_embeddings().register_forward_hook(self._noisy_embeddings)
        for lora in sets:
            for parameter in self.parameters(lora):
                parameter.requires_grad_(True)
        if any(lora.recipe.gradient_checkpointing for lora in sets):
            model.gradient_checkpointing_enable()
            model.enable_input_require_grads()
        model.train()

    @contextmanager
    def using(self, *slices: Slice) -> Iterator[Any]:
        """Let the model compute each slice of its batch, in this order, with the weights of its set.

        Backward passes through checkpointed layers belong inside: they compute the layers again.
        """
        before, self._slices = self._slices, slices
        try:
            yield self.model
        finally:
            self._slices = before

    def parameters(self, lora: LoraSet) -> "list[torch.nn.Parameter]":
        """Return the trained weights of one set, in the order of PEFT's names."""
        return [
            getattr(layer, kind)[lora.name].weight
            for layer in self._layers()
            for kind in ("lora_A", "lora_B")
            if lora.name in getattr(layer, kind)
        ]

    def add_deltas(self, layer: Any, number: int, x: "Tensor", out: "Tensor") -> "Tensor":
        """Return `out` of the base's `layer` with the low-rank part of every row's set added.

        Args:
            number: of the layer in the model; decides its dropout.
            x: the layer's input, of shape (rows, tokens, width).
        """
        if not self._slices:
            return out
        if len(self._slices) == 1:
            return _with_delta(layer, number, self._slices[0], x, out)
        # Split at once: the gradient of every x[start:end] would be as large as x, and all of them summed.
        sizes = self._sizes()
        if self.grouped and len(set(sizes)) == 1 and all(part.lora.name in layer.lora_A for part in self._slices):
            return _with_deltas(layer, number, self._slices, x, out)
        parts = [
            _with_delta(layer, number, part, own_x, own_out)
            for part, own_x, own_out in zip(self._slices, x.split(sizes), out.split(sizes), strict=True)
        ]
        return torch.cat(parts)

    def _layers(self) -> list[Any]:
        return [module for module in self.model.modules() if isinstance(module, LoraLayer)]

    def _noisy_embeddings(self, module: Any, args: Any, out: "Tensor") -> "Tensor":
        if not any(part.noise and part.lora.recipe.neftune_noise for part in self._slices):
            return out
        parts = []
        for part, rows in zip(self._slices, out.split(self._sizes(len(out))), strict=True):
            alpha = part.lora.recipe.neftune_noise
            if part.noise is not None and alpha is not None:
                rows = neftune(rows, alpha, part.tokens, part.noise)
            parts.append(rows)
        return torch.cat(parts)

    def _sizes(self, rows: int = 0) -> list[int]:
        return [rows if part.rows is None else part.rows for part in self._slices]


class _LayerHook:
    """Forward hook of one LoraLayer."""

    def __init__(self, owner: SharedForward, number: int) -> None:
        self._owner = owner
        self._number = number

    def __call__(self, layer: Any, args: "tuple[Tensor, ...]", out: "Tensor") -> "Tensor":
        return self._owner.add_deltas(layer, self._number, args[0], out)


def _with_delta(layer: Any, number: int, part: Slice, x: "Tensor", out: "Tensor") -> "Tensor":
    name = part.lora.name
    if name not in layer.lora_A:  # the set leaves this layer alone
        return out
    x = _dropped_out(x, part, number)
    if not torch.is_autocast_enabled(x.device.type):
        x = x.to(layer.lora_A[name].weight.dtype)
    # Scaled where it is narrow, and added by the product itself: on a CPU passes over the wide result cost most.
    narrow = layer.lora_A[name](x).flatten(0, 1) * layer.scaling[name]
    return torch.addmm(out.flatten(0, 1), narrow, layer.lora_B[name].weight.T).view(out.shape)


def _with_deltas(layer: Any, number: int, slices: "tuple[Slice, ...]", x: "Tensor", out: "Tensor") -> "Tensor":
    names, sets = [part.lora.name for part in slices], len(slices)
    rank = max(layer.r[name] for name in names)
    down = torch.stack([pad(layer.lora_A[name].weight, (0, 0, 0, rank - layer.r[name])) for name in names])
    up = torch.stack(
        [pad(layer.lora_B[name].weight * layer.scaling[name], (0, rank - layer.r[name])) for name in names]
    )
    if any(part.noise is not None and part.lora.recipe.dropout for part in slices):
        own = x.split(len(x) // sets)
        x = torch.cat([_dropped_out(rows, part, number) for rows, part in zip(own, slices, strict=True)])
    if not torch.is_autocast_enabled(x.device.type):
        x = x.to(down.dtype)
    narrow = torch.bmm(x.reshape(sets, -1, x.shape[-1]), down.transpose(1, 2))
    wide = out.reshape(sets, -1, out.shape[-1])
    return torch.baddbmm(wide, narrow, up.transpose(1, 2)).view(out.shape)


def _dropped_out(x: "Tensor", part: Slice, number: int) -> "Tensor":
    if part.noise is None or not part.lora.recipe.dropout:
        return x
    return drop_out(x, part.lora.recipe.dropout, part.tokens, part.noise, number)
