"""Several sets of LoRA weights in one forward against one after the other, on one base.

    python benchmarks/gpu_together.py [--shapes llama-3.2-3b,qwen2.5-7b,llama-3.1-8b] [--sets 2,4,8] [--batches 1,4,8]
                                      [--tokens 32,128,512] [--products] [--trainings] [--out FILE]

One CUDA GPU, random weights. `x` is the time of one forward and backward per set, one after the other, divided by that
of all at once; fastest of the rounds, in which the sides take turns. `--products` measures ways to compute the low-rank
parts: one batched product with ranks padded (what promptopt does where all sets have as many rows), a product per set
(what it does elsewhere), PEFT's `adapter_names`, one product of all sets with the others' part masked. `--trainings`
measures whole short trainings: `finetune` N times on one resident base against `finetune_together`.

Without a GPU it says so and ends; `--device cpu` measures on one thread of a CPU, in processor time, which other work
on the machine changes little. `--tiny` checks the code on a tiny model.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine_bench.report import table
from gpu_bench.options import hardware, parser, require_device
from gpu_bench.products import PRODUCTS, computed_by
from gpu_bench.rows import write_rows
from gpu_bench.shapes import SHAPES, random_folder

from promptopt.config.recipe import TrainingRecipe
from promptopt.finetune.base_model import quiet_libraries
from promptopt.finetune.resident import ResidentBase

RANKS = (8, 16, 8, 32, 16, 64, 8, 16)


def recipes(sets: int, batch: int, quantization: Any, checkpointing: bool) -> list[TrainingRecipe]:
    """Return recipes that differ in rank and learning rate."""
    return [
        TrainingRecipe(
            rank=RANKS[number % len(RANKS)], alpha=16, learning_rate=1e-4 * (number + 1), batch_size=batch, epochs=1,
            patience=None, base_quantization=quantization, gradient_checkpointing=checkpointing,
        )
        for number in range(sets)
    ]  # fmt: skip


def times(base: ResidentBase, chosen: list[TrainingRecipe], tokens: int, product: str, rounds: int) -> Any:
    """Return the times of one step, and the peak of GPU memory in GiB."""
    import torch

    from promptopt.finetune.together.forward import LoraSet, SharedForward, Slice
    from promptopt.finetune.together.rule import time_steps

    clock = time.perf_counter if base.device == "cuda" else time.process_time
    with quiet_libraries(), base.lend() as loaded:
        if base.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        sets = [LoraSet(f"set{number}", recipe, number) for number, recipe in enumerate(chosen)]
        shared = SharedForward(loaded.model, sets)
        slices = [Slice(one, one.recipe.batch_size, tokens) for one in sets]
        with computed_by(shared, product):
            found = time_steps(shared, slices, tokens, base.device, rounds, clock)
        return found, torch.cuda.max_memory_allocated() / 2**30 if base.device == "cuda" else 0.0


def trainings(base: ResidentBase, chosen: list[TrainingRecipe], tokens: int, rows: int) -> tuple[float, float]:
    """Return the seconds of `finetune` for each recipe, and of `finetune_together` for all."""
    from promptopt.finetune.together.train import TrainingRequest, finetune_together
    from promptopt.finetune.train import finetune

    clock = time.perf_counter if base.device == "cuda" else time.process_time
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train = write_rows(folder / "train.jsonl", rows, tokens, 1)
        val = write_rows(folder / "val.jsonl", max(2, rows // 8), tokens, 2)
        started = clock()
        for number, recipe in enumerate(chosen):
            finetune(train, val, base.base_dir, recipe, folder / f"alone{number}", number, resident=base)
        alone = clock() - started
        requests = [
            TrainingRequest(train, val, recipe, folder / f"together{number}", number)
            for number, recipe in enumerate(chosen)
        ]
        started = clock()
        outcomes = finetune_together(requests, base.base_dir, resident=base)
        together = clock() - started
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
    return alone, together


def step_row(base: ResidentBase, shape: str, chosen: list[TrainingRecipe], tokens: int, options: Any) -> list[str]:
    row = [shape, str(len(chosen)), str(chosen[0].batch_size), str(tokens)]
    for product in PRODUCTS if options.products else PRODUCTS[:1]:
        found, peak = times(base, chosen, tokens, product, options.rounds)
        row += ["out of memory"] if found.together is None else [f"{1000 * found.together:.1f}"]
        if product == PRODUCTS[0]:
            row += [f"{1000 * found.alone:.1f}", f"{found.gain:.2f}", f"{peak:.1f}"]
    return row


def training_row(base: ResidentBase, shape: str, chosen: list[TrainingRecipe], tokens: int, options: Any) -> list[str]:
    alone, together = trainings(base, chosen, tokens, options.rows)
    row = [shape, str(len(chosen)), str(chosen[0].batch_size), str(tokens)]
    return [*row, f"{alone:.1f}", f"{together:.1f}", f"{alone / together:.2f}"]


def main() -> None:
    options_of = parser(__doc__)
    options_of.add_argument("--sets", default="2,4,8")
    options_of.add_argument("--batches", default="1,4,8")
    options_of.add_argument("--tokens", default="32,128,512")
    options_of.add_argument("--rounds", type=int, default=5)
    options_of.add_argument("--rows", type=int, default=64, help="of a whole training")
    options_of.add_argument("--products", action="store_true")
    options_of.add_argument("--trainings", action="store_true")
    options_of.add_argument("--checkpointing", action="store_true", help="recompute activations in the backward pass")
    options_of.add_argument("--out", type=Path, help="gets the report")
    options = options_of.parse_args()
    if options.tiny:
        options.shapes, options.sets, options.batches, options.tokens = "tiny", "2", "2", "32"
        options.rounds, options.rows = 1, 8
    require_device(options.device)
    grid = [
        (int(sets), int(batch), int(tokens))
        for sets in options.sets.split(",")
        for batch in options.batches.split(",")
        for tokens in options.tokens.split(",")
    ]
    headings = ("model", "sets", "batch", "tokens")
    if options.trainings:
        headings += ("alone, s", "together, s", "x")
    else:
        headings += ("together, ms", "alone, ms", "x", "peak GiB")
        headings += tuple(f"{product}, ms" for product in PRODUCTS[1:]) if options.products else ()
    rows = []
    for shape in options.shapes.split(","):
        with quiet_libraries():
            folder = random_folder(shape, options.folder, options.device) if shape in SHAPES else Path(shape)
        with ResidentBase(folder, options.quantization) as base:
            for sets, batch, tokens in grid:
                chosen = recipes(sets, batch, options.quantization, options.checkpointing)
                row = training_row if options.trainings else step_row
                rows.append(row(base, folder.name, chosen, tokens, options))
                print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    report = f"{hardware(options.device)}\n\n{table(headings, rows)}\n"
    print(report)
    if options.out:
        options.out.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
