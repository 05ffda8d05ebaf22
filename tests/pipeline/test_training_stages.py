"""The stages `distill` and `finetune` of an experiment that names its training stages, on a tiny model."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

from promptopt.candidate import Candidate, PredictorPrompt
from promptopt.config.experiment import ExperimentConfig
from promptopt.errors import ConfigError, DataError, ModelError
from promptopt.finetune.documents import read_documents
from promptopt.finetune.rows import read_rows
from promptopt.layout.spec import Layout
from promptopt.pipeline.context import RunContext
from promptopt.pipeline.prepare import data_settings, run_data
from promptopt.pipeline.progress import Silent
from promptopt.pipeline.prompts import distill_settings, run_distill
from promptopt.pipeline.recipe import recipe_of
from promptopt.pipeline.stage_runs import stage_runs
from promptopt.pipeline.training import check_training
from promptopt.pipeline.weights import finetune_settings, run_finetune
from promptopt.records import FinetuneResult
from promptopt.rundir import RunDir, read_json
from tests.finetune.tiny_models import COLOURS, THINGS, make_base, make_documents

TRAINING = [
    {"kind": "causal", "documents": "", "recipe": {"batch_size": 1}},
    {"kind": "labels", "where": {"answer": ["red", "blue"]}, "seed": 4},
    {"kind": "self_distill", "max_answer_tokens": 4, "rows": 8},
]


def make_examples(n: int, seed: int) -> list[dict[str, str]]:
    """Return documents that name a colour."""
    colours, things = COLOURS, THINGS
    return [
        {
            "document": f"{seed}-{row} the {things[row % 6]} is {colours[row % 4]}",
            "question": f"what colour is the {things[row % 6]}?",
            "answer": colours[row % 4],
        }
        for row in range(n)
    ]


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    documents = tmp_path / "documents"
    documents.mkdir()
    for row in make_documents(6):
        (documents / f"{row.id}.txt").write_text(row.text)
    return {
        "name": "stages",
        "program": "programs.document_qa:answer_from_document",
        "metric": "answer_f1",
        "model": {"kind": "local", "hf_dir": str(make_base(tmp_path / "model", context=512))},
        "data": {
            "source": {"kind": "python", "factory": "tests.pipeline.test_training_stages:make_examples", "n": 60},
            "fields": {"document": "document", "question": "question", "answer": "answer"},
            "inputs": ["document", "question"],
            "split": {"train": 48, "val": 6, "test": 6},
        },
        "search": {"weights": None},
        "distill": {"val_share": 0.3},
        "finetune": {
            "rank": 4, "epochs": 1, "batch_size": 4, "max_length": 512, "student_instructions": "none",
            "student_demos": 0, "watched_rows": 0,
        },
        "training": [{**TRAINING[0], "documents": str(documents)}, *TRAINING[1:]],
        "run_dir": str(tmp_path / "run"),
    }  # fmt: skip


def _prepared(config: dict[str, Any]) -> RunContext:
    """Return a run whose data is split and whose search has found a prompt of few words."""
    experiment = ExperimentConfig.model_validate(config)
    context = RunContext(experiment, RunDir(Path(str(experiment.run_dir))), Silent())
    run_data(context, context.open("data", data_settings(context), ()))
    prompts = {name: PredictorPrompt(instructions="name the colour") for name in context.untouched.predictors}
    found = Candidate(layout=Layout(output_style="bare"), predictors=prompts)
    found.save(context.open("search", None, ()).path / "candidate.json")
    return context


def test_every_training_stage_gets_its_rows_and_goes_on_from_the_one_before(config: dict[str, Any]) -> None:
    context = _prepared(config)
    distilled = context.open("distill", distill_settings(context), ("search",))
    outputs = run_distill(context, distilled)
    assert [stage["kind"] for stage in outputs["stages"]] == ["causal", "labels", "self_distill"]  # type: ignore[union-attr, index, call-overload]
    assert len(read_documents(distilled.path / "1-causal" / "train.jsonl")) == 5
    labels = read_rows(distilled.path / "2-labels" / "train.jsonl")
    assert {row.completion for row in labels} == {"red", "blue"}
    assert not any(row.teacher_prompt for row in labels)
    for row in read_rows(distilled.path / "3-self_distill" / "train.jsonl"):
        teacher, student = (
            "\n".join(message.content for message in prompt) for prompt in (row.teacher_prompt, row.prompt)
        )
        assert "name the colour" in teacher
        assert "name the colour" not in student
    trained = context.open("finetune", finetune_settings(context), ("distill",))
    run_finetune(context, trained)
    result = read_json(trained.path / "result.json", FinetuneResult)
    assert [stage.method for stage in result.stages] == ["causal", "labels", "self_distill"]
    assert (trained.path / result.lora_dir / "adapter_model.safetensors").is_file()


def test_gaps_in_the_recipe_are_filled_for_each_stage_and_only_answers_are_watched(config: dict[str, Any]) -> None:
    context = _prepared({**config, "finetune": {"rank": 4, "alpha": 8}})
    folder = context.open("distill", distill_settings(context), ("search",))
    run_distill(context, folder)
    causal, labels, distilled = stage_runs(context, folder.path, Path("finetune"))
    chosen = recipe_of(context)
    assert labels.recipe == chosen
    assert (chosen.rank, chosen.epochs, chosen.max_length) == (4, 5.0, 512)
    written = ("epochs", "batch_size", "max_length")
    assert [getattr(causal.recipe, name) for name in written] == [3.0, 1, 1024]
    assert causal.recipe.learning_rate == chosen.learning_rate
    assert [run.on_checkpoint is not None for run in (causal, labels, distilled)] == [False, True, True]


def test_other_documents_are_another_training(config: dict[str, Any]) -> None:
    context = _prepared(config)
    before = context.key(distill_settings(context), ())
    assert context.key(distill_settings(context), ()) == before
    (Path(config["training"][0]["documents"]) / "new.txt").write_text("one more")
    assert context.key(distill_settings(context), ()) != before


@pytest.mark.parametrize(
    ("stage", "error", "complaint"),
    [
        ({"kind": "causal", "documents": "nowhere"}, DataError, "nowhere"),
        ({"kind": "labels", "recipe": {"trainer_args": {"lr": 1}}}, ConfigError, "trainer_args.lr: neither"),
        ({"kind": "on_policy", "teacher": "nowhere"}, ModelError, "nowhere does not exist"),
    ],
)
def test_what_cannot_train_is_said_before_the_data_is_split(
    config: dict[str, Any], stage: dict[str, Any], error: type[Exception], complaint: str
) -> None:
    experiment = ExperimentConfig.model_validate({**config, "training": [stage]})
    with pytest.raises(error, match=complaint):
        check_training(RunContext(experiment, RunDir(Path(config["run_dir"])), Silent()))


def test_a_filter_that_admits_nothing_is_an_error(config: dict[str, Any]) -> None:
    context = _prepared({**config, "training": [{"kind": "labels", "where": {"answer": ["pink"]}}]})
    with pytest.raises(DataError, match=r"about 0 of the 48 rows .*pink"):
        run_distill(context, context.open("distill", distill_settings(context), ("search",)))
