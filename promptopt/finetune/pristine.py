"""A loaded model as it was: restored to the last attribute after a training, and checked to the last bit.

A training leaves much on a base that is used again: PEFT puts layers in the place of layers, TRL patches `forward`,
NEFTune and gradient checkpointing hang hooks on the embeddings, flags and configs are set. Undoing each by name would
miss what the next version of a library adds, and what stays half done when a training breaks off. So everything that
a module holds is remembered at loading, and put back as a whole.
"""

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig, PreTrainedConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_BLOCK_BYTES = 2**15
"""Bytes that are summed to one number of the checksum."""


class Pristine:
    """What `model` and `tokenizer` are at this moment. Holds no copy of any weight.

    Attributes:
        checksum: of all tensors of the model, see `tensor_checksum`.
    """

    def __init__(self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
        self._model = model
        owners = [*model.modules(), *_configs(model), *model.parameters(), tokenizer]
        self._attributes = [_Attributes(owner) for owner in owners]
        self._trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        self.checksum = tensor_checksum(model)

    def restore(self) -> None:
        """Make model and tokenizer what they were, the values of tensors excepted: those nobody may have changed."""
        for attributes in self._attributes:
            attributes.restore()
        for parameter, requires_grad in self._trained:
            parameter.requires_grad_(requires_grad)
            parameter.grad = None

    def is_unchanged(self) -> bool:
        """Say whether every tensor of the model has the values that were loaded."""
        return tensor_checksum(self._model) == self.checksum


class _Attributes:
    """All attributes of one object, and what stands in those that are containers."""

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self._values = {name: (value, _copied(value)) for name, value in vars(owner).items()}

    def restore(self) -> None:
        attributes = vars(self._owner)
        attributes.clear()
        for name, (value, content) in self._values.items():
            # The very container comes back: handles of hooks, for one, refer to it.
            if isinstance(value, list):
                value[:] = _copied(content)
            elif isinstance(value, dict | set):
                value.clear()
                value.update(_copied(content))
            attributes[name] = value


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return set(value) if isinstance(value, set) else value


def _configs(model: "PreTrainedModel") -> list[Any]:
    """Return the configs that modules hold, those inside of configs included; each once."""
    found: dict[int, Any] = {}
    waiting = [value for module in model.modules() for value in vars(module).values()]
    while waiting:
        value = waiting.pop()
        if isinstance(value, PreTrainedConfig | GenerationConfig) and id(value) not in found:
            found[id(value)] = value
            waiting += vars(value).values()
    return list(found.values())


def tensor_checksum(model: "torch.nn.Module") -> str:
    """Return a hash (64 hex digits) of the name, type, shape and values of every tensor that `model` computes with.

    Values count as sums over blocks of 32 KiB, taken where the tensor lies: some 10 GiB/s on a CPU core, ten times as
    fast as hashing the bytes. What trains, merges, repacks or converts a base changes such sums; the same words in
    another order within one block would not.
    """
    digest = hashlib.sha256()
    for name, tensor in model_tensors(model):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        data = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        if data.storage_offset() % 8:  # not seen as 8-byte words from here
            data = data.clone()
        whole = data.numel() // _BLOCK_BYTES * _BLOCK_BYTES
        sums = data[:whole].view(torch.int64).reshape(-1, _BLOCK_BYTES // 8).sum(dim=1)
        for part in (sums, data[whole:]):
            digest.update(part.cpu().numpy().tobytes())
    return digest.hexdigest()


def model_tensors(model: "torch.nn.Module") -> Iterator[tuple[str, "torch.Tensor"]]:
    """Yield every tensor that `model` computes with: parameters, buffers, and the scales of 4-bit parameters."""
    for name, parameter in model.named_parameters():
        yield name, parameter.data
        state = getattr(parameter, "quant_state", None)
        for part, value in state.as_dict().items() if state is not None else ():
            # Numbers, e.g. the offset of double quantization, count as tensors, too.
            if isinstance(value, torch.Tensor | int | float):
                yield f"{name}.{part}", torch.as_tensor(value)
    yield from model.named_buffers()
