"""The sides of benchmarks/gpu_qlora.py; each runs in a process of its own."""

import importlib.util
import json
import time
from pathlib import Path
from typing import Any

from gpu_bench.rows import write_rows

RANK, ALPHA, RATE = 16, 32, 2e-4
WARM_UP = 2
"""Steps that are not counted."""


class Meter:
    """Times the steps of a training."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.moments: list[float] = []

    def step(self) -> None:
        """Note that a step has ended."""
        if self._device == "cuda":
            import torch

            torch.cuda.synchronize()
        self.moments.append(time.perf_counter())

    def rate(self, tokens_per_step: float) -> float:
        """Return tokens per second."""
        counted = self.moments[WARM_UP - 1 :]
        return tokens_per_step * (len(counted) - 1) / (counted[-1] - counted[0])


def run(task: dict[str, Any]) -> None:
    """Run one side and print what it took as a line of JSON."""
    import torch

    folder, batch = Path(task["folder"]), int(task["batch"])
    if task["device"] == "cpu":
        torch.set_num_threads(1)
    train = write_rows(folder / "train.jsonl", batch * int(task["steps"]), int(task["tokens"]), 1)
    val = write_rows(folder / "val.jsonl", batch, int(task["tokens"]), 2)
    meter = Meter(task["device"])
    tokens = _row_tokens(Path(task["model"]), train) / int(task["steps"])
    side = task["side"]
    if side.startswith("promptopt"):
        note = _promptopt(task, train, val, meter)
    elif side == "trl":
        note = _trl(task, train, meter)
    elif importlib.util.find_spec("unsloth") is None:
        raise SystemExit("unsloth is not installed")
    else:
        note = _unsloth(task, train, meter)
    peak = torch.cuda.max_memory_allocated() / 2**30 if task["device"] == "cuda" else 0.0
    print(json.dumps({"tokens_per_s": meter.rate(tokens), "peak_gib": peak, "note": note}))


def _row_tokens(model: Path, rows: Path) -> int:
    from promptopt.finetune.base_model import load_tokenizer
    from promptopt.finetune.rows import read_rows, tokenize_rows

    return sum(len(row.input_ids) for row in tokenize_rows(read_rows(rows), load_tokenizer(model), 10**6, 0).rows)


def _promptopt(task: dict[str, Any], train: Path, val: Path, meter: Meter) -> str:
    from promptopt.config.recipe import TrainingRecipe
    from promptopt.finetune.train import finetune

    recipe = TrainingRecipe(
        rank=RANK, alpha=ALPHA, learning_rate=RATE, epochs=1, batch_size=int(task["batch"]), patience=None,
        base_quantization=task["quantization"], max_length=max(16, 2 * int(task["tokens"])),
        gradient_checkpointing=task["side"].endswith("checkpointing"),
    )  # fmt: skip
    result = finetune(
        train, val, Path(task["model"]), recipe, Path(task["folder"]) / "out", 0,
        lambda point, steps: meter.step() if point.loss is not None else None, save_every_s=1e9,
    )  # fmt: skip
    return result.base_quantization


def _examples(train: Path) -> Any:
    from datasets import Dataset

    from promptopt.finetune.rows import read_rows

    return Dataset.from_list(
        [
            {
                "prompt": [message.model_dump() for message in row.prompt],
                "completion": [{"role": "assistant", "content": row.completion}],
            }
            for row in read_rows(train)
        ]
    )


def _trl_arguments(task: dict[str, Any]) -> Any:
    from trl import SFTConfig

    cuda = task["device"] == "cuda"
    return SFTConfig(
        output_dir=str(Path(task["folder"]) / "out"), learning_rate=RATE, num_train_epochs=1, save_strategy="no",
        per_device_train_batch_size=int(task["batch"]), max_length=max(16, 2 * int(task["tokens"])),
        report_to="none", use_cpu=not cuda, bf16=cuda, disable_tqdm=True,
    )  # fmt: skip


def _stepping(meter: Meter) -> Any:
    from transformers import TrainerCallback

    class Stepping(TrainerCallback):
        def on_step_end(self, *arguments: Any, **named: Any) -> None:
            meter.step()

    return Stepping()


def _trl(task: dict[str, Any], train: Path, meter: Meter) -> str:
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from trl import SFTTrainer

    cuda = task["device"] == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    quantized = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    model = AutoModelForCausalLM.from_pretrained(
        task["model"], dtype=dtype, device_map={"": task["device"]},
        quantization_config=quantized if task["quantization"] == "nf4" else None,
    )  # fmt: skip
    trainer = SFTTrainer(
        model=model, args=_trl_arguments(task), train_dataset=_examples(train), callbacks=[_stepping(meter)],
        processing_class=AutoTokenizer.from_pretrained(task["model"]),
        peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"),
    )  # fmt: skip
    trainer.train()
    return "gradient checkpointing" if trainer.args.gradient_checkpointing else ""


def _unsloth(task: dict[str, Any], train: Path, meter: Meter) -> str:
    from unsloth import FastLanguageModel
    from trl import SFTTrainer  # isort: skip  (Unsloth patches TRL, so it comes first)

    model, tokenizer = FastLanguageModel.from_pretrained(
        task["model"], max_seq_length=max(16, 2 * int(task["tokens"])), load_in_4bit=task["quantization"] == "nf4"
    )
    model = FastLanguageModel.get_peft_model(
        model, r=RANK, lora_alpha=ALPHA, lora_dropout=0, use_gradient_checkpointing="unsloth",
        target_modules="q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split(),
    )  # fmt: skip
    trainer = SFTTrainer(
        model=model, args=_trl_arguments(task), train_dataset=_examples(train), processing_class=tokenizer,
        callbacks=[_stepping(meter)],
    )  # fmt: skip
    trainer.train()
    return "Unsloth's gradient checkpointing"
