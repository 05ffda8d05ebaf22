"""The one place where layouts meet DSPy: signatures become SignatureSpecs, and LayoutAdapter executes a Layout.

What lives here: translation between DSPy's classes and the plain values of this package, and nothing else; no text is
composed here. It does not know LMs, candidates or metrics.
"""

import enum
import functools
import json
import weakref
from collections.abc import Iterable, Mapping
from typing import Any, cast

import dspy
from dspy.adapters.types.base_type import CUSTOM_TYPE_START_IDENTIFIER, Type
from dspy.adapters.types.tool import ToolCalls
from dspy.adapters.utils import (
    annotation_allows_none,
    apply_output_field_defaults,
    get_annotation_name,
    parse_value,
    serialize_for_json,
    translate_field_type,
)
from dspy.utils.exceptions import AdapterParseError
from pydantic import JsonValue
from pydantic.fields import FieldInfo

from promptopt.errors import ConfigError, ParseError
from promptopt.layout.answer_shapes import answer_shapes
from promptopt.layout.block import descriptions, instruction_block, reminder, structure, task_description
from promptopt.layout.fields import value_text
from promptopt.layout.grammar import answer_grammar
from promptopt.layout.parse import parse_completion
from promptopt.layout.render import (
    Message,
    answer_text,
    inputs_text,
    prefill_text,
    render_completion,
    render_messages,
)
from promptopt.layout.signature import REASONING, FieldSpec, SignatureSpec, with_reasoning
from promptopt.layout.spec import Layout


def signature_spec(signature: type[dspy.Signature]) -> SignatureSpec:
    """Return what rendering and parsing need to know of `signature`, worded as ChatAdapter words it.

    Kept per class, because every call asks several times; of a class only the instructions can be set anew.
    """
    known = _SPECS.get(signature)
    if known is None or known.instructions != signature.instructions:
        known = _SPECS[signature] = _read_signature(signature)
    return known


def keep_spec(signature: type[dspy.Signature], spec: SignatureSpec) -> None:
    """Make prompts of the class `signature` word it as `spec` does, until its instructions are set anew."""
    _SPECS[signature] = spec


_SPECS: "weakref.WeakKeyDictionary[type[dspy.Signature], SignatureSpec]" = weakref.WeakKeyDictionary()


_OWN_LAYOUTS: "weakref.WeakKeyDictionary[type[dspy.Signature], Layout]" = weakref.WeakKeyDictionary()


def note_layout(signature: type[dspy.Signature], layout: Layout) -> None:
    """Remember that the predictor of `signature` runs under `layout`: DSPy hands on signatures, not predictors."""
    _OWN_LAYOUTS[signature] = layout


def _read_signature(signature: type[dspy.Signature]) -> SignatureSpec:
    return SignatureSpec(
        instructions=signature.instructions,
        inputs=tuple(_field_spec(name, info) for name, info in signature.input_fields.items()),
        outputs=tuple(_field_spec(name, info) for name, info in signature.output_fields.items()),
    )


@functools.lru_cache(maxsize=256)
def grammar_of(layout: Layout, signature: type[dspy.Signature]) -> str:
    """Return the GBNF grammar of the completions that `layout` asks for; kept, because calls repeat.

    Raises:
        ConfigError: an output's type cannot be expressed.
    """
    return answer_grammar(layout, signature_spec(signature), answer_shapes(signature, layout.output_style))


