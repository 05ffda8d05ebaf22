"""Tiny random models of real architectures, with a trained BPE tokenizer and a ChatML template, and rows to learn."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from promptopt.records import ChatMessage, DocumentRow, TrainingRow

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
COLOURS = ("red", "blue", "green", "black")
THINGS = ("car", "house", "tree", "door", "ship", "lamp")


def make_rows(count: int, seed: int, prefill: str = "", words: int = 0) -> list[TrainingRow]:
    """Return rows whose answer is the colour that the question names, with up to `words` filler words."""
    generator = random.Random(seed)
    rows = []
    for number in range(count):
        colour, thing = generator.choice(COLOURS), generator.choice(THINGS)
        filler = " ".join(generator.choice(THINGS) for _ in range(generator.randint(0, words)))
        question = f"{number} {filler} the {thing} is {colour}, what colour is it?"
        prompt = (ChatMessage(role="system", content="answer"), ChatMessage(role="user", content=question))
        rows.append(TrainingRow(id=f"{seed}-{number}", prompt=prompt, completion=f"{prefill}{colour}", prefill=prefill))
    return rows


def make_teaching_rows(count: int, seed: int) -> list[TrainingRow]:
    """Return rows whose teacher reads a longer prompt than the student."""
    long = ChatMessage(role="system", content="answer with a colour: red, blue, green or black")
    return [
        row.model_copy(update={"teacher_prompt": (long, *row.prompt[1:])}) for row in make_rows(count, seed, words=4)
    ]


def make_documents(count: int) -> list[DocumentRow]:
    """Return documents of different lengths."""
    return [
        DocumentRow(id=f"d{n}", text="\n".join(row.prompt[1].content for row in make_rows(1 + n % 4, 100 + n)))
        for n in range(count)
    ]


def write_rows(path: Path, rows: Sequence[BaseModel]) -> Path:
    """Write `rows` as JSONL."""
    path.write_text("".join(row.model_dump_json() + "\n" for row in rows), encoding="utf-8")
    return path


def make_tokenizer(template: str | None = CHATML) -> Any:
    """Return a byte-level BPE tokenizer trained on the rows' text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = [message.content for row in make_rows(200, 0) for message in row.prompt]
    tokenizer.train_from_iterator(text, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    fast.chat_template = template
    return fast


def make_base(folder: Path, architecture: str = "llama", seed: int = 0, context: int = 256) -> Path:
    """Save a random model of 2 layers and width 64 with its tokenizer; return `folder`."""
    import torch
    import transformers

    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": context,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.2,
    }
    config = {"llama": transformers.LlamaConfig, "qwen2": transformers.Qwen2Config}[architecture](**sizes)
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
