"""Layout: how a signature becomes chat text and text becomes fields again, as one frozen, serialisable value.

What lives here: the dimensions of a layout, their allowed values, their defaults, hashing and a one-line description.
It does not know how any of it is carried out (render, parse), what a signature looks like, or who searches over it.

Separating format from content, and treating format as something to search, follows FormatSpread (Sclar et al., 2023,
arXiv 2310.11324) and CFPO (arXiv 2502.04295); the default value is the fixed format of DSPy's ChatAdapter.
"""

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, field_validator, model_serializer

QueryPosition = Literal["declared", "before", "after", "both"]
FieldStyle = Literal["dspy", "xml", "markdown", "label", "json"]
InstructionPlace = Literal["system", "user_start", "user_end", "both"]
Descriptions = Literal["none", "names", "full"]
DemoPlacement = Literal["turns", "block"]
OutputStyle = Literal["dspy", "xml", "json", "label", "bare"]
SystemRole = Literal["native", "merged"]
Language = Literal["en", "ja"]


class Layout(BaseModel):
    """How one signature is written as chat messages and read back. `Layout()` is DSPy's ChatAdapter, word for word.

    Attributes:
        query_position: where the query fields stand among the inputs: as the signature declares them, before the
            context, after it, or on both sides of it.
        query_fields: which inputs are the query; None applies the rule of `signature.query_field_names`.
        field_style: delimiters of the input fields.
        instruction_place: where the instruction block (descriptions, structure, task) stands: in the system message,
            at the start or at the end of the last user message; "both" is the system message plus the task instruction
            once more at the end of the last user message.
        descriptions: what the block says about the fields: nothing, their names, or a list with descriptions.
        structure: whether the block shows a skeleton of the input and of the answer.
        demo_placement: demos as earlier chat turns, or as text at the end of the instruction block.
        output_style: delimiters of the answer. "bare" is the value alone.
        reminder: whether the last user message ends with one sentence on the answer's format.
        prefill: whether the answer's first delimiter is written for the model (no effect on "bare").
        reasoning: whether a `reasoning` field is asked for before the other outputs.
        system_role: a system message of its own, or its text in front of the first user message.
        language: of the scaffold, i.e. of every sentence that does not come from the signature or the data.
        constrained: whether the model is kept from writing anything but an answer in this format (see `grammar`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    query_position: QueryPosition = "declared"
    query_fields: tuple[str, ...] | None = None
    field_style: FieldStyle = "dspy"
    instruction_place: InstructionPlace = "system"
    descriptions: Descriptions = "full"
    structure: bool = True
    demo_placement: DemoPlacement = "turns"
    output_style: OutputStyle = "dspy"
    reminder: bool = True
    prefill: bool = False
    reasoning: bool = False
    system_role: SystemRole = "native"
    language: Language = "en"
    constrained: bool = False

    @field_validator("query_fields")
    @classmethod
    def _names_once(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (not value or len(set(value)) != len(value)):
            raise ValueError(
                f"query_fields is {list(value)}; allowed are one or more different input field names, "
                "or null to let promptopt choose the query by its name"
            )
        return value

    @model_serializer(mode="wrap")
    def _as_before(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Younger than the first stored candidates: where it says nothing new, their keys must stay what they are.
        values: dict[str, Any] = plain(self)
        if not self.constrained:
            values.pop("constrained", None)
        return values

    def key(self) -> str:
        """Return the sha256 hex digest of the canonical JSON: equal layouts, equal keys, on every machine."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()

    def describe(self) -> str:
        """Return one line that says how this layout differs from DSPy's ChatAdapter."""
        plain = Layout()
        changes = [
            f"{name}={_plain_text(getattr(self, name))}"
            for name in type(self).model_fields
            if getattr(self, name) != getattr(plain, name)
        ]
        return "dspy_chat" if not changes else "dspy_chat with " + ", ".join(changes)


def _plain_text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "+".join(value) if isinstance(value, tuple) else str(value)
