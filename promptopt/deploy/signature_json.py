"""dspy.Signature <-> SignatureRecord: a signature as plain values that a file can carry, and the signature again.

A field is carried only if the type made from its JSON schema has that very schema and DSPy's name of the original, so
that answers are read into the same kind of value. The words of prompts are carried beside it: another version of DSPy,
or a type that came back by another road, does not change a prompt.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import dspy
from dspy.adapters.types.base_type import Type
from dspy.adapters.utils import get_annotation_name
from pydantic import JsonValue, TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo

from promptopt.deploy.json_types import type_of_schema
from promptopt.errors import ConfigError
from promptopt.layout.dspy_adapter import keep_spec, signature_spec
from promptopt.layout.signature import FieldSpec, SignatureSpec
from promptopt.records import FieldRecord, SignatureRecord

_DSPY_TYPES: Mapping[str, Any] = {"History": dspy.History, "Reasoning": dspy.Reasoning}
_DSPY_KEY = "x-dspy-type"
_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)


def signature_record(signature: type[dspy.Signature]) -> SignatureRecord:
    """Return `signature` as plain values.

    Raises:
        ConfigError: a field's type cannot be carried; says which and why.
    """
    spec = signature_spec(signature)
    inputs, outputs = signature.input_fields, signature.output_fields
    return SignatureRecord(
        name=signature.__name__,
        instructions=signature.instructions,
        fields=tuple(
            _field_record(info, words, is_input)
            for fields, all_words, is_input in ((inputs, spec.inputs, True), (outputs, spec.outputs, False))
            for info, words in zip(fields.values(), all_words, strict=True)
        ),
    )


def signature_of_record(record: SignatureRecord) -> type[dspy.Signature]:
    """Return the signature that `record` describes; prompts word it as they worded the original.

    Raises:
        ConfigError: a field's type cannot be made.
    """
    fields = {field.name: (_field_type(field), _field_info(field)) for field in record.fields}
    try:
        made: type[dspy.Signature] = dspy.Signature(fields, record.instructions, record.name)
    except (ValueError, TypeError, PydanticUserError) as error:
        raise ConfigError(f"The carried signature {record.name!r} cannot be made: {_line(error)}.") from error
    word_as_recorded(made, record)
    return made


def word_as_recorded(signature: type[dspy.Signature], record: SignatureRecord) -> None:
    """Make prompts of `signature`, whose instructions may have changed since, word its fields as `record` does."""
    keep_spec(signature, replace(recorded_spec(record), instructions=signature.instructions))


def recorded_spec(record: SignatureRecord) -> SignatureSpec:
    """Return what prompts are made of."""
    words = {
        kind: tuple(_words(field) for field in record.fields if field.kind == kind) for kind in ("input", "output")
    }
    return SignatureSpec(record.instructions, words["input"], words["output"])


def _words(field: FieldRecord) -> FieldSpec:
    return FieldSpec(
        field.name, field.shown_desc, field.type_name, field.constraints, field.note, field.type_hint, field.optional
    )


def _field_record(info: FieldInfo, words: FieldSpec, is_input: bool) -> FieldRecord:
    extra = info.json_schema_extra
    assert isinstance(extra, dict)
    desc = str(extra["desc"])
    try:
        schema = _schema(info)
        required = info.is_required()
        default = None if required else _ANYTHING.dump_python(info.get_default(call_default_factory=True), mode="json")
        record = FieldRecord(
            name=words.name,
            kind="input" if is_input else "output",
            desc="" if desc == f"${{{words.name}}}" else desc,
            value_schema=schema,
            type_name=words.type_name,
            constraints=words.constraints,
            note=words.note,
            type_hint=words.type_hint,
            shown_desc=words.desc,
            optional=words.optional,
            required=required,
            default=default,
        )
        _field_type(record)
    except (ValueError, TypeError, PydanticUserError) as error:
        kind = "input" if is_input else "output"
        raise ConfigError(
            f"The {kind} {words.name!r} has the type {words.type_name}, which a file cannot carry: {_line(error)}"
        ) from error
    return record


def _schema(info: FieldInfo) -> dict[str, JsonValue]:
    annotation = info.annotation
    for name, known in _DSPY_TYPES.items():
        if annotation is known:
            return {_DSPY_KEY: name}
    if Type.extract_custom_type_from_annotation(annotation):
        raise ConfigError("it is one of DSPy's own types")
    full: Any = Annotated[annotation, *info.metadata] if info.metadata else annotation
    schema: dict[str, JsonValue] = TypeAdapter(full).json_schema()
    return schema


def _field_type(field: FieldRecord) -> Any:
    """Return the field's type.

    Raises:
        ConfigError: no type has this schema and this name.
    """
    named = field.value_schema.get(_DSPY_KEY)
    if named is not None:
        if named not in _DSPY_TYPES:
            raise ConfigError(f"DSPy's type {named!r} is not carried; allowed are {', '.join(_DSPY_TYPES)}")
        return _DSPY_TYPES[str(named)]
    for bare in (False, True):
        try:
            made = type_of_schema(field.value_schema, bare=bare)
            same = TypeAdapter(made).json_schema() == field.value_schema
        except Exception as error:
            # A file may hold any schema, and pydantic has many ways to say no.
            raise ConfigError(_line(error)) from error
        if same and get_annotation_name(_without_limits(made)) == field.type_name:
            return made
    raise ConfigError("its JSON schema does not say everything about it")


def _without_limits(made: Any) -> Any:
    return made.__origin__ if hasattr(made, "__metadata__") else made


def _field_info(field: FieldRecord) -> FieldInfo:
    # DSPy reads a description that is there, even an empty one, as the user's.
    given: dict[str, Any] = {"desc": field.desc} if field.desc else {}
    if not field.required:
        made = _field_type(field)
        given["default"] = field.default if field.default is None else TypeAdapter(made).validate_python(field.default)
    info: FieldInfo = dspy.InputField(**given) if field.kind == "input" else dspy.OutputField(**given)
    return info


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
