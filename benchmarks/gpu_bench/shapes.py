"""Random models of real shapes, as Hugging Face folders: configs written out, nothing from a hub."""

import shutil
from pathlib import Path
from typing import Any

from random_models import SPECIAL_TOKENS, TEMPLATE, word_tokenizer

LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
SHAPES: dict[str, dict[str, Any]] = {
    "llama-3.2-3b": {
        "model_type": "llama", "vocab_size": 128256, "hidden_size": 3072, "intermediate_size": 8192,
        "num_hidden_layers": 28, "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128,
        "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
        "rope_parameters": LLAMA_3_ROPE,
    },
    "qwen2.5-7b": {
        "model_type": "qwen2", "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944,
        "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
        "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    },
    "llama-3.1-8b": {
        "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
        "rope_parameters": {**LLAMA_3_ROPE, "factor": 8.0},
    },
    "30m": {
        "model_type": "llama", "vocab_size": 8192, "hidden_size": 512, "intermediate_size": 2048,
        "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
    },
    "tiny": {
        "model_type": "llama", "vocab_size": 8192, "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
    },
}  # fmt: skip
REAL = ("llama-3.2-3b", "qwen2.5-7b", "llama-3.1-8b")


def random_folder(shape: str, folder: Path, device: str) -> Path:
    """Return a folder with a random model of `shape` and a tokenizer, written at the first call.

    Weights are drawn on `device`, in bfloat16 on CUDA. The tokenizer knows the first 8192 tokens only; logits have the
    real width.
    """
    import torch
    import transformers

    target = folder / shape
    if (target / "tokenizer.json").is_file():
        return target
    part = folder / f".{shape}.part"
    shutil.rmtree(part, ignore_errors=True)
    words = word_tokenizer().get_vocab()
    end = words["<|im_end|>"]
    config = transformers.AutoConfig.for_model(
        **SHAPES[shape], bos_token_id=None, eos_token_id=end, pad_token_id=words["<|endoftext|>"]
    )
    torch.manual_seed(0)
    with torch.device(device):
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.generation_config.eos_token_id = end
    model.save_pretrained(part)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS[1:3]),
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(part)
    part.rename(target)
    return target
