"""Other ways to compute the low-rank parts of several sets, to be measured against promptopt's."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

PRODUCTS = ("batched", "per set", "adapter_names", "masked")
"""`batched` is what promptopt does where all sets have as many rows, and `per set` elsewhere."""


def masked(layer: Any, sets: list[tuple[str, int]], x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """One product with the weights of all sets side by side; a row keeps the part of its own set."""
    down = torch.cat([layer.lora_A[name].weight for name, _ in sets]).to(x.dtype)
    up = torch.cat([layer.lora_B[name].weight * layer.scaling[name] for name, _ in sets], dim=1).to(x.dtype)
    own = x.new_zeros(len(x), 1, len(down))
    row = column = 0
    for name, rows in sets:
        own[row : row + rows, :, column : column + layer.r[name]] = 1
        row, column = row + rows, column + layer.r[name]
    narrow = ((x @ down.T) * own).flatten(0, 1)
    return torch.addmm(out.flatten(0, 1), narrow, up.T).view(out.shape)


@contextmanager
def computed_by(shared: Any, product: str) -> Iterator[None]:
    """Let `shared` (a SharedForward) compute its low-rank parts by `product` meanwhile."""
    if product == "batched":
        yield
    elif product == "per set":
        shared.grouped = False
        yield
        shared.grouped = True
    elif product == "adapter_names":
        with _by_adapter_names(shared):
            yield
    else:

        def add_deltas(layer: Any, number: int, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
            slices = shared._slices
            return masked(layer, [(part.lora.name, part.rows) for part in slices], x, out) if slices else out

        shared.add_deltas = add_deltas
        try:
            yield
        finally:
            del shared.add_deltas


@contextmanager
def _by_adapter_names(shared: Any) -> Iterator[None]:
    """PEFT's own path for mixed batches, opened to training by a pre-hook on every layer."""

    def named(layer: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        names = [part.lora.name for part in shared._slices for _ in range(part.rows)]
        return args, {**kwargs, "adapter_names": names}

    layers = shared._layers()
    handles = [layer.register_forward_pre_hook(named, with_kwargs=True) for layer in layers]
    for layer in layers:
        layer._disable_adapters = False
    shared.add_deltas = lambda layer, number, x, out: out
    try:
        yield
    finally:
        del shared.add_deltas
        for layer in layers:
            layer._disable_adapters = True
        for handle in handles:
            handle.remove()