class LayoutAdapter(dspy.ChatAdapter):
    """Executes a Layout inside DSPy: `dspy.configure(adapter=LayoutAdapter(layout))`.

    A ChatAdapter because `dspy.BootstrapFinetune` accepts no other class. Unlike its parent it calls the LM exactly
    once: a completion that does not parse raises, it is never asked for again in another format. Fields are always
    written and read as text; no provider feature (native tools, native reasoning) takes one over.

    With `layout.constrained` the LM gets the answer's grammar as the call keyword `grammar`; an LM that does not list
    it in `supported_params` is refused before anything runs.

    With `layout.prefill` the messages end with an assistant message, which the LM continues: `parse` puts the prefill
    in front of the completion, always and exactly once. An LM that repeats the prefill breaks that contract.
    """

    def __init__(self, layout: Layout | None = None, callbacks: list[Any] | None = None) -> None:
        """Take the layout to execute; None is `Layout()`, DSPy's own."""
        super().__init__(callbacks=callbacks, use_native_function_calling=False, use_json_adapter_fallback=False)
        self.layout = Layout() if layout is None else layout
        # The parent takes an empty list for "the default types".
        self.native_response_types: list[type] = []

    def __repr__(self) -> str:
        """Name the layout."""
        return f"{type(self).__name__}({self.layout.describe()})"

    def format(
        self, signature: type[dspy.Signature], demos: list[dict[str, Any]], inputs: dict[str, Any]
    ) -> list[Message]:
        """Return the prompt as chat messages; a `dspy.History` input becomes turns before the last user message.

        Raises:
            ConfigError: the layout's query_fields do not fit the signature, or a value is not text (e.g. an image).
        """
        spec = signature_spec(signature)
        values = dict(inputs)
        history: list[Message] = []
        history_name = self._get_history_field_name(signature)
        if history_name:
            history = self.format_conversation_history(signature.delete(history_name), history_name, values)
            values.pop(history_name, None)
        shown = [_json_values(with_reasoning(self.layout, spec), demo) for demo in demos]
        messages = render_messages(self.layout, spec, shown, _json_values(spec, values), history)
        if any(CUSTOM_TYPE_START_IDENTIFIER in message["content"] for message in messages):
            raise ConfigError(
                f"An input or demo of {', '.join(signature.input_fields)} is not text (an image, audio or a file). "
                "Layouts render text for text models: pass the text itself, or use dspy.ChatAdapter for this predictor."
            )
        return messages

    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        """Return output name -> typed value; with `layout.reasoning` also `reasoning` (None if the answer has none).

        Args:
            signature: gives the outputs' types and defaults.
            completion: what the LM wrote; the prefill is put in front of it.

        Raises:
            AdapterParseError: a field is missing, or its text does not fit its type.
        """
        spec = signature_spec(signature)
        try:
            found = parse_completion(self.layout, spec, prefill_text(self.layout, spec) + completion)
        except ParseError as error:
            raise self._parse_error(signature, completion, str(error)) from error
        values: dict[str, Any] = {}
        for name, info in signature.output_fields.items():
            if name in found:
                values[name] = self._typed(signature, completion, name, info, found[name])
        values = apply_output_field_defaults(signature, values)
        return values if self._full_spec(signature) == spec else {REASONING: found.get(REASONING), **values}

    def format_finetune_data(
        self,
        signature: type[dspy.Signature],
        demos: list[dict[str, Any]],
        inputs: dict[str, Any],
        outputs: dict[str, Any],
    ) -> dict[str, Any]:
        """Return {"messages": prompt and answer}; the answer is one message, which starts with the prefill.

        Where the layout has a prefill, {"prefill": text} beside it says how much of the answer is given, not learnt.
        A signature whose predictor carries a layout of its own is written in that one: so it is served.

        Raises:
            ConfigError: as `format`.
            DataError: `outputs` lacks a field that the answer cannot do without.
        """
        own = _OWN_LAYOUTS.get(signature, self.layout)
        if own != self.layout:
            return LayoutAdapter(own).format_finetune_data(signature, demos, inputs, outputs)
        spec = signature_spec(signature)
        messages = self.format(signature, demos, inputs)
        prefill = prefill_text(self.layout, spec)
        if prefill:
            messages = messages[:-1]
        answer = render_completion(self.layout, spec, _json_values(with_reasoning(self.layout, spec), outputs))
        row: dict[str, Any] = {"messages": [*messages, {"role": "assistant", "content": answer}]}
        return {**row, "prefill": prefill} if prefill else row

    def format_user_message_content(
        self,
        signature: type[dspy.Signature],
        inputs: dict[str, Any],
        prefix: str = "",
        suffix: str = "",
        main_request: bool = False,
    ) -> str:
        """Return the text of one user turn, without the instruction block. DSPy calls it for each turn of a History."""
        spec = signature_spec(signature)
        parts = [prefix, inputs_text(self.layout, spec, _json_values(spec, inputs))]
        if main_request and self.layout.reminder:
            parts.append(reminder(self.layout, with_reasoning(self.layout, spec)))
        return "\n\n".join([*parts, suffix]).strip()

    def format_assistant_message_content(
        self, signature: type[dspy.Signature], outputs: dict[str, Any], missing_field_message: str | None = None
    ) -> str:
        """Return the text of one assistant turn; missing outputs are named in the "dspy" style, else left out."""
        spec = with_reasoning(self.layout, signature_spec(signature))
        missing = str(missing_field_message) if self.layout.output_style == "dspy" else None
        return answer_text(self.layout, spec, _json_values(spec, outputs), missing)

    def format_system_message(self, signature: type[dspy.Signature]) -> str:
        """Return the instruction block, wherever the layout places it."""
        return instruction_block(self.layout, self._full_spec(signature))

    def format_field_description(self, signature: type[dspy.Signature]) -> str:
        """Return the instruction block's part on the fields."""
        return descriptions(self.layout, self._full_spec(signature))

    def format_field_structure(self, signature: type[dspy.Signature]) -> str:
        """Return the instruction block's skeleton of input and answer."""
        return structure(self.layout, self._full_spec(signature))

    def format_task_description(self, signature: type[dspy.Signature]) -> str:
        """Return the instruction block's part on the task."""
        return task_description(self.layout, self._full_spec(signature))

    def user_message_output_requirements(self, signature: type[dspy.Signature]) -> str:
        """Return the reminder of the answer's format."""
        return reminder(self.layout, self._full_spec(signature))

    def _call_preprocess(
        self, lm: dspy.LM, lm_kwargs: dict[str, Any], signature: type[dspy.Signature], inputs: dict[str, Any]
    ) -> type[dspy.Signature]:
        processed: type[dspy.Signature] = super()._call_preprocess(lm, lm_kwargs, signature, inputs)
        if self.layout.constrained:
            _refuse_unconstrained(lm, lm_kwargs)
            lm_kwargs["grammar"] = grammar_of(self.layout, cast(Any, processed))
        return processed

    def _call_postprocess(
        self,
        processed_signature: type[dspy.Signature],
        original_signature: type[dspy.Signature],
        outputs: list[dict[str, Any] | str],
        lm: dspy.LM,
        lm_kwargs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        # The parent drops what is no field of the signature; the layout's reasoning is wanted in rollouts and demos.
        if self._full_spec(original_signature) != signature_spec(original_signature):
            original_signature = original_signature.prepend(REASONING, dspy.OutputField(default=None), str)
        values: list[dict[str, Any]] = super()._call_postprocess(
            processed_signature, original_signature, outputs, lm, lm_kwargs
        )
        return values

    def _full_spec(self, signature: type[dspy.Signature]) -> SignatureSpec:
        return with_reasoning(self.layout, signature_spec(signature))

    def _typed(
        self, signature: type[dspy.Signature], completion: str, name: str, info: FieldInfo, value: JsonValue
    ) -> Any:
        try:
            if info.annotation is str:
                return value_text(FieldSpec(name, type_name="Any"), value)
            return parse_value(value, info.annotation)
        except ValueError as error:
            problem = f"Field {name!r} has the value {value!r}, which is no {get_annotation_name(info.annotation)}: "
            raise self._parse_error(signature, completion, problem + str(error)) from error

    def _parse_error(self, signature: type[dspy.Signature], completion: str, problem: str) -> AdapterParseError:
        return AdapterParseError(
            adapter_name=type(self).__name__, signature=signature, lm_response=completion, message=problem
        )


def _refuse_unconstrained(lm: dspy.LM, lm_kwargs: Mapping[str, Any]) -> None:
    """Raise ConfigError where the layout's grammar would be ignored, or would replace another one."""
    # An engine that is only named is one of DSPy's own; none of them carries a grammar, and asking them takes a while.
    if isinstance(getattr(lm, "engine", None), str) or "grammar" not in getattr(lm, "supported_params", ()):
        raise ConfigError(
            f"The layout has constrained=True, and the LM {lm.model!r} cannot constrain its output: it does not list "
            "'grammar' among its supported_params. Use promptopt.LlamaCpp, or a layout with constrained=False."
        )
    if lm_kwargs.get("grammar") is not None:
        raise ConfigError(
            "The layout has constrained=True, and the call brings a grammar of its own; allowed is one of them. "
            "Leave out the call's grammar, or use a layout with constrained=False."
        )


def _field_spec(name: str, info: FieldInfo) -> FieldSpec:
    extra = info.json_schema_extra
    assert isinstance(extra, dict)
    desc = "" if extra["desc"] == f"${{{name}}}" else str(extra["desc"])
    for custom in Type.extract_custom_type_from_annotation(info.rebuild_annotation()):
        if custom.description():
            desc += f"\n    Type description of {get_annotation_name(custom)}: {custom.description()}"
    return FieldSpec(
        name=name,
        desc=desc,
        type_name=get_annotation_name(info.annotation),
        constraints=str(extra.get("constraints") or ""),
        note=translate_field_type(name, info).removeprefix(f"{{{name}}}"),
        type_hint=_type_hint(info) if extra["__dspy_field_type"] == "output" else "",
        optional=not info.is_required() or annotation_allows_none(info.annotation),
    )


def _type_hint(info: FieldInfo) -> str:
    # ChatAdapter.user_message_output_requirements, which has it in an inner function.
    if info.annotation is ToolCalls:
        return ' (must be a JSON object like {"tool_calls": [{"name": "...", "args": {...}}]})'
    if info.annotation is str:
        return ""
    return f" (must be formatted as a valid Python {get_annotation_name(info.annotation)})"


def _json_values(spec: SignatureSpec, values: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Return the fields of `spec` that `values` (a dict or a dspy.Example) has, as plain JSON values."""
    fields: Iterable[FieldSpec] = (*spec.inputs, *spec.outputs)
    return {field.name: _json_value(field, values[field.name]) for field in fields if field.name in values}


def _json_value(field: FieldSpec, value: Any) -> JsonValue:
    if isinstance(value, str) and not isinstance(value, enum.Enum):
        return value  # By far the most frequent case, and DSPy would build a type adapter for it.
    plain: JsonValue = serialize_for_json(value)
    if field.type_name == "str" and isinstance(plain, list) and not isinstance(value, list):
        # DSPy numbers the items of a list in a str field, but not those of a tuple.
        return json.dumps(plain, ensure_ascii=False)
    return plain
