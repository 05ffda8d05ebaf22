"""The joint study as a DSPy optimizer, on the embedded model: real training, real LoRA weights, real GGUF."""

from pathlib import Path

import dspy
import pytest

import promptopt as po
from experiments.demo.generate import generate
from programs.document_qa import answer_from_document
from promptopt.config.experiment import DistillConfig, RacingConfig
from promptopt.config.joint import HalvingConfig, NumberRange, WeightsSearch
from promptopt.errors import ConfigError
from promptopt.evaluation.evaluate import Evaluator, evaluate_rows
from promptopt.lm.scripted import ScriptedLM
from promptopt.metrics.plain import as_metric
from promptopt.pipeline.models import starter_gguf
from promptopt.records import TrialRecord
from promptopt.rundir import read_jsonl
from promptopt.starter.locate import starter_dir
from promptopt.study.optimize import _rows

INPUTS = ("document", "question")
EXAMPLES = [dspy.Example(**row).with_inputs(*INPUTS) for row in generate(90, 11)]
TRAIN, VAL = EXAMPLES[:70], EXAMPLES[70:]
CONFIG = po.SearchConfig(
    layout={"query_position": ("after",), "output_style": ("label",), "field_style": ("label",)},
    demo_sets=0,
    racing=RacingConfig(min_examples=14, block=4),
    weights=WeightsSearch(
        trials=3,
        winners=1,
        after=1,
        recipe={"learning_rate": NumberRange(low=1e-4, high=4e-3, log=True), "student_instructions": ("full", "none")},
        halving=HalvingConfig(rungs=1, rows=8, keep=0.3),
    ),
)
RECIPE = po.TrainingRecipe(rank=8, alpha=16, learning_rate=2e-3, epochs=2, batch_size=8)


@pytest.fixture(scope="module")
def lm() -> po.LlamaCpp:
    return po.LlamaCpp(starter_gguf(), n_ctx=1024, max_tokens=24, batch_invariant=True)


def optimizer(lm: dspy.BaseLM, folder: Path | None) -> po.JointOptimizer:
    return po.JointOptimizer(
        po.metrics.answer_f1, lm=lm, hf_dir=starter_dir(), folder=folder, trials=3, config=CONFIG, recipe=RECIPE,
        distill=DistillConfig(val_share=0.2),
    )  # fmt: skip


@pytest.mark.slow
def test_one_study_searches_prompts_and_weights_and_returns_what_scored_best(lm: po.LlamaCpp, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in starter_dir().iterdir()}
    joint = optimizer(lm, tmp_path)
    program = answer_from_document()
    compiled = joint.compile(program, trainset=TRAIN, valset=VAL)
    result = joint.result
    assert result is not None
    assert result.tuned is not None
    kinds = [(trial.kind, trial.weights_of) for trial in result.trials]
    assert kinds[:4] == [("frozen", None)] * 3 + [("tuned", 3)]
    assert kinds[-1][0] == "tuned"
    assert kinds[-1][1] in (3, 4, 5)
    trained = [trial for trial in result.trials if trial.weights_of == trial.number]
    assert all(trial.train_steps > 0 and trial.train_rows > 30 for trial in trained)
    assert read_jsonl(tmp_path / "search" / "trials.jsonl", TrialRecord) == list(result.trials)

    # What is handed out scores what the study says: the LoRA GGUF on the quantized base, under the student's prompt.
    rows = _rows(VAL, INPUTS)
    tuned = lm.with_lora(result.tuned.lora)
    evaluator = Evaluator(program, result.tuned.candidate, tuned, as_metric(po.metrics.answer_f1), INPUTS)
    scores = [record.score or 0.0 for record in evaluate_rows(evaluator, rows)]
    assert sum(scores) / len(scores) == pytest.approx(result.tuned.score)
    wins = result.tuned.score > result.best_score
    answering = compiled.named_predictors()[0][1].lm
    assert (answering.lora != ()) == wins
    assert program.dump_state() == answer_from_document().dump_state()
    assert {path.name: path.read_bytes() for path in starter_dir().iterdir()} == before
    assert (result.tuned.lora_dir / "adapter_model.safetensors").is_file()

    again = optimizer(lm, tmp_path)
    again.compile(program, trainset=TRAIN, valset=VAL)
    assert again.result == result


def test_weights_need_a_folder_and_a_local_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give `folder`"):
        optimizer(ScriptedLM(lambda messages: "x"), None).compile(
            answer_from_document(), trainset=TRAIN[:5], valset=VAL[:5]
        )
    with pytest.raises(ConfigError, match="cannot take LoRA weights"):
        optimizer(ScriptedLM(lambda messages: "Answer: x"), tmp_path).compile(
            answer_from_document(), trainset=TRAIN, valset=VAL[:5]
        )


def test_without_a_model_folder_it_optimizes_the_prompt_alone_and_splits_trainset_itself() -> None:
    joint = po.JointOptimizer(po.metrics.answer_f1, lm=ScriptedLM(lambda messages: "nothing"), trials=2, config=CONFIG)
    compiled = joint.compile(dspy.Predict("document, question -> answer"), trainset=EXAMPLES[:20])
    assert joint.result is not None
    assert joint.result.tuned is None
    assert len(joint.result.trials) == 2
    assert joint.result.trials[0].examples == 16
    assert compiled.layout == joint.result.best.layout
    with pytest.raises(ConfigError, match="not \\['eval_kwargs'\\]"):
        joint.compile(dspy.Predict("document, question -> answer"), trainset=EXAMPLES, eval_kwargs=1)
