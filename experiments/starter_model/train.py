"""Trains the starter model from scratch; saves checkpoints and resumes from the last one.

Run: ``python train.py --tokenizer FOLDER --work FOLDER --stop-tokens N`` (see README.md).
"""

import argparse
import json
import pathlib
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import model as model_module
import rows
import schedule
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

_SAVE_SECONDS = 90.0
Body = Callable[..., Any]


def _batches(maker: rows.RowMaker, seen: int, budget: int, rng: random.Random) -> Iterator[list[rows.Row]]:
    """Fills batches of rows of like length, each at most `budget` tokens with its padding."""
    stage = schedule.stage_at(seen)
    pool: list[rows.Row] = []
    while sum(len(r.ids) for r in pool) < 12 * budget:
        pool.extend(maker.make(stage, 64))
    pool.sort(key=lambda r: len(r.ids))
    cut: list[list[rows.Row]] = [[]]
    for row in pool:
        if cut[-1] and (len(cut[-1]) + 1) * len(row.ids) > budget:
            cut.append([])
        cut[-1].append(row)
    rng.shuffle(cut)
    yield from cut


def _tensors(batch: list[rows.Row], gen: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pads a batch; weight 1 on supervised tokens, and on a random share of the others a low weight."""
    width = max(len(r.ids) for r in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    marks = torch.full((len(batch), width), -1.0)
    for i, row in enumerate(batch):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        marks[i, : len(row.ids)] = torch.tensor(row.marks, dtype=torch.float)
    lucky = torch.rand(marks.shape, generator=gen) < schedule.OTHER_SHARE
    weights = torch.where(marks > 0, 1.0, torch.where((marks == 0) & lucky, schedule.OTHER_WEIGHT, 0.0))
    return ids, weights, marks


def _loss(
    net: LlamaForCausalLM, body: Body, ids: torch.Tensor, weights: torch.Tensor, marks: torch.Tensor
) -> tuple[torch.Tensor, float, float]:
    """Weighted next-token loss over the chosen positions only; also the mean loss and accuracy on answers."""
    hidden = body(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    chosen = weights[:, 1:] > 0
    logits = torch.nn.functional.linear(hidden[chosen], net.model.embed_tokens.weight)
    target, weight = ids[:, 1:][chosen], weights[:, 1:][chosen]
    each = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    answer = marks[:, 1:][chosen] > 0
    right = (logits.argmax(-1) == target)[answer].float().mean().item()
    return (each * weight).sum() / weight.sum(), each[answer].mean().item(), right


class Trainer:
    """Holds everything a training run needs, and can write and read it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.tok = PreTrainedTokenizerFast.from_pretrained(args.tokenizer)
        self.net = model_module.build(len(self.tok), args.seed, args.layers, args.inner)
        model_module.start_from_copying(self.net, args.seed)
        model_module.pair_spaced_tokens(self.net, self.tok.get_vocab())
        self.opt = model_module.optimiser(self.net, args.lr)
        self.body: Body = torch.compile(self.net.model, dynamic=True) if args.compile else self.net.model
        self.seen, self.step, self.seconds = 0, 0, 0.0
        self.path = pathlib.Path(args.work) / "checkpoint.pt"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._load()

    def _load(self) -> None:
        """Reads the last checkpoint."""
        state: dict[str, Any] = torch.load(self.path, weights_only=False)
        self.net.load_state_dict(state["model"])
        self.opt.load_state_dict(state["optimiser"])
        self.seen, self.step, self.seconds = state["seen"], state["step"], state["seconds"]
        print(f"resumed at step {self.step}, {self.seen} tokens", flush=True)

    def save(self) -> None:
        """Writes a checkpoint in one step, so that a kill never leaves half a file."""
        state = {
            "model": self.net.state_dict(),
            "optimiser": self.opt.state_dict(),
            "seen": self.seen,
            "step": self.step,
            "seconds": self.seconds,
        }
        part = self.path.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.path)

    def _rate(self) -> float:
        """Learning-rate multiplier: warm-up, constant, linear to a twentieth between the decay marks."""
        start, end = self.args.decay_start, self.args.decay_end
        fall = 1.0 if self.seen < start else max(0.05, 1 - (self.seen - start) / max(1, end - start))
        return min(1.0, (self.step + 1) / 60) * fall

    def update(self, batch: list[rows.Row], gen: torch.Generator) -> tuple[float, float]:
        """One optimiser step on a batch; returns answer loss and answer-token accuracy."""
        for group in self.opt.param_groups:
            group["lr"] = self.args.lr * self._rate()
        ids, weights, marks = _tensors(batch, gen)
        loss, answer_loss, right = _loss(self.net, self.body, ids, weights, marks)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.opt.step()
        self.opt.zero_grad(set_to_none=True)
        self.step += 1
        self.seen += sum(len(r.ids) for r in batch)
        return answer_loss, right


def run(trainer: Trainer) -> None:
    """Trains until the token or time limit, logging answer loss per kind of row."""
    args = trainer.args
    start, saved = time.monotonic(), time.monotonic()
    before = trainer.seconds
    totals: dict[str, list[float]] = {"loss": [], "right": []}
    mark, mark_seen = start, trainer.seen
    while trainer.seen < args.stop_tokens and (time.monotonic() - start) < 60 * args.minutes:
        seed = args.seed * 1_000_003 + trainer.step
        maker, gen = rows.RowMaker(trainer.tok, seed), torch.Generator().manual_seed(seed)
        for batch in _batches(maker, trainer.seen, args.batch_tokens, random.Random(seed)):
            answer_loss, right = trainer.update(batch, gen)
            totals["loss"].append(answer_loss)
            totals["right"].append(right)
            trainer.seconds = before + time.monotonic() - start
            if trainer.step % 20 == 0:
                now = time.monotonic()
                line = {k: round(sum(v) / len(v), 3) for k, v in totals.items()}
                speed = (trainer.seen - mark_seen) / (now - mark)
                print(
                    json.dumps(
                        {
                            "step": trainer.step,
                            "seen": trainer.seen,
                            "s": round(trainer.seconds),
                            "tok_s": round(speed),
                            "rate": round(trainer._rate(), 3),
                            **line,
                        }
                    ),
                    flush=True,
                )
                totals, mark, mark_seen = {"loss": [], "right": []}, now, trainer.seen
            if time.monotonic() - saved > _SAVE_SECONDS:
                trainer.save()
                saved = time.monotonic()
            if trainer.seen >= args.stop_tokens or (time.monotonic() - start) > 60 * args.minutes:
                break
    trainer.save()


def main() -> None:
    """Parses the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--inner", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--minutes", type=float, default=70.0)
    parser.add_argument("--stop-tokens", type=int, default=9_500_000)
    parser.add_argument("--decay-start", type=int, default=8_200_000)
    parser.add_argument("--decay-end", type=int, default=9_500_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="compile the model's body (some 12 % faster)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    run(Trainer(args))


if __name__ == "__main__":
    main()
