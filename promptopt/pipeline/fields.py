"""Whether the mapped fields suit the program, the metric and the teacher: asked before anything is computed."""

import inspect

import dspy

from promptopt.config.training import TEACHER_OF, CausalStage, TrainingStage
from promptopt.deploy.gguf_programs import is_its_predictor
from promptopt.errors import ConfigError
from promptopt.pipeline.context import RunContext


def check_fields(context: RunContext) -> None:
    """Pass if the mapped fields suit the program, the metric and the teacher: said before anything is computed.

    Raises:
        ConfigError: the program takes other inputs, or a gold answer that is to be taught is not mapped.
    """
    config = context.config
    taken, named = _inputs_of(context.program)
    unknown = [name for name in config.data.inputs if named and name not in taken]
    missing = [name for name, required in taken.items() if required and name not in config.data.inputs]
    if unknown or missing:
        raise ConfigError(
            f"data.inputs do not fit the program {config.program!r}: inputs it does not have: {unknown}; inputs that "
            f"are not mapped: {missing}. It takes {list(taken)}."
        )
    gold = any(TEACHER_OF.get(stage.kind, config.distill.teacher) == "gold" for stage in _on_rows(context))
    if gold and context.source.hf_dir is not None:
        _check_gold(context)
    lacking = context.metric.lacking(config.data.fields)
    if lacking:
        raise ConfigError(
            f"The metric {context.metric.name!r} needs the field(s) {lacking}; map them under data.fields."
        )


def _on_rows(context: RunContext) -> list[TrainingStage]:
    return [stage for stage in context.config.training_stages if not isinstance(stage, CausalStage)]


def _inputs_of(program: dspy.Module) -> tuple[dict[str, bool], bool]:
    """Return the inputs a program takes (name -> whether it is required), and whether it takes no others."""
    if is_its_predictor(program):
        return dict.fromkeys(program.predictors()[0].signature.input_fields, True), True
    parameters = [p for p in inspect.signature(program.forward).parameters.values() if p.name != "self"]
    named = all(p.kind is not p.VAR_KEYWORD for p in parameters)
    return {
        p.name: p.default is p.empty for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }, named


def _check_gold(context: RunContext) -> None:
    predictors = context.program.named_predictors()
    if len(predictors) != 1:
        raise ConfigError(
            f"distill.teacher `gold` needs a program of one predictor, not of {len(predictors)}. "
            "Use `teacher: candidate`."
        )
    lacking = [name for name in predictors[0][1].signature.output_fields if name not in context.config.data.fields]
    if lacking:
        raise ConfigError(
            f"distill.teacher `gold` teaches the data's answers, and the output field(s) {lacking} are not mapped "
            "under data.fields. Map them, use dspy.Predict where the data has no reasoning, or `teacher: candidate`."
        )
