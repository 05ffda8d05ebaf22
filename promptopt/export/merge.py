"""Merges LoRA weights into the base they were trained on: the *dequantised* 4-bit one.

LoRA weights learn to correct the very weights they are trained against. Merged into the original base instead, they
meet other weights: measured logit error 0.0093 against 0.0015. So the base is loaded exactly as training holds it,
every 4-bit matrix becomes what it stands for, and PEFT adds its update there in float32.
"""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

from promptopt.errors import ExportError
from promptopt.export.atomic import atomic_dir, sha256_of, write_error
from promptopt.export.hf_folder import INDEX_NAME, SINGLE_NAME, read_json
from promptopt.export.quiet import quiet_libraries
from promptopt.extras import require

BaseQuantization = Literal["nf4", "fp4", "none"]
MergedType = Literal["float16", "float32"]
_TRAINED_AS = {"cpu": "float32", "cuda": "bfloat16"}
"""Device of the training -> the type in which it loads the base before quantizing; see `finetune.base_model`."""

RECORD_NAME = "merge.json"
"""Written last: which weights were merged and how. A folder that holds the right record is not made again."""
_LORA_WEIGHTS = "adapter_model.safetensors"
_LORA_CONFIG = "adapter_config.json"
_TIED_ENDS = frozenset(("lm_head", "embed_tokens"))
_COPIED = (
    "tokenizer*",
    "*.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
)
"""Everything beside weights and configuration comes from the base, byte for byte."""


def merge_lora(
    base_dir: Path,
    lora_dir: Path,
    out_dir: Path,
    base_quantization: BaseQuantization,
    dtype: MergedType = "float16",
    *,
    trained_on: str = "cpu",
) -> Path:
    """Write base + LoRA as a plain Hugging Face folder: weights, configuration, tokenizer, chat template.

    LoRA, rsLoRA, DoRA and fully trained modules (`modules_to_save`) are merged by PEFT itself. If LoRA changes one
    end of a tied pair (embeddings, output), the merged model is untied, so that the other end stays as it was.

    Args:
        base_dir: the unquantized model that training started from.
        lora_dir: PEFT's folder with `adapter_config.json` and `adapter_model.safetensors`.
        out_dir: written atomically; left alone if it already holds this very merge.
        base_quantization: how training held the base; 4-bit means double quantization, and all linear layers except
            `lm_head`, as transformers does by default.
        dtype: of the stored weights; all sums are in float32.
        trained_on: "cpu" or "cuda", as `FinetuneResult.device` says: on CUDA the base was rounded to bfloat16 before
            it was quantized, so the LoRA weights learned to correct other weights.

    Returns:
        `out_dir`.

    Raises:
        ExportError: no LoRA weights, another base, values that `dtype` cannot hold, or a full disk; nothing
            half-written stays.
        MissingExtraError: torch, transformers, peft or bitsandbytes is not installed.
    """
    if base_quantization not in ("nf4", "fp4", "none"):
        raise ExportError(f"base_quantization is {base_quantization!r}; merging supports 'nf4', 'fp4' and 'none'.")
    if dtype not in ("float16", "float32"):
        raise ExportError(f"dtype is {dtype!r}; allowed are 'float16' and 'float32'.")
    if trained_on not in _TRAINED_AS:
        raise ExportError(f"trained_on is {trained_on!r}; allowed are 'cpu' and 'cuda'.")
    record = _record(base_dir, lora_dir, base_quantization, dtype, trained_on)
    if read_json(out_dir / RECORD_NAME) == record:
        return out_dir
    with quiet_libraries(), atomic_dir(out_dir) as temporary:
        _save(_merged_model(base_dir, lora_dir, base_quantization, trained_on), temporary, dtype, out_dir)
        for file in (file for pattern in _COPIED for file in base_dir.glob(pattern)):
            shutil.copyfile(file, temporary / file.name)
        (temporary / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return out_dir


def _record(base_dir: Path, lora_dir: Path, base_quantization: str, dtype: str, trained_on: str) -> dict[str, str]:
    """Return what the merged weights depend on, by content.

    Raises:
        ExportError: one of the files is missing.
    """
    base = [base_dir / "config.json", *sorted(base_dir.glob("*.safetensors"))]
    lora = [lora_dir / _LORA_CONFIG, lora_dir / _LORA_WEIGHTS]
    for file in (*base, *lora, base_dir / (INDEX_NAME if (base_dir / INDEX_NAME).exists() else SINGLE_NAME)):
        if not file.is_file():
            raise ExportError(
                f"{file} is missing. Merging needs the base model's folder (config.json, safetensors) and PEFT's LoRA "
                f"folder ({_LORA_CONFIG}, {_LORA_WEIGHTS}); run the stage finetune first."
            )
    return {
        "base": " ".join(sha256_of(file) for file in base),
        "lora": " ".join(sha256_of(file) for file in lora),
        "base_quantization": base_quantization,
        "dtype": dtype,
        "trained_on": trained_on,
    }


def _merged_model(base_dir: Path, lora_dir: Path, base_quantization: BaseQuantization, trained_on: str) -> Any:
    """Return the merged model in float32 on the CPU."""
    peft = require("peft")
    base = dequantised_base(base_dir, base_quantization, trained_on)
    _untie_if_needed(base, read_json(lora_dir / _LORA_CONFIG))
    try:
        model = peft.PeftModel.from_pretrained(base, str(lora_dir))
    except (RuntimeError, ValueError, KeyError) as error:
        raise _misfit(base_dir, lora_dir, str(error)) from error
    # PEFT passes over LoRA weights of modules that the base does not have.
    with require("safetensors").safe_open(str(lora_dir / _LORA_WEIGHTS), framework="np") as file:
        stored = {key for key in file.keys() if ".lora_" in key}  # noqa: SIM118 (no mapping)
    loaded = {key for key in peft.get_peft_model_state_dict(model, save_embedding_layers=False) if ".lora_" in key}
    if stored != loaded:
        example = sorted(stored ^ loaded)[0]
        raise _misfit(base_dir, lora_dir, f"{len(stored ^ loaded)} weights are in one of both only, e.g. {example}")
    return model.merge_and_unload()


def _misfit(base_dir: Path, lora_dir: Path, reason: str) -> ExportError:
    return ExportError(
        f"The LoRA weights in {lora_dir} do not fit the base {base_dir}: {reason}. Merge into the model that they were "
        "trained on."
    )


def dequantised_base(base_dir: Path, base_quantization: BaseQuantization, trained_on: str = "cpu") -> Any:
    """Load a base as training on `trained_on` holds it: what its 4-bit matrices stand for, all else as stored.

    What training holds in bfloat16 is rounded to it, before and after quantizing, and only then float32.

    Returns:
        A transformers model on the CPU, in float32.
    """
    torch, transformers = require("torch"), require("transformers")
    held = getattr(torch, _TRAINED_AS[trained_on])
    if base_quantization == "none":
        return transformers.AutoModelForCausalLM.from_pretrained(base_dir, dtype=held).to(torch.float32)
    bitsandbytes = require("bitsandbytes")
    quantized = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=base_quantization,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=held,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = transformers.AutoModelForCausalLM.from_pretrained(
        base_dir, quantization_config=quantized, dtype=held, device_map={"": device}
    )
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    for name, module in found:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, _dequantised(module))
    # Nothing 4-bit is left: PEFT must not take its merge for quantized layers, nor the configuration name them.
    for attribute in ("hf_quantizer", "is_loaded_in_4bit", "quantization_method", "is_quantized"):
        model.__dict__.pop(attribute, None)
    model.config.__dict__.pop("quantization_config", None)
    return model.to("cpu", torch.float32)


