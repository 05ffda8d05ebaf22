"""Is training together faster here? Measured once per base and machine, and remembered.

Whether one forward for several sets beats several forwards depends on the model, the machine and the batch: small
batches leave a processor idle, full ones do not, and padding to the longest row of all sets costs. No figure of another
machine decides that, and no flag: a few steps are timed on the base itself.
"""

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from promptopt.config.recipe import TrainingRecipe
from promptopt.extras import require
from promptopt.finetune.base_model import is_out_of_memory, quiet_libraries
from promptopt.finetune.checkpoints import write_atomically
from promptopt.finetune.resident import ResidentBase
from promptopt.finetune.together.train import alone_because
from promptopt.records import Record

if TYPE_CHECKING:
    from promptopt.finetune.together.forward import SharedForward, Slice

LEAST_GAIN = 1.1
"""Trainings are grouped from this gain on: what is measured varies by some percent, and rows of unequal length cost
padding that the measurement, whose rows have one length, does not see."""

_ROUNDS = 5
_ANSWER_SHARE = 4
"""One token in this many carries loss in the rows that are timed."""

logger = logging.getLogger(__name__)


class TogetherTimes(Record):
    """Seconds of one step of every training, as the fastest of several rounds showed it.

    Attributes:
        together: all in one forward and backward; None where memory did not suffice.
        alone: one after the other.
    """

    together: float | None
    alone: float

    @property
    def gain(self) -> float:
        """How many times as fast training together is; 0 where it does not fit into memory."""
        return self.alone / self.together if self.together else 0.0


def groups_pay(base: ResidentBase, recipes: Sequence[TrainingRecipe], tokens: int, notes: Path | None = None) -> bool:
    """Say whether trainings with these recipes are to share a forward on `base`: measured, see `measure`."""
    if len(recipes) < 2 or any(alone_because(recipe) for recipe in recipes):
        return False
    return measure(base, recipes, tokens, notes).gain >= LEAST_GAIN


def measure(
    base: ResidentBase, recipes: Sequence[TrainingRecipe], tokens: int, notes: Path | None = None
) -> TogetherTimes:
    """Return how long a step takes together and one after the other, timed on `base` unless `notes` knows.

    What is timed is a forward and a backward over full batches of random rows, in turns. Each forward's own costs are
    in it; those of starting a training are not, and speak for training together.

    Args:
        recipes: of the trainings; ranks, targets and batch sizes count.
        tokens: of a typical long row; rounded up to a power of two.
        notes: folder that keeps measurements; None keeps none.

    Raises:
        ModelError, TrainingError: the base cannot be loaded, or is in use.
    """
    tokens = 1 << max(4, (tokens - 1).bit_length())
    path = None if notes is None else notes / f"{_key(base, recipes, tokens)}.json"
    if path is not None:
        try:
            return TogetherTimes.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValidationError):
            pass
    times = _timed(base, recipes, tokens)
    logger.info(
        "%d trainings on %s, rows of %d tokens: together %.2f times as fast as one after the other",
        len(recipes), base.base_dir.name, tokens, times.gain,
    )  # fmt: skip
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, times.model_dump_json() + "\n")
    return times


def _key(base: ResidentBase, recipes: Sequence[TrainingRecipe], tokens: int) -> str:
    """Return a hash of all that the times depend on; of the recipes only what changes the arithmetic of a step."""
    torch = require("torch")
    cuda = base.device == "cuda"
    shapes = sorted(
        (one.batch_size, one.rank, one.target_modules, one.dropout > 0, one.gradient_checkpointing) for one in recipes
    )
    parts: list[Any] = [
        base.base_hash, base.residency, base.quantization, base.device, shapes, tokens, torch.__version__,
        torch.cuda.get_device_name() if cuda else [_processor(), os.cpu_count(), torch.get_num_threads()],
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    # The flags say what a virtual machine passes on of the model.
    return " ".join(next((line for line in lines if line.startswith(word)), "") for word in ("model name", "flags"))


def _timed(base: ResidentBase, recipes: Sequence[TrainingRecipe], tokens: int) -> TogetherTimes:
    with quiet_libraries(), base.lend() as loaded:
        from promptopt.finetune.together.forward import LoraSet, SharedForward, Slice
        from promptopt.finetune.together.noise import NoiseSource

        sets = [LoraSet(f"set{number}", recipe, number) for number, recipe in enumerate(recipes)]
        shared = SharedForward(loaded.model, sets)
        slices = [Slice(one, one.recipe.batch_size, tokens, NoiseSource(0, number)) for number, one in enumerate(sets)]
        return time_steps(shared, slices, tokens, base.device)


def time_steps(
    shared: "SharedForward",
    slices: "Sequence[Slice]",
    tokens: int,
    device: str,
    rounds: int = _ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> TogetherTimes:
    """Return the times of a forward and backward over `slices`, all of them `tokens` long, at once and in turn.

    Args:
        rounds: of which the fastest counts, after one that warms up.
        clock: tells seconds.
    """
    alone: list[float] = []
    together: list[float] = []
    fits = True
    for number in range(rounds + 1):
        seconds = [sum(_seconds(shared, [part], tokens, device, clock) for part in slices)]
        if fits:
            try:
                seconds.append(_seconds(shared, slices, tokens, device, clock))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                fits = False
        if number:  # the first round warms up
            alone.append(seconds[0])
            together += seconds[1:]
    return TogetherTimes(together=min(together) if fits else None, alone=min(alone))


def _seconds(
    shared: "SharedForward", slices: "Sequence[Slice]", tokens: int, device: str, clock: Callable[[], float]
) -> float:
    torch = require("torch")
    from promptopt.finetune.trainer import completion_log_probs

    rows = sum(part.rows or 0 for part in slices)
    vocabulary = shared.model.config.get_text_config().vocab_size
    ids = torch.randint(0, vocabulary, (rows, tokens), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[:, : tokens - tokens // _ANSWER_SHARE] = -100
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    for part in slices:
        for parameter in shared.parameters(part.lora):
            parameter.grad = None
    _wait(device)
    started = clock()
    with shared.using(*slices) as model, torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        log_probs, _ = completion_log_probs(model, batch)
        log_probs.sum().backward()
    _wait(device)
    return clock() - started


def _wait(device: str) -> None:
    if device == "cuda":
        require("torch").cuda.synchronize()
