"""Causal or instruct? The same examples learned as raw text, as chat rows, and one after the other, at equal tokens.

    python benchmarks/causal_or_instruct.py [--model FOLDER] [--train FILE --val FILE --test FILE] [--epochs 2]
                                            [--learning-rates 5e-4,2e-3] [--out FILE]

`instruct` trains on chat rows, with loss on the answer alone (`kind: labels`); `causal` trains on the same rows as
plain text, prompt and answer, with loss on every token (`kind: causal`); `causal, instruct` spends half of the tokens
on each.
Every arm reads the same number of tokens, and takes the learning rate with the lowest loss of the validation answers.
Measured under the chat prompt on the test rows: loss per answer token, and answers that are equal to the gold answer.

Rows are JSONL as the stage `distill` writes it; without files, the demo's generated documents and the starter model.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine_bench.report import cpu_model, table

from experiments.demo.generate import generate
from promptopt.config.methods import Causal, Labels
from promptopt.config.recipe import TrainingRecipe
from promptopt.finetune.base_folder import end_token_ids
from promptopt.finetune.base_model import load_base, load_tokenizer, quiet_libraries
from promptopt.finetune.documents import chunk_documents
from promptopt.finetune.rows import TokenRow, read_rows, tokenize_rows
from promptopt.finetune.stages import StageRun, finetune_stages
from promptopt.records import ChatMessage, DocumentRow, TrainingRow
from promptopt.rundir import write_jsonl
from promptopt.starter.locate import starter_dir

ARMS = {"instruct": (Labels(),), "causal": (Causal(),), "causal, instruct": (Causal(), Labels())}


@dataclass(frozen=True)
class Measured:
    """One arm at one learning rate; losses in nats per answer token."""

    arm: str
    learning_rate: float
    tokens: int
    val_loss: float
    test_loss: float
    test_exact: float
    seconds: float


def demo_rows(count: int, seed: int) -> list[TrainingRow]:
    rows = []
    for number, row in enumerate(generate(count, seed)):
        asked = f"{row['document']}\n\n{row['question']}"
        prompt = (ChatMessage(role="user", content=asked),)
        rows.append(TrainingRow(id=f"{seed}-{number}", prompt=prompt, completion=row["answer"]))
    return rows


def as_documents(rows: list[TrainingRow]) -> list[DocumentRow]:
    texts = ["\n\n".join([*(message.content for message in row.prompt), row.completion]) for row in rows]
    return [DocumentRow(id=hashlib.sha256(text.encode()).hexdigest()[:16], text=text) for text in dict.fromkeys(texts)]


def arm_stages(
    arm: str, files: dict[str, tuple[Path, Path]], recipe: TrainingRecipe, per_epoch: dict[str, int], budget: int
) -> list[StageRun]:
    """Return the arm's stages, of as many epochs as make each read its share of `budget` tokens."""
    share = budget / len(ARMS[arm])
    return [
        StageRun(
            *files[method.kind],
            method,
            recipe.model_copy(update={"epochs": share / per_epoch[method.kind]}),
            number,
        )
        for number, method in enumerate(ARMS[arm])
    ]


def measure(base_dir: Path, lora_dir: Path | None, rows: list[TokenRow], recipe: TrainingRecipe) -> tuple[float, float]:
    """Return (loss per answer token, share of answers that are equal to the gold ones), greedily generated."""
    import torch
    from peft import PeftModel

    from promptopt.finetune.batches import evaluation_batches
    from promptopt.finetune.teaching import answer_tokens, pad_side
    from promptopt.finetune.trainer import completion_log_probs

    with quiet_libraries(), torch.no_grad():
        base = load_base(base_dir, recipe.base_quantization)
        model: Any = base.model if lora_dir is None else PeftModel.from_pretrained(base.model, str(lora_dir))
        model.eval()
        pad = int(base.tokenizer.pad_token_id or 0)
        total, count = 0.0, 0
        for batch in evaluation_batches(rows, recipe.batch_size, pad):
            log_probs, tokens = completion_log_probs(
                model, {key: value.to(model.device) for key, value in batch.items()}
            )
            total, count = total - float(log_probs.sum()), count + tokens
        ends = sorted(end_token_ids(base_dir, base.tokenizer.eos_token_id))
        equal = 0
        for start in range(0, len(rows), recipe.batch_size):
            part = rows[start : start + recipe.batch_size]
            ids, mask = (
                tensor.to(model.device) for tensor in pad_side([row.given_ids for row in part], pad, left=True)
            )
            said = model.generate(
                input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=answer_tokens(part, None),
                eos_token_id=ends, pad_token_id=pad,
            )  # fmt: skip
            for row, answer in zip(part, said[:, ids.shape[1] :].tolist(), strict=True):
                gold = list(row.input_ids[row.prompt_tokens :])
                equal += answer[: len(gold)] == gold
    return total / count, equal / len(rows)


