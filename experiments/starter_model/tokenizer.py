"""Trains the tokenizer: byte-level BPE with the Qwen2 pre-tokenizer, ChatML specials and chat template.

The pre-tokenizer is the one llama.cpp calls `qwen2`, so a GGUF file of the model gives the same ids.

Run: ``python tokenizer.py --out FOLDER``.
"""

import argparse
import json
import pathlib
import random
from collections.abc import Iterator

import corpus
import facts
import lexicon
import names
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCAB_SIZE = 4096
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CAPITALISED = (
    "The|In|On|At|It|What|Which|Who|Where|When|How|Why|For|As|And|But|This|These|He|She|They|His|Her|There|From|After|A|An|I|"
    "January|February|March|April|May|June|July|August|September|October|November|December|"
    "Works|Labs|Foods|Motors|Group|Trading|Press|Systems|Bank|Studio|Mini|Pro|Plus|One|Max|Air|Box|Kit|"
    "Document|Context|Passage|Text|Question|Query|Answer|Response|Input|Output|Your|All|Respond|Read|Find|Name|Example"
)
_TRAINING_PATTERN = (
    rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)| ?(?:{_CAPITALISED})(?!\p{{L}})| ?\p{{Lu}}|[^\r\n\p{{L}}\p{{N}}]?[^\P{{L}}\p{{Lu}}]+"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Used while merges are learned: a capital stands alone, so a name has the same later tokens with and without a space."""
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_SEED = 20261121
_SCAFFOLD = """Your input fields are:
1. `{d}` (str): {desc}
2. `{q}` (str): The question to answer.
Your output fields are:
1. `{a}` (str): A short answer copied from the text.
All interactions will be structured in the following way, with the appropriate values filled in.

[[ ## {d} ## ]]
{{{d}}}

[[ ## {q} ## ]]
{{{q}}}

[[ ## {a} ## ]]
{{{a}}}

[[ ## completed ## ]]
In adhering to this structure, your objective is:
        {inst}
Respond with the corresponding output fields, starting with the field `[[ ## {a} ## ]]`, and then ending with the marker for `[[ ## completed ## ]]`.
Respond with a JSON object in the following order of fields: `{a}`.
Outputs will be a JSON object with the following fields.
{{"{d}": "text", "{q}": "what", "{a}": "value"}}
{{
  "{d}": "text",
  "{a}": "value"
}}
## {d}
text

## {q}
## {a}
# {d}
**{q}**:
<{d}>
text
</{d}>
<{q}>what</{q}>
<{a}>value</{a}>
<example>
<reasoning>Let's think step by step.</reasoning>
<examples>
</examples>
{D}: text
{Q}: what
{A}: value
{D}:
{A}:
Example 1
Example 2
Examples:
Here are some examples.
---
Instructions:
Fill in the output fields. Answer in the format below. Reply with the answer only, without any other text.
Remember: reply only with the fields in the format shown above.
"""
_SCAFFOLD_JA = "入力欄は次のとおりです。\n出力欄は次のとおりです。\n次の形式で答えてください。\n質問: \n文書: \n答え: \n説明: \n例\n例:\n指示\n回答だけを書いてください。\n"


def _scaffolds(rng: random.Random) -> Iterator[str]:
    """Layout scaffolding with many field names."""
    for _ in range(400):
        d, q, a = rng.choice(corpus.DOC_NAMES), rng.choice(corpus.QUESTION_NAMES), rng.choice(corpus.ANSWER_NAMES)
        inst = corpus.sample(rng, 3).instructions
        yield _SCAFFOLD.format(
            d=d, q=q, a=a, D=d.capitalize(), Q=q.capitalize(), A=a.capitalize(), desc="Text.", inst=inst
        )
        yield _SCAFFOLD_JA


def _words(rng: random.Random) -> Iterator[str]:
    """Common words with a leading space, weighted by how common they are, with regular endings at a low weight."""
    for words, weight in (
        (lexicon.FUNCTION_WORDS, 400),
        (lexicon.NOUNS, 90),
        (lexicon.ADJECTIVES, 90),
        (lexicon.MORE_WORDS, 90),
    ):
        for rank, word in enumerate(words):
            share = weight // (1 + 3 * rank // len(words))
            yield f" {word}" * share
            yield f" {word.capitalize()}" * (share // 8)
            if weight < 400:
                for ending in ("s", "ed", "ing", "er", "ly", "al", "ation"):
                    yield f" {word.removesuffix('e') if ending[0] in 'eia' else word}{ending}" * 8
    for word in dict.fromkeys([*lexicon.NOUNS, *lexicon.ADJECTIVES, *names.COLOURS, *names.ANIMALS, *names.JOBS]):
        yield f"{word}\n" * 40
    for pair in lexicon.VERBS:
        yield " " + " ".join(pair.split(":") * 90)
    japanese = [
        *lexicon.JA_PHRASES,
        *lexicon.JA_JOBS,
        *lexicon.JA_THINGS,
        *lexicon.JA_PLACES,
        *lexicon.JA_COLOURS,
        *lexicon.JA_SURNAMES,
    ]
    for word in japanese:
        yield f"{word}\n" * 80


def training_texts(seed: int = _SEED) -> Iterator[str]:
    """Yields the text the tokenizer is trained on: words, scaffolding, templates and training examples."""
    rng = random.Random(seed)
    yield from _words(rng)
    yield from _scaffolds(rng)
    for relation in (*facts.RELATIONS, *facts.JA_RELATIONS):
        yield from (t.format(s="Ann", v="red") for t in (*relation.statements[:-1], *relation.questions[:-1]))
    for _ in range(2500):
        example = corpus.sample(rng, rng.randint(2, 8))
        yield example.instructions
        yield from example.values.values()


def _pre_tokenizer(pattern: str) -> pre_tokenizers.PreTokenizer:
    """Splits by a pattern and maps bytes to printable characters."""
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def train(seed: int = _SEED) -> PreTrainedTokenizerFast:
    """Trains the tokenizer and wraps it for transformers."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = _pre_tokenizer(_TRAINING_PATTERN)
    tok.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIALS),
        initial_alphabet=alphabet,
        show_progress=False,
        min_frequency=2,
    )
    tok.train_from_iterator(training_texts(seed), trainer)
    tok.pre_tokenizer = _pre_tokenizer(QWEN2_PATTERN)
    end, _, turn_end = SPECIALS
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tok,
        eos_token=turn_end,
        pad_token=end,
        additional_special_tokens=[SPECIALS[1]],
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def main() -> None:
    """Trains and saves the tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    fast = train()
    fast.save_pretrained(args.out)
    path = args.out / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"  # a name that older readers know too
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"vocabulary {len(fast)}")


if __name__ == "__main__":
    main()
