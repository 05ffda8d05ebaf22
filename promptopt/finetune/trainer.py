"""TRL's trainers with this project's rules: exact losses, seeded batches, checkpoints that say they are complete.

Imported only when training starts: it imports torch, transformers and trl. Knows token rows, no files of rows.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError
from transformers import Trainer
from trl.trainer.sft_trainer import SFTTrainer

from promptopt.errors import TrainingError
from promptopt.finetune import lora
from promptopt.finetune.base_model import is_out_of_memory
from promptopt.finetune.batches import EpochSampler, evaluation_batches
from promptopt.finetune.checkpoints import best_steps, checkpoint_dir, judged_points, mark_complete, rotate
from promptopt.finetune.rows import IGNORED_LABEL, TokenRow
from promptopt.finetune.stopwatch import Stopwatch

if TYPE_CHECKING:
    from torch import Tensor

_MAX_LOGITS = 2**25
"""Largest number of float32 logits held at once on the short path of the loss: 128 MiB, thrice with its gradient."""
_MAX_EVAL_LOGITS = 2**28
"""Largest number of logits of an evaluation batch: documents carry loss on every token, and vocabularies are large."""


class RunTrainer:
    """What every training method shares; mixed in before a trainer of TRL.

    Attributes:
        trained_tokens: completion tokens that carried loss so far, all starts of this run together.
    """

    def __init__(
        self,
        *,
        val_rows: Sequence[TokenRow],
        train_lengths: Sequence[int] | None,
        pad_id: int,
        trained_tokens: int,
        clock: Stopwatch,
        **trl_arguments: Any,
    ) -> None:
        """Build the trainer.

        Args:
            val_rows: measured at every evaluation, each once.
            train_lengths: tokens of each training row; None where rows are packed, so lengths are equal anyway.
            pad_id: token that fills up short rows.
            clock: shows the seconds of training that a checkpoint records.
            trl_arguments: passed on to the trainer of TRL.
        """
        super().__init__(**trl_arguments)
        self._val_rows = tuple(val_rows)
        self._train_lengths = train_lengths
        self._pad_id = pad_id
        self._clock = clock
        self.trained_tokens = trained_tokens

    def _get_train_sampler(self: Any, train_dataset: Any = None) -> EpochSampler:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        lengths = self._train_lengths if self._train_lengths is not None else [1] * len(dataset)
        return EpochSampler(lengths, self.args.per_device_train_batch_size, self.args.seed)

    def evaluate(
        self: Any, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Measure the mean negative log-likelihood per completion token over all validation rows.

        The Trainer would average the means of batches, which depends on how rows are batched, and would report the DFT
        loss where that is trained; this is the same figure for every recipe.
        """
        model = self.model
        was_training = model.training
        model.eval()
        with self.compute_loss_context_manager():
            loss = mean_loss(model, self._val_rows, self.args.per_device_eval_batch_size, self._pad_id)
        metrics = {f"{metric_key_prefix}_loss": loss}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        model.train(was_training)
        return metrics

    def _send_telemetry(self) -> None:
        """Send nothing; TRL reports model, machine and trainer to Hugging Face when a trainer is built."""

    def _save(self: Any, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        # The Trainer also saves the tokenizer and its own arguments, megabytes that nobody reads, in every checkpoint.
        lora.save_weights(self.model, Path(str(output_dir or self.args.output_dir)))

    def _save_checkpoint(self: Any, model: Any, trial: Any) -> None:
        root = Path(str(self.args.output_dir))
        folder = checkpoint_dir(root, self.state.global_step)
        shutil.rmtree(folder, ignore_errors=True)
        with full_disk_explained(folder):
            Trainer._save_checkpoint(self, model, trial)  # SFTTrainer's own only adds a model card
            mark_complete(folder, self.state.global_step, self._clock.seconds, self.trained_tokens)
        rotate(root, *best_steps(judged_points(root, self.state.log_history)))


class RowTrainer(RunTrainer, SFTTrainer):
    """SFTTrainer on pre-tokenised rows."""

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the loss per completion token of the effective batch.

        TRL computes, on a GPU, logits of completion positions only; on a CPU, of every position. Completions are a
        small part of a row, so here a CPU computes those from the batch's first completion token on: the same loss.
        Batches whose logits would need much memory go TRL's way, which works in tiles.
        """
        labels = inputs["labels"]
        if cast(Any, self.model).training:
            self.trained_tokens += int((labels != IGNORED_LABEL).sum())
            self._clock.count(int(inputs["attention_mask"].sum()) if "attention_mask" in inputs else labels.numel())
        short = not (return_outputs or self.padding_free or self.aux_loss_enabled) and labels.device.type == "cpu"
        if not short or completion_span(labels) * len(labels) * model.config.vocab_size > _MAX_LOGITS:
            return cast(Any, super()).compute_loss(model, inputs, return_outputs, num_items_in_batch)
        log_probs, count = completion_log_probs(model, inputs)
        losses = -log_probs * log_probs.exp().detach() if cast(Any, self.args).loss_type == "dft" else -log_probs
        total = count if num_items_in_batch is None else num_items_in_batch
        return losses.sum() / torch.as_tensor(total).clamp(min=1)


@contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """Turn what goes wrong while the checkpoint `folder` is written into a TrainingError; lack of memory stays.

    A full disk has three faces: OSError, a RuntimeError from torch.save, and safetensors' own error.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        free = shutil.disk_usage(folder.parent).free
        raise TrainingError(
            f"The checkpoint {folder} could not be written: {error or type(error).__name__}. The disk has "
            f"{free / 1e6:.0f} MB left. Finished checkpoints are kept: free some space and start again, and "
            "training goes on from the last of them."
        ) from error


def mean_loss(model: Any, rows: Sequence[TokenRow], batch_size: int, pad_id: int) -> float:
    """Return the mean negative log-likelihood per completion token over all `rows`, in nats, without gradients.

    Args:
        batch_size: of rows measured at once; fewer where their logits would need much memory.
    """
    longest = max(row.completion_tokens for row in rows)
    batch_size = max(1, min(batch_size, _MAX_EVAL_LOGITS // (longest * model.config.get_text_config().vocab_size)))
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in evaluation_batches(rows, batch_size, pad_id):
            tensors = {name: tensor.to(model.device) for name, tensor in batch.items()}
            log_probs, tokens = completion_log_probs(model, tensors)
            total -= float(log_probs.double().sum())
            count += tokens
    return total / max(count, 1)


def completion_span(labels: "Tensor") -> int:
    """Return how many positions at the end of a batch's `labels` (rows, tokens) may carry loss."""
    carries = (labels != IGNORED_LABEL).any(dim=0)
    return labels.shape[1] - int(carries.int().argmax()) if bool(carries.any()) else 1


def completion_log_probs(model: Any, batch: dict[str, Any]) -> "tuple[Tensor, int]":
    """Return the log-probability of every token with a label, in float32, and how many there are.

    Args:
        batch: `input_ids`, `attention_mask` and `labels` of shape (rows, tokens), padded on the right.
    """
    labels = batch["labels"]
    span = completion_span(labels)
    # One position more than the span: the token before the first completion token predicts it.
    keep = min(span + 1, labels.shape[1])
    outputs = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False, logits_to_keep=keep
    )
    targets = labels[:, labels.shape[1] - keep + 1 :]
    counted = targets != IGNORED_LABEL
    logits = outputs.logits[:, -keep:][:, :-1][counted].float()
    log_probs = torch.log_softmax(logits, dim=-1).gather(1, targets[counted].unsqueeze(1)).squeeze(1)
    return log_probs, int(counted.sum())
