"""The weights stages: `finetune` and `export`. The only place, with evaluate's parity check, where both wings meet."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, JsonValue

from promptopt.evaluation.given import GivenInputs
from promptopt.evaluation.model_table import MeasuredModel
from promptopt.finetune.stages import finetune_stages
from promptopt.finetune.watch import TrainingMoment, TrainingWatch
from promptopt.lm.gguf_program import program_metadata
from promptopt.pipeline.context import RunContext
from promptopt.pipeline.deployables import MERGED, carried_program, drop_merged_weights, write_side_files
from promptopt.pipeline.prepare import read_split
from promptopt.pipeline.prompts import student_of
from promptopt.pipeline.quantizations import deployed_quantization, score_quantizations, wanted_quantizations
from promptopt.pipeline.recipe import recipe_of, recipe_settings
from promptopt.pipeline.searching import trained_folder, tuned_winner
from promptopt.pipeline.stage_runs import stage_runs
from promptopt.pipeline.training import training_inputs
from promptopt.records import (
    ChatMessage,
    DataRow,
    FinetuneResult,
    GgufModel,
    ParityReport,
    Record,
)
from promptopt.rundir import Stage, read_json, write_json


class ExportedModels(Record):
    """What the export stage left behind.

    Attributes:
        ggufs: the first of them f16; deployed: file name of the one that is measured on test and handed out.
        scores: of each file, on val; empty where `export.score_rows` is 0.
        parity: how the f16 file agrees with HF.
        lora: the LoRA weights as a GGUF for the base; None where llama.cpp cannot apply them.
        left_out: file name -> why it was not written.
    """

    ggufs: tuple[GgufModel, ...]
    deployed: str
    parity: ParityReport
    scores: tuple[MeasuredModel, ...] = ()
    lora: GgufModel | None = None
    left_out: dict[str, str] = Field(default_factory=dict)


def finetune_settings(context: RunContext) -> JsonValue:
    """Return what the stage `finetune` depends on."""
    return {"recipe": recipe_settings(context), "seed": context.config.seed, **training_inputs(context)}


def run_finetune(context: RunContext, stage: Stage) -> dict[str, JsonValue]:
    """Train LoRA weights, stage by stage; write finetune/lora/ and finetune/result.json."""
    runs = stage_runs(context, context.stages["distill"].path, stage.path)

    watches = [TrainingWatch() for _ in runs]

    def on_progress(number: int, moment: TrainingMoment, steps: int) -> None:
        stage_name = f"{number + 1}/{len(runs)} {runs[number].method.kind}, " if len(runs) > 1 else ""
        text, pace = watches[number].text(moment, steps), watches[number].pace(moment, steps)
        context.progress.step(moment.step, steps, stage_name + text, pace)

    context.close_lms()
    winner = tuned_winner(context)
    if winner is not None:
        result = _take_trained(trained_folder(context, winner) / "finetune", stage.path)
        return {"best_eval_loss": result.best_eval_loss, "steps": result.steps, "trial": winner.weights_of}
    result = finetune_stages(runs, context.hf_dir, stage.path, on_progress)
    for trained in result.stages or (result,):
        context.progress.say(trained.verdict)
    return {"best_eval_loss": result.best_eval_loss, "steps": result.steps}


def _take_trained(trained: Path, target: Path) -> FinetuneResult:
    """Copy the weights that the study trained; `result.json` comes last and says that they are whole."""
    result = read_json(trained / "result.json", FinetuneResult)
    shutil.rmtree(target / result.lora_dir, ignore_errors=True)
    shutil.copytree(trained / result.lora_dir, target / result.lora_dir)
    write_json(target / "result.json", result)
    return result


def export_settings(context: RunContext) -> JsonValue:
    """Return what the stage `export` depends on."""
    return {**context.config.export.model_dump(mode="json"), "deployed": context.config.lm.quantization}


def run_export(context: RunContext, stage: Stage) -> dict[str, JsonValue]:
    """Merge, convert, quantize, prove parity on the validation prompts; write export/*.gguf, Modelfile, models.json."""
    from promptopt.export.convert import convert_to_gguf
    from promptopt.export.merge import merge_lora
    from promptopt.export.quantize import quantize_gguf

    config = context.config
    tuned = context.stages["finetune"].path
    result = read_json(tuned / "result.json", FinetuneResult)
    context.progress.step(0, 4, "merging into the dequantised base")
    merged = merge_lora(
        context.hf_dir,
        tuned / result.lora_dir,
        stage.path / MERGED,
        recipe_of(context).base_quantization,
        trained_on=result.device,
    )
    context.progress.step(1, 4, "converting to GGUF")
    f16 = stage.path / "tuned-f16.gguf"
    ggufs = [convert_to_gguf(merged, f16, outtype="f16", metadata=program_metadata(carried_program(context)))]
    wanted = wanted_quantizations(context)
    for number, quantization in enumerate(wanted):
        context.progress.step(2, 4, f"quantizing {quantization} ({number + 1}/{len(wanted)})")
        ggufs.append(quantize_gguf(f16, stage.path / f"tuned-{quantization}.gguf", quantization))
    context.progress.step(3, 4, "comparing tokens with the Hugging Face model")
    prompts = prompts_of(context, read_split(context, "val"))
    parity = prove_parity(context, merged, f16, prompts, config.export.parity_prompts)
    scores = score_quantizations(context, stage, ggufs)
    deployed = f"tuned-{deployed_quantization(context, ggufs, scores)}.gguf"
    beside = write_side_files(context, f16, tuned / result.lora_dir, context.hf_dir, deployed)
    if not config.export.keep_merged:
        drop_merged_weights(merged)
    models = ExportedModels(
        ggufs=tuple(gguf.model_copy(update={"path": Path(gguf.path).name}) for gguf in ggufs),
        deployed=deployed,
        parity=parity,
        lora=beside.lora,
        left_out=beside.left_out,
        scores=scores,
    )
    write_json(stage.path / "models.json", models)
    return {"deployed": deployed, "greedy_equal": parity.greedy_equal, "greedy_prompts": parity.greedy_prompts}


def prove_parity(
    context: RunContext, merged: Path, gguf: Path, prompts: Sequence[tuple[ChatMessage, ...]], greedy_prompts: int
) -> ParityReport:
    """Return how llama.cpp on `gguf` agrees with the HF model `merged` on `prompts`.

    Raises:
        ExportError: a prompt's token ids differ; a model served on other tokens is another model.
    """
    from promptopt.export.parity import compare, hf_reference, require_parity

    reference = hf_reference(
        merged, prompts, max_new_tokens=context.config.export.parity_tokens, greedy_prompts=greedy_prompts
    )
    lm = context.lm(gguf)
    report = compare(
        reference,
        tokenize=lambda messages: lm.tokenize_messages([message.model_dump() for message in messages]),
        generate=lm.generate_tokens,
        quantization="f16",
    )
    require_parity(report)
    return report


def prompts_of(context: RunContext, rows: Sequence[DataRow]) -> list[tuple[ChatMessage, ...]]:
    """Return the prompts of the program's first predictor for `rows`, as the student is asked."""
    from promptopt.layout.dspy_adapter import signature_spec
    from promptopt.layout.render import render_messages

    student = student_of(context)
    program = student.apply(context.program.deepcopy())
    specs = {name: signature_spec(predictor.signature) for name, predictor in program.named_predictors()}
    given = GivenInputs(program)
    prompts = []
    for row in rows:
        name, inputs = given.of({field: row.fields[field] for field in context.config.data.inputs})
        demos = student.predictors[name].demos
        messages = render_messages(student.layout_of(name), specs[name], demos, inputs)
        prompts.append(tuple(ChatMessage.model_validate(message) for message in messages))
    return prompts
