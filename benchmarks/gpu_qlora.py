"""QLoRA tokens per second and peak memory: promptopt's trainer, TRL with its defaults, Unsloth where it is installed.

    python benchmarks/gpu_qlora.py [--shapes llama-3.2-3b,qwen2.5-7b,llama-3.1-8b] [--batch 4] [--tokens 512]
                                   [--steps 20] [--sides promptopt,promptopt-checkpointing,trl,unsloth] [--out FILE]

One CUDA GPU, random weights of the real shapes, the same rows for every side. Every side runs in a process of its own.
Counted are all tokens of the rows, padding not; the first steps, which warm up, are left out. Every side trains LoRA
weights of rank 16 on all linear layers of an NF4 base; what else differs is each side's own default, TRL's gradient
checkpointing for one.

Without a GPU it says so and ends. `--device cpu --tiny` runs the same code on a tiny model.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine_bench.report import table
from gpu_bench.options import hardware, parser, require_device
from gpu_bench.shapes import SHAPES, random_folder

from promptopt.finetune.base_model import quiet_libraries

SIDES = ("promptopt", "promptopt-checkpointing", "trl", "unsloth")


def measured(side: str, model: Path, options: object) -> list[str]:
    """Return the cells of one side: tokens per second, peak memory in GiB, and what went wrong."""
    asked = {name: getattr(options, name) for name in ("device", "quantization", "batch", "tokens", "steps")}
    with tempfile.TemporaryDirectory() as folder:
        code = "import json, sys; from gpu_bench.sides import run; run(json.loads(sys.argv[1]))"
        task = json.dumps({**asked, "side": side, "model": str(model.resolve()), "folder": folder})
        root = Path(__file__).resolve().parent
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(root)!r}, {str(root.parent)!r}]; {code}", task],
            capture_output=True,
            text=True,
            check=False,
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return ["", "", last[:120].replace("|", "/")]
    found = json.loads(lines[-1])
    return [f"{found['tokens_per_s']:.0f}", f"{found['peak_gib']:.2f}", found.get("note", "")]


def main() -> None:
    options_of = parser(__doc__)
    options_of.add_argument("--batch", type=int, default=4)
    options_of.add_argument("--tokens", type=int, default=512)
    options_of.add_argument("--steps", type=int, default=20)
    options_of.add_argument("--sides", default=",".join(SIDES))
    options_of.add_argument("--out", type=Path, help="gets the report")
    options = options_of.parse_args()
    if options.tiny:
        options.shapes, options.batch, options.tokens, options.steps = "tiny", 2, 32, 4
    require_device(options.device)
    rows = []
    for shape in options.shapes.split(","):
        with quiet_libraries():
            folder = random_folder(shape, options.folder, options.device) if shape in SHAPES else Path(shape)
        for side in options.sides.split(","):
            row = [folder.name, side, str(options.batch), str(options.tokens), *measured(side, folder, options)]
            rows.append(row)
            print(" | ".join(row), file=sys.stderr, flush=True)
    headings = ("model", "side", "batch", "tokens", "tokens/s", "peak GiB", "note")
    report = f"{hardware(options.device)}\n\n{table(headings, rows)}\n"
    print(report)
    if options.out:
        options.out.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
