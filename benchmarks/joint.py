"""Joint against in sequence: prompts and weights in one study, or prompts first and then weights, at equal compute.

    python benchmarks/joint.py --out DIR [--tasks demo,viggo] [--arms all] [--seeds 5] [--threads 1] [--data FOLDER]
                               [--train 200] [--val 48] [--test 150] [--trials 12] [--tuned 5] [--winners 2] [--after 3]
    python benchmarks/joint.py --out DIR --report-only [--report FILE]

Every finished cell (task, arm, seed) is a line of DIR/cells-TASK.jsonl. A killed run goes on in the study it was killed
in (DIR/studies). Processes that run side by side share DIR if they have different tasks. `--report-only` makes the
tables of the files alone, also while others run.

Same for all arms: the starter model (GGUF for answers, its Hugging Face folder for training), rows (a seed draws train
and validation rows; test rows are the same for all seeds and shown to no search), metric, start recipe, ranges of
layouts, demos and recipes (promptopt's defaults), racing, halving of trainings, threads. A study's seed is the cell's.

Arms:

- joint: one study; `--trials` prompts on frozen weights, then `--tuned` trials of which `--winners` tune the best
  prompts with the start recipe and the rest are frozen or tuned as the sampler says, then `--after` prompts on the best
  tuned weights
- prompt_then_default: a search of prompts alone, then the best prompt tuned once with the start recipe
- prompt_then_recipe: `--trials` prompts as in joint's first phase, then a search of recipes under the best one
- weights_only: a search of recipes under the program as DSPy writes it
- prompts_only: a search of prompts alone
- untouched: the program as DSPy writes it; no search

and `crossed`, which is no arm but a question: joint's best recipe, trained under joint's best frozen prompt. It costs
what it costs and is counted nowhere; where joint's best weights were trained under that prompt anyway, it is left out.

Compute of an arm: all processor seconds of this process from the beginning of its first study to the end of its last,
test rows not included (`--unit wall`: wall seconds; choose it on a machine of your own or with a GPU). So answers,
trainings, loading the training base, halving's evaluations, raced-out and failed trials all count. Beside it the tables
show wall seconds, wall seconds of trainings (`wall_s` of each finetune/result.json), tokens of LM requests (prompt and
answer, rungs included), and tokens trained on (prompt and answer of a row, times the passes over it).

Equal compute: per task and seed, joint runs first; what it really spent is the budget of each other arm, which adds
trials, one chunk after the other, until less than half of a trial's mean cost is left. `prompt_then_default` holds back
what joint paid to tune its best prompt with the same recipe. A study that starts again for a chunk loads the training
base again, which is counted to the arm; joint loads it once. A killed arm pays for what it does twice. What an arm
spent in the end stands beside its score; an arm that is off by more than 15 % in the mean is named.

Deployed is what has the higher validation score, the arm's best frozen prompt or its best tuned weights under the
student's prompt (LoRA weights as GGUF on the quantized base); on a tie the frozen one, as `JointOptimizer` does it.

Intervals: on test rows, each row's mean over seeds counting once, paired by row (bootstrap, 95 %). They speak for other
test rows with these seeds, not for other seeds; in how many seeds an arm is better stands beside them.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from joint_bench.arms import ARMS
from joint_bench.cells import Bench, Results, opener, setup_of
from joint_bench.records import Settings
from joint_bench.report import whole_report
from search_bench.tasks import TASKS

from promptopt.config.recipe import TrainingRecipe
from promptopt.data.sources import DATA_FOLDER_VARIABLE


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results; taken up where it stands")
    parser.add_argument("--report", type=Path, help="write the tables here too")
    parser.add_argument("--report-only", action="store_true", help="compute nothing")
    parser.add_argument("--hf-dir", type=Path, help="model folder; default is the starter model. Needs --gguf")
    parser.add_argument("--gguf", type=Path, help="the same model as GGUF")
    parser.add_argument("--n-ctx", type=int, default=2048, help="capped at what the model was trained for")
    parser.add_argument("--parallel", type=int, help="answers at once; default is the engine's")
    parser.add_argument("--threads", type=int, help="of llama.cpp and torch; 1 to run processes side by side")
    parser.add_argument("--n-gpu-layers", type=int, default=0)
    parser.add_argument("--batch-invariant", action="store_true", help="answers the same to the last bit, always")
    parser.add_argument("--data", type=Path, help=f"folder of the real data; default ${DATA_FOLDER_VARIABLE}")
    parser.add_argument("--tasks", default="demo", help=f"all, or of {','.join(TASKS)}")
    parser.add_argument("--arms", default="all", help=f"all, or of {','.join(ARMS)}; joint is the others' budget")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--train", type=int, default=200)
    parser.add_argument("--val", type=int, default=48)
    parser.add_argument("--test", type=int, default=150)
    study = parser.add_argument_group("studies")
    study.add_argument("--trials", type=int, default=12, help="prompts on frozen weights, of joint and _then_recipe")
    study.add_argument("--tuned", type=int, default=5, help="joint's trials that may train")
    study.add_argument("--winners", type=int, default=2)
    study.add_argument("--after", type=int, default=3)
    study.add_argument("--demo-sets", type=int, default=2)
    study.add_argument("--demos-per-set", type=int, default=2)
    study.add_argument("--startup", type=int, default=10, help="random trials before TPE models; promptopt's default")
    study.add_argument("--rank", type=int, default=16)
    study.add_argument("--learning-rate", type=float, default=1e-3)
    study.add_argument("--epochs", type=float, default=2.0)
    study.add_argument("--batch-size", type=int, default=16)
    study.add_argument("--unit", choices=("cpu", "wall"), default="cpu", help="seconds in which arms are made equal")
    arguments = parser.parse_args()
    if (arguments.hf_dir is None) != (arguments.gguf is None):
        parser.error("--hf-dir and --gguf belong together: they must be the same model")
    arguments.tasks, arguments.arms = chosen(arguments.tasks, list(TASKS)), chosen(arguments.arms, list(ARMS))
    return arguments


def chosen(text: str, allowed: list[str]) -> list[str]:
    """Return the names of a comma-separated list, in the order they are known in."""
    names = allowed if text == "all" else text.split(",")
    if unknown := [name for name in names if name not in allowed]:
        raise SystemExit(f"{', '.join(unknown)} is unknown; allowed are {', '.join(allowed)}.")
    return [name for name in allowed if name in names]


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Return how the studies are set."""
    recipe = TrainingRecipe(
        rank=arguments.rank, alpha=2.0 * arguments.rank, learning_rate=arguments.learning_rate,
        epochs=arguments.epochs, batch_size=arguments.batch_size, max_length=arguments.n_ctx,
    )  # fmt: skip
    return Settings(
        trials=arguments.trials, tuned=arguments.tuned, winners=arguments.winners, after=arguments.after,
        demo_sets=arguments.demo_sets, demos_per_set=arguments.demos_per_set, startup=arguments.startup,
        recipe=recipe, unit=arguments.unit,
    )  # fmt: skip


