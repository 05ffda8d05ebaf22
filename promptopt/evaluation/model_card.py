"""The model card of an exported model: what a stranger must know before asking it. Renders; measures nothing.

After Mitchell et al., Model Cards for Model Reporting (arXiv 1810.03993), in the form that the Hugging Face Hub shows.
"""

import json
import shlex

import yaml

from promptopt.evaluation.markdown import code, escape, fence, table
from promptopt.evaluation.report import bad_news_section, result_section, steps_section
from promptopt.evaluation.report_data import ModelCardData, ReportData
from promptopt.evaluation.report_parts import data_section, export_section
from promptopt.records import FinetuneResult

UNKNOWN_LICENCE = "unknown"


def render_model_card(data: ReportData, card: ModelCardData) -> str:
    """Return the card as Markdown with the Hub's YAML header, ending in one newline."""
    sections = [
        _header(card),
        f"# {escape(data.experiment)}",
        _introduction(card),
        _asking(card),
        result_section(data),
        steps_section(data),
        bad_news_section(data),
        _training(data.finetune, card),
        export_section(data.ggufs, data.parity, sha256_digits=64),
        _files(card),
        data_section(data.data),
        _provenance(data, card),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _header(card: ModelCardData) -> str:
    values: dict[str, object] = {
        "license": card.licence or UNKNOWN_LICENCE,
        "tags": ["promptopt", "dspy", "gguf", "llama.cpp", "lora"],
    }
    if card.base_id:
        values["base_model"] = card.base_id
    return "---\n" + yaml.safe_dump(values, sort_keys=False, allow_unicode=True) + "---"


def _introduction(card: ModelCardData) -> str:
    base = code(card.base_id or card.base_model)
    licence = (
        f"Licence of the base, and so of this model: {escape(card.licence)}."
        if card.licence
        else "**The licence of the base model is not stated here.** Look it up before you use or pass on this model."
    )
    return (
        f"{base}, fine-tuned for one task and exported to GGUF by promptopt. Inputs: {_fields(card.inputs)}. Outputs: "
        f"{_fields(card.outputs)}. It was measured on this task only, with the prompt it carries.\n\n{licence}"
    )


def _asking(card: ModelCardData) -> str:
    if card.needs_program:
        python = (
            "import promptopt as po\n\n"
            f'program = po.load_gguf_program("{card.deployed}", program=MyProgram())  # the program it was made for'
        )
        why = f"The file carries layout, instructions and demos; its program must be passed: {card.needs_program}."
        return "\n\n".join(["## How to ask it", escape(why), fence(python, "python")])
    fields = " ".join(f"--field {shlex.quote(f'{name}=…')}" for name in card.inputs)
    arguments = ", ".join(f'{name}="…"' for name in card.inputs)
    first = next(iter(card.outputs))
    python = (
        f'import promptopt as po\n\nprogram = po.load_gguf_program("{card.deployed}")\nprogram({arguments}).{first}'
    )
    parts = [
        "## How to ask it",
        "The file carries its program: fields, layout, instructions and demos.",
        fence(f"pip install 'promptopt[llama-cpp]'\npromptopt ask {card.deployed} {fields}", "sh"),
        fence(python, "python"),
    ]
    if "Modelfile" in card.files:
        parts += [
            "With Ollama, which is sent the last user message in the form that the `Modelfile` shows:",
            fence("ollama create my-model -f Modelfile", "sh"),
        ]
    return "\n\n".join(parts)


def _training(result: FinetuneResult | None, card: ModelCardData) -> str:
    if result is None:
        return ""
    facts = [
        ["base held as", code(result.base_quantization)],
        ["rows (train / validation)", f"{result.train_rows} / {result.val_rows}"],
        ["steps, epochs", f"{result.steps}, {result.epochs:.2f}"],
        ["best evaluation loss", f"{result.best_eval_loss:.4f}"],
        ["trainable parameters", f"{result.trainable_parameters:,}"],
    ]
    recipe = [[code(name), code(json.dumps(value, ensure_ascii=False))] for name, value in card.recipe.items()]
    return "\n\n".join(["## Training", table([["", ""], *facts]), "### Recipe", table([["", ""], *recipe])])


def _files(card: ModelCardData) -> str:
    lines = [f"- {code(name)}" for name in card.files]
    lines += [f"- {code(name)} could not be made: {escape(reason)}" for name, reason in card.left_out.items()]
    if not lines:
        return ""
    return "\n\n".join(
        [
            "### Beside the GGUF files",
            "As exported; a repository may hold only some.",
            "\n".join(lines),
        ]
    )


def _provenance(data: ReportData, card: ModelCardData) -> str:
    parts = ["## Where it comes from"]
    if card.demos:
        parts.append(
            f"**The GGUF files hold {card.demos} example(s) of the training data, in full**, as demos of the prompt."
        )
    if data.run is not None:
        said = {**data.run.versions, **{f"seed of {name}": str(seed) for name, seed in data.run.seeds.items()}}
        said |= {"machine": data.run.environment.get("machine", ""), "date": data.run.environment.get("date", "")}
        parts.append(table([["", ""], *([code(name), code(value)] for name, value in said.items() if value)]))
    return "\n\n".join(parts)


def _fields(fields: dict[str, str]) -> str:
    return ", ".join(f"{code(name)} ({code(kind)})" for name, kind in fields.items())
