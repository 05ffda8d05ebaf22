"""`transformers.generate` on the same weights: batches padded on the left, f32 on a CPU and f16 on a GPU."""

import contextlib
import io
import logging
from typing import Any

from engine_bench.drive import Answer, in_waves
from engine_bench.sides import Setup, SideMissing
from engine_bench.workloads import Workload


class Transformers:
    """A GGUF's weights, dequantised by transformers, answering `slots` prompts at a time."""

    def __init__(self, setup: Setup) -> None:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise SideMissing(f"{error.name} is not installed") from error
        torch.set_num_threads(setup.threads)
        transformers.utils.logging.disable_progress_bar()
        logging.getLogger("transformers").setLevel(logging.ERROR)
        on_gpu = setup.n_gpu_layers != 0 and torch.cuda.is_available()
        self._torch: Any = torch
        self._device = "cuda" if on_gpu else "cpu"
        self._setup = setup
        self._longest = 0
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that no setting turns off
                model = transformers.AutoModelForCausalLM.from_pretrained(
                    str(setup.path.parent), gguf_file=setup.path.name, dtype=torch.float16 if on_gpu else torch.float32
                )
        except (ValueError, OSError, NotImplementedError, ImportError) as error:
            raise SideMissing(f"transformers cannot load this GGUF: {error}") from error
        self._model: Any = model.to(self._device)
        self._model.eval()
        self._ends = [token for token in range(setup.chat.model.vocabulary.size) if setup.ends(token)]

    def run(self, workload: Workload) -> list[Answer]:
        self._longest = 0
        return in_waves(workload, self._ask_many, self._setup.slots)

    def _ask_many(self, prompts: list[tuple[int, ...]], max_tokens: int) -> list[Answer]:
        torch = self._torch
        width = max(map(len, prompts))
        self._longest = max(self._longest, width + max_tokens)
        ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=self._device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self._device)
        with torch.inference_mode():
            out = self._model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=max_tokens, do_sample=False,
                eos_token_id=self._ends or None, pad_token_id=0,
            )  # fmt: skip
        rows = out[:, width:].tolist()
        return [Answer(prompt, self._cut(row), width) for prompt, row in zip(prompts, rows, strict=True)]

    def _cut(self, row: list[int]) -> tuple[int, ...]:
        end = next((place for place, token in enumerate(row) if token in self._ends), len(row))
        return tuple(row[:end])

    def kv_bytes(self) -> int:
        values = 1 if self._device == "cuda" else 2
        return self._setup.slots * self._longest * self._setup.chat.model.kv_bytes_per_token * values

    def close(self) -> None:
        del self._model
