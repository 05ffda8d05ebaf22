"""A recipe in the words of TRL: the one place that knows the argument names of `SFTConfig`."""

from pathlib import Path

from trl.trainer.sft_config import SFTConfig

from promptopt.config.recipe import TrainingRecipe


def sft_arguments(
    recipe: TrainingRecipe, output_dir: Path, seed: int, device: str, longest_row: int, *, fresh: bool
) -> SFTConfig:
    """Return the trainer's arguments.

    Args:
        output_dir: gets the checkpoints.
        longest_row: in tokens.
        fresh: whether training starts at step 0, which is evaluated then.
    """
    arguments = SFTConfig(
        output_dir=str(output_dir),
        seed=seed,
        data_seed=seed,
        use_cpu=device == "cpu",
        bf16=device == "cuda",
        fp16=False,
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation,
        gradient_checkpointing=recipe.gradient_checkpointing,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=recipe.warmup_share,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        neftune_noise_alpha=recipe.neftune_noise,
        optim=optimizer_name(recipe, device),
        loss_type=recipe.loss,
        completion_only_loss=False,  # labels are given
        packing=recipe.packing,
        packing_strategy="bfd",
        eval_packing=False,
        max_length=max(longest_row, recipe.max_length if recipe.packing else 0),
        dataset_kwargs={"skip_prepare_dataset": not recipe.packing},
        # Evaluations and checkpoints are asked for by RunCallback; the loss before training is the first point.
        eval_strategy="no",
        save_strategy="no",
        eval_on_start=fresh,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        push_to_hub=False,
        disable_tqdm=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=device == "cuda",
        remove_unused_columns=False,
    )
    if arguments.n_gpu > 1:
        # The Trainer multiplies the batch by the GPUs it sees, though the base lies on one of them.
        arguments._n_gpu = 1
    return arguments


def optimizer_name(recipe: TrainingRecipe, device: str) -> str:
    """Return TRL's name of the optimizer: AdamW, for 4-bit bases on CUDA with 8-bit states that can leave the GPU.

    Paged states: Dettmers et al. 2023, arXiv 2305.14314. 8-bit states: Dettmers et al. 2021, arXiv 2110.02861;
    bitsandbytes keeps those of small tensors in 32 bits.
    """
    return "paged_adamw_8bit" if device == "cuda" and recipe.base_quantization != "none" else "adamw_torch"
