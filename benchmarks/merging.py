"""Three ways to merge LoRA weights that were trained on a 4-bit base, each against the model that was trained.

    python benchmarks/merging.py --out DIR [--model FOLDER] [--train 400] [--test 60] [--epochs 2] [--rate 1e-3]
                                 [--rank 16] [--seed 0] [--types f16,q8_0,q4_k_m]

Trains with promptopt's own QLoRA (NF4, double quantization) on the demo's rows, then compares next-token predictions on
the answer tokens of test rows, as the trained model is asked them (its own answer, token by token):

- trained: the NF4 base with the LoRA weights on it. Everything else is measured against this.
- dequantised: LoRA weights merged into what the NF4 weights stand for (`promptopt.export.merge`, what export does)
- original: merged into the weights that were quantized to NF4
- peft: PEFT's `merge_and_unload()` on the 4-bit model, which quantizes the sum again; held in float32 afterwards

Each as float32 in transformers, then converted and quantized as export does it and computed by llama.cpp.

Columns: mean absolute difference of a logit; mean Kullback-Leibler divergence from the trained model's distribution, in
millinats; how often the most probable token is the trained model's; loss on the gold answer in nats per token. All are
means over answer tokens. DIR keeps the training and the models; started again it goes on there.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.demo.generate import generate
from promptopt.config.recipe import TrainingRecipe
from promptopt.export.convert import convert_to_gguf
from promptopt.export.merge import dequantised_base, merge_lora
from promptopt.export.quantize import quantize_gguf
from promptopt.export.quiet import quiet_libraries
from promptopt.finetune.base_model import load_base
from promptopt.finetune.train import finetune
from promptopt.records import ChatMessage, TrainingRow
from promptopt.starter.locate import starter_dir
from tests.export.llama_runner import Runner  # logits of all positions, which the engine does not hand out

Array = npt.NDArray[np.float64]
WAYS = ("dequantised", "original", "peft")


@dataclass(frozen=True)
class Row:
    """Tokens of a prompt with its gold answer, of which the last `answer` are the answer's."""

    ids: list[int]
    answer: int


@dataclass(frozen=True)
class Figures:
    """Means over answer tokens; see the module's docstring."""

    logit: float
    divergence: float
    same: float
    loss: float


def main() -> None:
    options = _options()
    model = options.model or starter_dir()
    out: Path = options.out
    rows = [
        TrainingRow(
            id=str(number),
            prompt=(ChatMessage(role="user", content=f"{row['document']}\n\n{row['question']}"),),
            completion=row["answer"],
        )
        for number, row in enumerate(generate(options.train + 2 * options.test, options.seed))
    ]
    parts = {
        "train": rows[: options.train],
        "val": rows[options.train : -options.test],
        "test": rows[-options.test :],
    }
    for name, part in parts.items():
        _write(out / f"{name}.jsonl", part)
    recipe = TrainingRecipe(
        epochs=options.epochs, learning_rate=options.rate, rank=options.rank, alpha=2 * options.rank, batch_size=16
    )
    result = finetune(out / "train.jsonl", out / "val.jsonl", model, recipe, out / "finetune", options.seed)
    lora = out / "finetune" / result.lora_dir
    with quiet_libraries():
        trained, tokenizer = _trained(model, lora)
        tests = [_tokens(tokenizer, row) for row in parts["test"]]
        reference = [_hf_logits(trained, row) for row in tests]
        table = {("trained", "NF4 + LoRA"): _compare(reference, reference, tests)}
        folders = {
            "dequantised": merge_lora(model, lora, out / "dequantised", "nf4", "float32"),
            "original": merge_lora(model, lora, out / "original", "none", "float32"),
            "peft": _merge_by_peft(model, lora, out / "peft"),
        }
        for way in WAYS:
            merged = _load(folders[way])
            table[way, "f32"] = _compare(reference, [_hf_logits(merged, row) for row in tests], tests)
        for way in WAYS:
            for kind in options.types.split(","):
                f16 = Path(convert_to_gguf(folders[way], out / f"{way}-f16.gguf").path)
                gguf = f16 if kind == "f16" else Path(quantize_gguf(f16, out / f"{way}-{kind}.gguf", kind).path)
                with Runner(gguf) as runner:
                    found = [_answer_part(runner.logits(row.ids), row) for row in tests]
                table[way, kind] = _compare(reference, found, tests)
    tokens = sum(row.answer for row in tests)
    print(f"{result.steps} steps, best evaluation loss {result.best_eval_loss:.3f}; {tokens} answer tokens")
    _print(table, reference)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="Hugging Face folder; default: the starter model")
    parser.add_argument("--train", type=int, default=400)
    parser.add_argument("--test", type=int, default=60)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--types", default="f16,q8_0,q4_k_m")
    return parser.parse_args()


