"""The proof that a GGUF is asked with the very tokens that are trained on, before the first step of training."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from promptopt.errors import TrainingError
from promptopt.extras import require
from promptopt.finetune.base_folder import end_token_ids
from promptopt.finetune.chat_tokens import ChatTokenizer
from promptopt.lm.llama_cpp.chat_template import ChatTemplate
from promptopt.lm.llama_cpp.model import LoadOptions, NativeModel
from promptopt.records import TrainingRow


def check_served_tokens(gguf: Path, hf_dir: Path, rows: Sequence[TrainingRow]) -> None:
    """Pass if `gguf` reads each prompt as the same tokens as `hf_dir`, and ends its turn at the token that is trained.

    Loads the vocabulary of the GGUF, not its weights.

    Raises:
        TrainingError: they differ: the GGUF was made from another model, or carries another chat template.
        ModelError: the GGUF cannot be read, or has no chat template.
    """
    tokenizer = require("transformers").AutoTokenizer.from_pretrained(hf_dir, local_files_only=True)
    chat = ChatTokenizer(tokenizer, end_token_ids(hf_dir, tokenizer.eos_token_id))
    with closing(NativeModel(gguf, LoadOptions(), vocab_only=True)) as model:
        vocabulary = model.vocabulary
        template = ChatTemplate(model.info.chat_template, vocabulary.special_tokens(), model=str(gguf))
        for row in rows:
            given, generated = chat.split_ids(row)
            messages = [message.model_dump() for message in row.prompt]
            if row.prefill:
                messages.append({"role": "assistant", "content": row.prefill})
            served = vocabulary.tokenize(template.render(messages), special=True)
            if served != given:
                raise TrainingError(
                    f"Row {row.id!r} has {len(given)} prompt tokens in {hf_dir} and {len(served)} in {gguf.name}; they "
                    f"differ from token {_common(served, given)} on. A model trained on other tokens than it is asked "
                    "with is another model: give the Hugging Face folder that this GGUF was made from."
                )
            if not vocabulary.ends_generation(generated[-1]):
                raise TrainingError(
                    f"Row {row.id!r} ends with token {generated[-1]}, at which {gguf.name} does not stop generating. "
                    "Export the GGUF again with `promptopt export`, which writes the ends of a turn into it."
                )


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    pairs = zip(first, second, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