def make_bench(arguments: argparse.Namespace) -> Bench:
    """Return the benchmark on the model that was asked for."""
    from promptopt.pipeline.models import starter_gguf
    from promptopt.starter.locate import starter_dir

    if arguments.threads is not None:
        import torch

        torch.set_num_threads(arguments.threads)
    open_lm = opener(
        arguments.gguf or starter_gguf(), n_ctx=arguments.n_ctx, parallel=arguments.parallel,
        n_threads=arguments.threads, n_gpu_layers=arguments.n_gpu_layers, batch_invariant=arguments.batch_invariant,
    )  # fmt: skip
    setup = setup_of(open_lm, (arguments.train, arguments.val, arguments.test))
    hf_dir = arguments.hf_dir or starter_dir()
    return Bench(Results(arguments.out), setup, settings_of(arguments), hf_dir, open_lm)


def measure(bench: Bench, arguments: argparse.Namespace) -> None:
    """Fill in the cells that are missing, seed by seed, so that a broken-off run has whole seeds."""
    loaded = {}
    for name in arguments.tasks:
        bench.results.repair(name)
    for seed in range(arguments.seeds):
        for task in (TASKS[name] for name in arguments.tasks):
            for arm in arguments.arms:
                if bench.has_cell(task, arm, seed):
                    continue
                if task.name not in loaded:
                    loaded[task.name] = bench.rows(task)
                cell = bench.run_cell(loaded[task.name], arm, seed)
                note(f"{task.name} {arm} seed {seed}: {cell.summary()}" if cell else
                     f"{task.name} {arm} seed {seed}: not asked")  # fmt: skip


def note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    arguments = parse()
    if arguments.threads is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(arguments.threads))
    logging.getLogger("dspy").setLevel(logging.CRITICAL)  # one line per answer that was cut off
    if arguments.data is not None:
        os.environ[DATA_FOLDER_VARIABLE] = str(arguments.data)
    if not arguments.report_only:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        measure(make_bench(arguments), arguments)
    text = whole_report(Results(arguments.out).cells())
    if arguments.report is not None:
        arguments.report.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
