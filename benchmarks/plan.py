"""What `promptopt plan` estimates against what real trainings on this CPU take: peak resident memory and time.

    python benchmarks/plan.py [--cases NAME ...] [--out FILE.json]

Every case is a process of its own, one thread, a few steps on made-up rows: of the starter model, and of a random Llama
of 88M weights. Memory is the kernel's high-water mark (VmHWM) of the whole process. Time is the thread's processor
time, because the machine may be shared, without loading and without the evaluations; the estimate is made from the
speed of a matrix product measured in the same process. Results: docs/weights.md.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WORDS = "the quick brown fox jumps over a lazy dog while seven wizards make toxic brew".split()


@dataclass(frozen=True)
class Case:
    """A training: of `model`, on `rows` rows of `words` words and ten words of answer."""

    model: str
    rows: int
    words: int
    recipe: dict[str, Any] = field(default_factory=dict)
    residency: str = "auto"


CASES = {
    "starter, 2 short rows": Case("starter", 4, 120, {"batch_size": 2}),
    "starter, 16 rows": Case("starter", 32, 120, {"batch_size": 16}),
    "starter, 16 rows, checkpointing": Case("starter", 32, 120, {"batch_size": 16, "gradient_checkpointing": True}),
    "starter, 16 long rows": Case("starter", 32, 400, {"batch_size": 16}),
    "88M, 1 short row": Case("88m", 2, 20, {"batch_size": 1}),
    "88M, 4 rows": Case("88m", 4, 60, {"batch_size": 4}),
    "88M, 4 rows, checkpointing": Case("88m", 4, 60, {"batch_size": 4, "gradient_checkpointing": True}),
    "88M, 4 rows, 4-bit packed": Case("88m", 4, 60, {"batch_size": 4}, "packed"),
    "88M, 4 rows, rank 128": Case("88m", 4, 60, {"batch_size": 4, "rank": 128}),
}


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES), metavar="NAME")
    parser.add_argument("--one", choices=list(CASES), help=argparse.SUPPRESS)
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()) / "promptopt-benchmark-models")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(run(CASES[arguments.one], arguments.models)))
        return
    if any(CASES[name].model == "88m" for name in arguments.cases):
        make_88m(arguments.models / "88m")
    found = {}
    print("| training | measured MB | estimated MB | error | measured tokens/s | estimated | error |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in arguments.cases:
        command = [sys.executable, __file__, "--one", name, "--models", str(arguments.models)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        if done.returncode:
            print(f"| {name} | failed: {done.stderr.strip().splitlines()[-1]} |")
            continue
        got = found[name] = json.loads(done.stdout.strip().splitlines()[-1])
        print(
            f"| {name} | {got['peak_mb']:.0f} | {got['estimated_mb']:.0f} | {_error(got, 'estimated_mb', 'peak_mb')} | "
            f"{got['tokens_per_s']:.0f} | {got['estimated_tokens_per_s']:.0f} | "
            f"{_error(got, 'estimated_tokens_per_s', 'tokens_per_s')} |",
            flush=True,
        )
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _error(got: dict[str, float], estimated: str, measured: str) -> str:
    return f"{100 * (got[estimated] / got[measured] - 1):+.0f} %"


def run(case: Case, models: Path) -> dict[str, Any]:
    """Train `case` in this process; return what was measured and what was estimated."""
    import torch

    from promptopt.config.recipe import TrainingRecipe
    from promptopt.finetune.estimate import RowLengths, estimate_training
    from promptopt.finetune.model_shape import read_shape
    from promptopt.finetune.resident import ResidentBase
    from promptopt.finetune.rows import read_rows
    from promptopt.finetune.this_machine import this_machine
    from promptopt.finetune.train import finetune
    from promptopt.starter.locate import starter_dir

    torch.set_num_threads(1)
    base = starter_dir() if case.model == "starter" else models / case.model
    recipe = TrainingRecipe(epochs=1, max_length=2048, watched_rows=0, **case.recipe)
    residency: Any = case.residency
    # Steps are timed between two evaluations' ends and the next log, by the progress callback.
    clock = _StepClock()
    with tempfile.TemporaryDirectory() as folder, ResidentBase(base, recipe.base_quantization, residency) as resident:
        train = _write(Path(folder) / "train.jsonl", case.rows, 1, case.words)
        val = _write(Path(folder) / "val.jsonl", 1, 2, case.words)
        rows = resident.rows.tokenized(train, read_rows(train), recipe.max_length, 0).rows
        clock.tokens = sum(len(row.input_ids) for row in rows)
        finetune(
            train, val, base, recipe, Path(folder) / "out", 0, clock, residency=residency, resident=resident,
            on_checkpoint=lambda point: False,
        )  # fmt: skip
        peak = _high_water_mark()
        unpacked = resident.residency == "dequantised"
    lengths, answers = [len(row.input_ids) for row in rows], [row.completion_tokens for row in rows]
    count = len(rows)
    facts = RowLengths(count, max(lengths), sum(lengths) / count, max(answers), sum(answers) / count)
    estimate = estimate_training(read_shape(base), recipe, facts, this_machine("cpu"), unpacked=unpacked)
    return {
        "peak_mb": peak / 1e6,
        "estimated_mb": estimate.bytes / 1e6,
        "parts_mb": {part: size / 1e6 for part, size in estimate.memory.items()},
        "tokens_per_s": clock.tokens / clock.seconds,
        "estimated_tokens_per_s": estimate.tokens_per_s,
        "longest": facts.longest,
    }


class _StepClock:
    """Processor time from the first evaluation's end to the last training loss."""

    def __init__(self) -> None:
        self.tokens = 0
        self.seconds = 0.0
        self._since = 0.0

    def __call__(self, moment: Any, steps: int) -> None:
        now = time.process_time()
        if moment.loss is not None:
            self.seconds = now - self._since
        elif moment.step == 0:
            self._since = now


def _high_water_mark() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("This system does not tell a process's peak memory (VmHWM).")


def _write(path: Path, count: int, seed: int, words: int) -> Path:
    from promptopt.records import ChatMessage, TrainingRow

    draw = random.Random(seed)
    lines = []
    for number in range(count):
        text = " ".join([str(number), *(draw.choice(WORDS) for _ in range(words))])
        answer = " ".join(draw.choice(WORDS) for _ in range(10))
        prompt = (ChatMessage(role="user", content=text),)
        lines.append(TrainingRow(id=f"{seed}-{number}", prompt=prompt, completion=answer).model_dump_json())
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def make_88m(folder: Path) -> None:
    """Write a random Llama of 88M weights, with the starter model's tokenizer, unless it is there."""
    if (folder / "model.safetensors").is_file():
        return
    import torch
    import transformers

    from promptopt.starter.locate import starter_dir

    torch.manual_seed(0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(starter_dir()), local_files_only=True)
    config = transformers.LlamaConfig(
        vocab_size=16384, hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12,
        num_key_value_heads=4, max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config).half()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
