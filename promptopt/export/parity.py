"""Proves that llama.cpp on a GGUF is the model that was trained: same token ids, and greedy continuations compared.

The Hugging Face side is computed here; the llama.cpp side comes in as two functions, because engines belong to the
other wing. Token ids must agree on every prompt: a model served on other tokens than it was trained on is another
model. Greedy continuations may part where two tokens are almost equally probable: sums run in another order, weights
are rounded.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from promptopt.errors import ExportError
from promptopt.export.end_tokens import read_special_ids
from promptopt.export.hf_folder import read_json
from promptopt.export.quiet import quiet_libraries
from promptopt.extras import require
from promptopt.records import ChatMessage, ParityReport, Quantization, Record

_SHOWN_TOKENS = 6


class ReferencePrompt(Record):
    """One prompt as the Hugging Face tokenizer and model see it.

    Attributes:
        text: the whole prompt after the chat template, a prefill of the answer included.
        ids: tokens of `text`, taken as one string.
        greedy_ids: the most probable continuation in float32, without the token that ends it; None = not computed.
        end_ids: tokens that end a continuation.
        max_new_tokens: longest continuation asked for.
    """

    messages: tuple[ChatMessage, ...]
    text: str
    ids: tuple[int, ...]
    greedy_ids: tuple[int, ...] | None
    end_ids: frozenset[int]
    max_new_tokens: int


def hf_reference(
    hf_dir: Path, prompts: Sequence[Sequence[ChatMessage]], *, max_new_tokens: int, greedy_prompts: int
) -> list[ReferencePrompt]:
    """Tokenize all prompts with the Hugging Face tokenizer and continue the first ones with the model.

    Args:
        hf_dir: the model that was exported.
        prompts: chat prompts; a last assistant message is a prefill: its text follows the generation prompt and its
            turn stays open.
        max_new_tokens: length of the greedy continuations.
        greedy_prompts: how many prompts, from the start, are continued; 0 loads no weights.

    Raises:
        ExportError: no prompts, or the tokenizer has no chat template.
        MissingExtraError: torch or transformers is not installed.
    """
    if not prompts:
        raise ExportError("Parity was asked for without prompts; give at least one.")
    transformers = require("transformers")
    with quiet_libraries():
        tokenizer = transformers.AutoTokenizer.from_pretrained(hf_dir)
        if tokenizer.chat_template is None:
            raise ExportError(
                f"The tokenizer in {hf_dir} has no chat template, so there is no prompt text to compare. Use an "
                "instruct model, or set tokenizer.chat_template and save it."
            )
        texts = [prompt_text(tokenizer, prompt) for prompt in prompts]
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        ends = _end_ids(hf_dir, tokenizer)
        continued = _greedy(hf_dir, ids[:greedy_prompts], max_new_tokens, ends) if greedy_prompts else []
    return [
        ReferencePrompt(
            messages=tuple(prompt),
            text=text,
            ids=tuple(prompt_ids),
            greedy_ids=tuple(continued[number]) if number < len(continued) else None,
            end_ids=ends,
            max_new_tokens=max_new_tokens,
        )
        for number, (prompt, text, prompt_ids) in enumerate(zip(prompts, texts, ids, strict=True))
    ]


def prompt_text(tokenizer: Any, prompt: Sequence[ChatMessage]) -> str:
    """Return the text of a chat prompt, ending where the model is to go on writing.

    Raises:
        ExportError: the prompt is empty or one assistant message, or the template refuses it.
    """
    messages = [message.model_dump() for message in prompt]
    prefill = messages.pop()["content"] if messages and messages[-1]["role"] == "assistant" else ""
    if not messages:
        raise ExportError("A parity prompt has no message before the assistant's; give at least one user message.")
    try:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    except Exception as error:  # jinja2.TemplateError, which is not imported here
        if type(error).__module__.partition(".")[0] != "jinja2":
            raise
        roles = ", ".join(message["role"] for message in messages)
        raise ExportError(
            f"The chat template refuses a parity prompt (roles: {roles}): {error}. Choose a layout it allows."
        ) from error
    return str(text) + prefill


def _end_ids(hf_dir: Path, tokenizer: Any) -> frozenset[int]:
    """Return the ids at which llama.cpp will stop, so that both sides stop at the same."""
    count = len(tokenizer)
    tokens = tokenizer.convert_ids_to_tokens(list(range(count)))
    config = read_json(hf_dir / "tokenizer_config.json")
    return read_special_ids(hf_dir, config, [token or "" for token in tokens], str(tokenizer.chat_template)).ends


def _greedy(
    hf_dir: Path, prompts: Sequence[Sequence[int]], max_new_tokens: int, ends: frozenset[int]
) -> list[list[int]]:
    """Continue each prompt by the most probable token in float32, one prompt at a time (padding would change sums)."""
    torch, transformers = require("torch"), require("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(hf_dir, dtype=torch.float32).eval()
    # The model's own generation settings may sample or punish repetition.
    model.generation_config = transformers.GenerationConfig()
    settings = transformers.GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=sorted(ends), pad_token_id=min(ends)
    )
    continued = []
    for prompt in prompts:
        with torch.inference_mode():
            ids = torch.tensor([list(prompt)])
            made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        continued.append(_until_end(made[0, len(prompt) :].tolist(), ends))
    return continued


def _until_end(ids: Sequence[int], ends: frozenset[int]) -> list[int]:
    stop = next((index for index, token in enumerate(ids) if token in ends), len(ids))
    return list(ids[:stop])


def compare(
    reference: Sequence[ReferencePrompt],
    tokenize: Callable[[Sequence[ChatMessage]], list[int]],
    generate: Callable[[list[int], int], list[int]],
    quantization: Quantization,
) -> ParityReport:
    """Compare llama.cpp on a GGUF with the reference.

    Args:
        reference: from `hf_reference`.
        tokenize: messages -> token ids of the whole prompt, as serving makes them.
        generate: token ids, most new tokens -> greedy continuation, with or without the token that ends it.
        quantization: of the GGUF behind `generate`.
    """
    equal, mismatch, agreed, greedy_equal = 0, "", [], 0
    for prompt in reference:
        ids = list(tokenize(prompt.messages))
        equal += ids == list(prompt.ids)
        mismatch = mismatch or _mismatch(prompt, ids)
        if prompt.greedy_ids is not None:
            # Continued from the reference's tokens: what is compared here is the network.
            made = _until_end(generate(list(prompt.ids), prompt.max_new_tokens), prompt.end_ids)
            agreed.append(_common_prefix(made, prompt.greedy_ids))
            greedy_equal += made == list(prompt.greedy_ids)
    return ParityReport(
        prompts=len(reference),
        token_ids_equal=equal,
        greedy_prompts=len(agreed),
        greedy_equal=greedy_equal,
        mean_agreed_tokens=sum(agreed) / len(agreed) if agreed else 0.0,
        max_new_tokens=max((prompt.max_new_tokens for prompt in reference), default=0),
        quantization=quantization,
        first_mismatch=mismatch,
    )


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    pairs = zip(left, right, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def _mismatch(prompt: ReferencePrompt, ids: Sequence[int]) -> str:
    """Say where the tokens of a prompt part; empty when they do not."""
    if list(ids) == list(prompt.ids):
        return ""
    start = _common_prefix(ids, prompt.ids)
    end = start + _SHOWN_TOKENS
    return (
        f"at token {start}: Hugging Face {list(prompt.ids[start:end])}, llama.cpp {list(ids[start:end])}; "
        f"prompt {prompt.text[:200]!r}"
    )


def require_parity(report: ParityReport) -> None:
    """Raise unless the token ids of every prompt agree.

    Raises:
        ExportError: with the first prompt whose ids differ.
    """
    if report.token_ids_equal == report.prompts:
        return
    raise ExportError(
        f"llama.cpp cuts {report.prompts - report.token_ids_equal} of {report.prompts} prompts into other tokens than "
        f"the Hugging Face tokenizer. First: {report.first_mismatch}. The GGUF must not be used. Text that is not in "
        "Unicode composed form (NFC) is the usual cause with Qwen2 tokenizers: normalize the data; else "
        "report this prompt."
    )