def run(options: argparse.Namespace, folder: Path) -> list[Measured]:
    base_dir = options.model or starter_dir()
    if options.train:
        train, val, test = (read_rows(path) for path in (options.train, options.val, options.test))
    else:
        train, val, test = demo_rows(240, 11), demo_rows(32, 12), demo_rows(80, 13)
    files = {}
    for name, kind in (("chat", "labels"), ("text", "causal")):
        for side, rows in (("train", train), ("val", val)):
            write_jsonl(folder / name / f"{side}.jsonl", as_documents(rows) if kind == "causal" else rows)
        files[kind] = folder / name / "train.jsonl", folder / name / "val.jsonl"
    recipe = TrainingRecipe(rank=16, alpha=32, batch_size=8, patience=None, max_length=options.max_length)
    tokenizer = load_tokenizer(base_dir)
    ends = end_token_ids(base_dir, tokenizer.eos_token_id)
    chat, val_rows, test_rows = (
        list(tokenize_rows(rows, tokenizer, options.max_length, 0, ends).rows) for rows in (train, val, test)
    )
    text = chunk_documents(as_documents(train), tokenizer, options.max_length).rows
    per_epoch = {kind: sum(len(row.input_ids) for row in rows) for kind, rows in (("labels", chat), ("causal", text))}
    budget = round(options.epochs * per_epoch["labels"])
    loss, exact = measure(base_dir, None, test_rows, recipe)
    results = [Measured("base", 0.0, 0, measure(base_dir, None, val_rows, recipe)[0], loss, exact, 0.0)]
    for arm in ARMS:
        tried = []
        for rate in options.learning_rates:
            out = folder / f"{arm} {rate}"
            stages = arm_stages(arm, files, recipe.model_copy(update={"learning_rate": rate}), per_epoch, budget)
            started = time.perf_counter()
            result = finetune_stages(stages, base_dir, out)
            seconds = time.perf_counter() - started
            loss, _ = measure(base_dir, out / result.lora_dir, val_rows, recipe)
            print(f"{arm}, learning rate {rate:g}: validation loss {loss:.4f}, {seconds:.0f} s", flush=True)
            tried.append((Measured(arm, rate, budget, loss, 0.0, 0.0, seconds), out / result.lora_dir))
        best, lora = min(tried, key=lambda one: one[0].val_loss)
        loss, exact = measure(base_dir, lora, test_rows, recipe)
        results.append(replace(best, test_loss=loss, test_exact=exact))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "train", "val", "test", "out"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument(
        "--learning-rates", type=lambda text: [float(rate) for rate in text.split(",")], default=[5e-4, 2e-3]
    )
    options = parser.parse_args()
    if bool(options.train) != bool(options.val) or bool(options.train) != bool(options.test):
        parser.error("--train, --val and --test go together")
    with tempfile.TemporaryDirectory() as folder:
        results = run(options, Path(folder))
    lines = [
        [one.arm, f"{one.learning_rate:g}", f"{one.tokens:,}", f"{one.test_loss:.3f}", f"{one.test_exact:.3f}",
         f"{one.seconds:.0f}"]
        for one in results
    ]  # fmt: skip
    print(f"\n{cpu_model()}\n")
    print(table(["trained as", "learning rate", "tokens read", "loss per answer token", "exact answers", "s"], lines))
    if options.out:
        options.out.write_text(json.dumps([asdict(one) for one in results], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
