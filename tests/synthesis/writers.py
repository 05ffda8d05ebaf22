"""Documents, a teacher that answers them by rule, and a synthesis over both."""

import json
import re
from pathlib import Path

from promptopt.config.synthesis import SynthesisConfig
from promptopt.layout.dspy_adapter import LayoutAdapter
from promptopt.lm.protocol import Messages
from promptopt.lm.scripted import ScriptedLM
from promptopt.synthesis.checks import RowChecker
from promptopt.synthesis.passages import SourceDocument
from promptopt.synthesis.replies import Teacher
from promptopt.synthesis.signatures import signature_for, teacher_layout
from promptopt.synthesis.synthesize import Synthesis, synthesize_rows

ITEMS = 12


def documents(n: int = 4) -> list[SourceDocument]:
    """Return documents of one passage with 12 facts each; a rule can ask about every one of them."""
    return [
        SourceDocument(f"d{d}", (" ".join(f"Item {d}x{i} lies in room {d}{i:02}." for i in range(ITEMS)),))
        for d in range(n)
    ]


def write_by_rule(messages: Messages) -> str:
    """Answer as a decent teacher: the next fact that was not asked about; every third reply is a bad one."""
    prompt = messages[-1]["content"]
    facts = re.findall(r"Item (\d+x\d+) lies in room (\d+)\.", prompt)
    asked = set(re.findall(r"Where is Item (\d+x\d+)\?", prompt))
    item, room = next(fact for fact in [*facts, facts[0]] if fact[0] not in asked or fact == facts[-1])
    if "Ask for a reason" in prompt:
        return "I would rather not."
    if "easily overlooked" in prompt:
        return json.dumps({"question": f"Where can Item {item} be found?", "answer": "room 999"})
    return json.dumps({"question": f"Where is Item {item}?", "answer": f"room {room}"})


def config(**changes: object) -> SynthesisConfig:
    return SynthesisConfig.model_validate(
        {
            "name": "items",
            "task": "question_answer",
            "source": {"kind": "documents", "path": "unused"},
            "teacher": {"kind": "server", "model": "openai/unused"},
            "checks": {"near_duplicates": 1.0},
            "rows": 20,
            **changes,
        }
    )


def synthesis(folder: Path, lm: ScriptedLM, asked: SynthesisConfig, parallel: int = 1, n: int = 4) -> Synthesis:
    teacher = Teacher(
        lm,
        LayoutAdapter(teacher_layout(asked.language, constrained=False)),
        signature_for(asked.task, keywords_given="keywords" in asked.fields),
        folder / "attempts.jsonl",
        asked.max_tokens,
        asked.temperature,
    )
    checker = RowChecker(asked.task, asked.checks, asked.language)
    return synthesize_rows(asked, documents(n), teacher, checker, parallel=parallel)
