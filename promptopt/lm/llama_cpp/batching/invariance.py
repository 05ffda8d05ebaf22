"""Finds the batch sizes whose rows agree to the last bit, by decoding one token in batches of all sizes."""

import hashlib

import numpy as np

from promptopt.lm.llama_cpp.batching.batch_rule import INPUTS, PROBE_SIZES, BatchRule, find_rule, remembered_rule
from promptopt.lm.llama_cpp.cpu_probe import cpu_name
from promptopt.lm.llama_cpp.model import NativeModel

PROMPT_TOKENS = 64


def rule(model: NativeModel) -> BatchRule:
    """Return the rule for this model on this machine, measured once per CPU, build and kind of model."""
    shape = [f"{name}={model.info.metadata.get(f'{model.info.architecture}.{name}')}" for name in _SHAPE]
    parts = [
        cpu_name(), str(model.lib.__version__), model.info.architecture, *shape, *sorted(model.info.tensor_types),
        f"gpu={model.options.n_gpu_layers}", f"extra={model.cpu_path.use_extra_bufts}",
    ]  # fmt: skip
    return remembered_rule(parts, model.lanes, lambda: _measure(model))


_SHAPE = (
    "block_count", "embedding_length", "feed_forward_length", "attention.head_count", "attention.head_count_kv",
)  # fmt: skip


def _measure(model: NativeModel) -> BatchRule:
    lanes = min(model.lanes, PROBE_SIZES[-1])
    context = model.make_context(PROMPT_TOKENS + 16, lanes)
    try:
        size = model.vocabulary.size
        # In a narrow model differently ordered sums often come to the same bits by chance: look more often.
        rounds = max(1, min(16, 2048 // int(model.lib.llama_model_n_embd(model.raw))))
        prompt = np.asarray([(7 * n + 3) % size for n in range(PROMPT_TOKENS)], dtype=np.int32)
        context.batch.set_prompt(prompt, 0, 0, last_logits=True)
        context.decode()
        for lane in range(1, lanes):
            context.fork(0, lane, PROMPT_TOKENS)

        def digests(rows: int) -> list[str]:
            found = [hashlib.md5(usedforsecurity=False) for _ in range(rows)]
            batch = context.batch
            for round_ in range(rounds):
                batch.tokens[:rows] = (11 * (np.arange(rows) % INPUTS) + 5 + 3 * round_) % size
                batch.positions[:rows] = PROMPT_TOKENS + round_
                batch.sequences[:rows] = np.arange(rows)
                batch.wanted[:rows] = 1
                batch.set_count(rows)
                context.decode()
                for digest, row in zip(found, context.logits(rows), strict=True):
                    digest.update(row.tobytes())
            for lane in range(rows):
                context.cut(lane, PROMPT_TOKENS)
            return [digest.hexdigest() for digest in found]

        return find_rule(digests, model.lanes)
    finally:
        context.close()
