"""Gives a model a chat template that it lacks: a folder of links to its files, with the template beside them.

Everything that reads the folder, training, export and parity, then reads the same template; the model stays as it is.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptopt.errors import ConfigError, ModelError
from promptopt.finetune.checkpoints import write_atomically

_TURN = "{{ message['role'] }}\n{{ message['content'] }}"


@dataclass(frozen=True)
class ChatTemplate:
    """A template, and the token that ends its turns; None = the tokenizer's EOS."""

    source: str
    end: str | None = None


BUILT_IN = {
    "chatml": ChatTemplate(
        "{% for message in messages %}<|im_start|>" + _TURN + "<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        "<|im_end|>",
    ),
    "zephyr": ChatTemplate(
        "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}{{ eos_token }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    ),
}
"""`chatml` needs its two tokens in the vocabulary; `zephyr` does with any tokenizer that has an EOS token."""

_OWN_FILES = ("chat_template.jinja", "tokenizer_config.json", "generation_config.json")


def with_chat_template(base_dir: Path, template: str, out_dir: Path) -> Path:
    """Return `out_dir`: the model in `base_dir` with the chat template that `template` names.

    Args:
        template: `chatml`, `zephyr`, or the path of a Jinja file, which ends its turns with the tokenizer's EOS or with
            a token that generation_config.json names.
        out_dir: gets links to the model's files; made anew where it exists.

    Raises:
        ConfigError: there is no such template, it is no Jinja, or it uses tokens that the tokenizer lacks.
        ModelError: a file of the tokenizer cannot be read.
    """
    chosen = _chosen(template)
    config = _json(base_dir / "tokenizer_config.json")
    config.pop("chat_template", None)
    tokens = _tokens(base_dir)
    generation = _json(base_dir / "generation_config.json")
    if chosen.end is not None:
        for text in ("<|im_start|>", chosen.end):
            if text not in tokens:
                raise ConfigError(
                    f"chat_template {template!r} needs the token {text!r}, which the tokenizer in {base_dir} has not; "
                    "it would be read as ordinary letters, and never end a turn. Use chat_template: zephyr."
                )
        generation["eos_token_id"] = _ends(base_dir, generation, config, tokens, chosen.end)
    elif "eos_token" in chosen.source and not config.get("eos_token"):
        raise ConfigError(
            f"chat_template {template!r} ends turns with the tokenizer's EOS token, and {base_dir} names none. Set "
            "eos_token in its tokenizer_config.json."
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    for old in out_dir.iterdir():
        if old.is_symlink() and not (base_dir / old.name).exists():
            old.unlink()
    for file in sorted(base_dir.iterdir()):
        if file.is_file() and file.name not in _OWN_FILES:
            _link(file.resolve(), out_dir / file.name)
    for name, text in (
        ("tokenizer_config.json", json.dumps(config, ensure_ascii=False, indent=2)),
        ("generation_config.json", json.dumps(generation, ensure_ascii=False, indent=2) if generation else ""),
        ("chat_template.jinja", chosen.source),
    ):
        if text:
            write_atomically(out_dir / name, text)
    return out_dir


def _chosen(template: str) -> ChatTemplate:
    if template in BUILT_IN:
        return BUILT_IN[template]
    path = Path(template).expanduser()
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"chat_template {template!r} is neither one of {sorted(BUILT_IN)} nor a readable file: {error}."
        ) from error
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    try:
        ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"]).parse(source)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"chat_template {template!r} is no Jinja template: line {error.lineno}: {error}.") from error
    return ChatTemplate(source)


def _tokens(base_dir: Path) -> dict[str, int]:
    """Return the tokens of `tokenizer.json`, by text; those that were added count."""
    tokenizer = _json(base_dir / "tokenizer.json")
    model = tokenizer.get("model", {})
    vocabulary = model.get("vocab", {}) if isinstance(model, dict) else {}
    tokens = dict(vocabulary) if isinstance(vocabulary, dict) else {}
    return {**tokens, **{str(added["content"]): int(added["id"]) for added in tokenizer.get("added_tokens", [])}}


def _ends(
    base_dir: Path, generation: dict[str, Any], config: dict[str, Any], tokens: dict[str, int], end: str
) -> list[int]:
    """Return the ids that end generation: those that did before, and `end`."""
    found = generation.get("eos_token_id", _json(base_dir / "config.json").get("eos_token_id"))
    before = found if isinstance(found, list) else [] if found is None else [found]
    eos = config.get("eos_token")
    named = eos.get("content") if isinstance(eos, dict) else eos
    return list(dict.fromkeys([*before, *([tokens[named]] if named in tokens else []), tokens[end]]))


def _link(target: Path, link: Path) -> None:
    if link.is_symlink() and Path(os.readlink(link)) == target:
        return
    temporary = link.with_name(f".{link.name}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, link)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}. Copy the model again.") from error
    return value if isinstance(value, dict) else {}