def _write(path: Path, rows: list[TrainingRow]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row.model_dump(mode="json")) + "\n" for row in rows), encoding="utf-8")


def _trained(model: Path, lora: Path) -> tuple[Any, Any]:
    """The 4-bit base with LoRA weights, as training and its evaluation computed it."""
    import peft

    base = load_base(model, "nf4", "packed", "cpu")
    return peft.PeftModel.from_pretrained(base.model, str(lora)).eval(), base.tokenizer


def _merge_by_peft(model: Path, lora: Path, out: Path) -> Path:
    """Merge with PEFT alone; write what the 4-bit result stands for: neither llama.cpp nor a plain folder holds NF4."""
    import bitsandbytes
    import peft
    import torch

    base = load_base(model, "nf4", "packed", "cpu")
    merged = peft.PeftModel.from_pretrained(base.model, str(lora)).merge_and_unload()
    plain = dequantised_base(model, "nf4")
    for name, module in merged.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            values = bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            target = plain.get_submodule(name)
            target.weight.data = values.to(torch.float32).reshape(target.weight.shape)
    plain.save_pretrained(out)
    for file in [*model.glob("tokenizer*"), *model.glob("*.jinja"), model / "generation_config.json"]:
        (out / file.name).write_bytes(file.read_bytes())
    return out


def _load(folder: Path) -> Any:
    import torch
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def _tokens(tokenizer: Any, row: TrainingRow) -> Row:
    messages = [message.model_dump() for message in row.prompt]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answer = tokenizer(row.completion, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    return Row(ids + answer, len(answer))


def _hf_logits(model: Any, row: Row) -> Array:
    import torch

    with torch.inference_mode():
        return _answer_part(model(torch.tensor([row.ids])).logits[0].float().numpy(), row)


def _answer_part(logits: npt.NDArray[np.float32], row: Row) -> Array:
    """Logits that predict the answer's tokens, of shape (answer, vocabulary)."""
    return logits[-row.answer - 1 : -1].astype(np.float64)


def _compare(reference: list[Array], found: list[Array], rows: list[Row]) -> Figures:
    expected, got = np.concatenate(reference), np.concatenate(found)
    gold = np.concatenate([row.ids[-row.answer :] for row in rows])
    log_p, log_q = _log_softmax(expected), _log_softmax(got)
    return Figures(
        logit=float(np.abs(expected - got).mean()),
        divergence=float(1000 * (np.exp(log_p) * (log_p - log_q)).sum(-1).mean()),
        same=float((expected.argmax(-1) == got.argmax(-1)).mean()),
        loss=float(-log_q[np.arange(len(gold)), gold].mean()),
    )


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _print(table: dict[tuple[str, str], Figures], reference: list[Array]) -> None:
    print(f"Standard deviation of the trained model's logits: {np.concatenate(reference).std():.2f}\n")
    print("| merged into | held as | logit difference | divergence, millinats | same token | loss of gold |")
    print("|---|---|---:|---:|---:|---:|")
    for (way, kind), found in table.items():
        figures = f"{found.logit:.4f} | {found.divergence:.2f} | {100 * found.same:.1f} % | {found.loss:.3f}"
        print(f"| {way} | {kind} | {figures} |")


if __name__ == "__main__":
    main()
