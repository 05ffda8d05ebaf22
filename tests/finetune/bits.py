"""Everything that can be seen of a loaded model, so that two moments of it can be compared to the last bit."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def tensor_bytes(tensor: Any) -> bytes:
    import torch

    return bytes(tensor.detach().contiguous().reshape(-1).view(torch.uint8).cpu().numpy().tobytes())


def _tensors(model: Any) -> Iterator[tuple[str, Any]]:
    for name, parameter in model.named_parameters(remove_duplicate=False):
        yield name, parameter.data
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            yield f"{name}.absmax", state.absmax
            yield f"{name}.code", state.code
            yield f"{name}.offset", state.offset
            yield f"{name}.absmax2", state.state2.absmax
            yield f"{name}.code2", state.state2.code
    yield from model.named_buffers(remove_duplicate=False)


def tensor_hashes(model: Any) -> dict[str, str]:
    """SHA-256 of every parameter, buffer and 4-bit scale."""
    return {
        name: hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode() + tensor_bytes(tensor)).hexdigest()
        for name, tensor in _tensors(model)
    }


def structure(model: Any) -> dict[str, Any]:
    """Modules, their attributes, hooks and flags, and the configs."""
    modules = {
        name: (id(module), type(module).__name__, sorted(vars(module)), module.training, _plain(module), _hooks(module))
        for name, module in model.named_modules(remove_duplicate=False)
    }
    parameters = {
        name: (id(parameter), parameter.requires_grad, parameter.grad is None, sorted(vars(parameter)))
        for name, parameter in model.named_parameters(remove_duplicate=False)
    }
    configs = (model.config.to_dict(), model.generation_config.to_dict())
    return {"modules": modules, "parameters": parameters, "configs": repr(configs)}


def _plain(module: Any) -> dict[str, Any]:
    kinds = (bool, int, float, str, type(None))
    return {name: value for name, value in vars(module).items() if isinstance(value, kinds)}


def _hooks(module: Any) -> dict[str, int]:
    return {name: len(value) for name, value in vars(module).items() if "hook" in name and hasattr(value, "__len__")}


def lora_bytes(out_dir: Path) -> bytes:
    """The published LoRA weights."""
    return (out_dir / "lora" / "adapter_model.safetensors").read_bytes()
