"""Language models that write for promptopt: instructions, synthetic rows. Built from config, used by several stages."""

import os
from pathlib import Path

import dspy

from promptopt.config.pools import GgufProposer, ServerProposer
from promptopt.lm.llama_cpp.facade import LlamaCpp


def writer_lm(
    asked: GgufProposer | ServerProposer, seed: int, temperature: float, *, remember: bool = True
) -> dspy.BaseLM:
    """Return the LM that writes; it stays loaded beside others.

    A server's key comes from the environment; one with an address of its own is asked without where there is none.

    Args:
        remember: whether replies are kept in a response cache; without, all of them are computed.

    Raises:
        ModelError: the GGUF is missing or damaged.
        MissingExtraError: llama-cpp-python is not installed.
    """
    if isinstance(asked, GgufProposer):
        return LlamaCpp(
            Path(asked.path).expanduser(), n_ctx=asked.n_ctx, n_gpu_layers=asked.n_gpu_layers,
            temperature=temperature, batch_invariant=True, seed=seed, cache_dir="user" if remember else None,
        )  # fmt: skip
    # DSPy refuses to call a server without any key, and local ones (Ollama, llama.cpp, vLLM) have none.
    keyless = asked.api_base is not None and asked.model.startswith("openai/") and not os.environ.get("OPENAI_API_KEY")
    key = {"api_key": "none"} if keyless else {}
    return dspy.LM(asked.model, api_base=asked.api_base, temperature=temperature, cache=remember, **key)