def _dequantised(module: Any) -> Any:
    """Return a plain linear layer with the float32 weights that a 4-bit one stands for."""
    torch, functional = require("torch"), require("bitsandbytes").functional
    weight = functional.dequantize_4bit(module.weight.data, module.weight.quant_state).to(torch.float32)
    plain = torch.nn.Linear(
        module.in_features, module.out_features, bias=module.bias is not None, device="meta", dtype=torch.float32
    )
    plain.weight = torch.nn.Parameter(weight.reshape(module.out_features, module.in_features), requires_grad=False)
    if module.bias is not None:
        plain.bias = torch.nn.Parameter(module.bias.data.to(torch.float32), requires_grad=False)
    return plain


def _untie_if_needed(model: Any, lora_config: dict[str, Any]) -> None:
    """Give the output matrix its own values where LoRA changes one end of a tied pair."""
    if not getattr(model.config, "tie_word_embeddings", False):
        return
    touched: set[str] = set()
    for key in ("target_modules", "modules_to_save"):
        names = lora_config.get(key) or []
        # A text is a regular expression over module names.
        touched.update([names] if isinstance(names, str) else names)
    if any(end in name for name in touched for end in _TIED_ENDS):
        output = model.get_output_embeddings()
        output.weight = require("torch").nn.Parameter(output.weight.detach().clone())
        model.config.tie_word_embeddings = False


def _save(model: Any, folder: Path, dtype: MergedType, out_dir: Path) -> None:
    torch = require("torch")
    model.to(getattr(torch, dtype))
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ExportError(
                f"The merged weight {name} has values that {dtype} cannot hold. Use dtype='float32'; if they are not "
                "finite there either, training diverged: lower the learning rate."
            )
    try:
        model.save_pretrained(folder)
    except Exception as error:
        # safetensors reports a full disk as an error of its own, which is no OSError.
        raise write_error(out_dir, error) from error
