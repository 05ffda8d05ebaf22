"""Which file is deployed: by name, or the smallest whose measured loss is within the margin."""

from pathlib import Path

import pytest

from promptopt.config.experiment import ExperimentConfig
from promptopt.config.load import load_experiment
from promptopt.errors import ConfigError
from promptopt.evaluation.model_table import MeasuredModel
from promptopt.evaluation.statistics import PairedDifference
from promptopt.pipeline.context import RunContext
from promptopt.pipeline.progress import Silent
from promptopt.pipeline.quantizations import smallest_good, wanted_quantizations
from promptopt.pipeline.run import run_experiment
from promptopt.pipeline.weights import ExportedModels
from promptopt.records import EvaluationSummary, GgufModel, Quantization
from promptopt.rundir import RunDir, read_json

REPOSITORY = Path(__file__).parents[2]
SIZES: dict[Quantization, int] = {"f16": 160, "q8_0": 85, "q6_k": 66, "q4_k_m": 48}


def demo(**export: object) -> ExperimentConfig:
    config = load_experiment(REPOSITORY / "experiments" / "demo" / "smoke.yaml")
    values = config.model_dump(mode="json")
    return ExperimentConfig.model_validate({**values, "export": {**values["export"], **export}})


def score(quantization: str, mean: float, low: float, high: float) -> MeasuredModel:
    summary = EvaluationSummary(
        name=quantization, title=quantization, split="val", n=50, mean=0.5, ci_low=0.4, ci_high=0.6, parse_failures=0,
        unscored=0, prompt_tokens=1, completion_tokens=1, latency_s=1,
    )  # fmt: skip
    difference = None if quantization == "f16" else PairedDifference(mean, low, high, 0.5, 50)
    return MeasuredModel(
        summary=summary, file="", sha256="", quantization=quantization, size_bytes=1, prompt="", difference=difference
    )


@pytest.mark.parametrize(
    ("losses", "margin", "chosen"),
    [
        ({"q8_0": (0.0, -0.01, 0.01), "q6_k": (-0.008, -0.03, 0.01), "q4_k_m": (-0.04, -0.09, 0.01)}, 0.01, "q6_k"),
        ({"q8_0": (0.0, -0.01, 0.01), "q6_k": (-0.02, -0.05, 0.01), "q4_k_m": (0.004, -0.02, 0.03)}, 0.01, "q4_k_m"),
        ({"q8_0": (-0.1, -0.2, 0.0), "q6_k": (-0.1, -0.2, 0.0), "q4_k_m": (-0.1, -0.2, 0.0)}, 0.01, "f16"),
        # A small loss that is shown to be real is a loss, and a wide margin admits it.
        ({"q8_0": (0.0, -0.01, 0.01), "q6_k": (-0.009, -0.01, -0.008), "q4_k_m": (-0.1, -0.2, 0.1)}, 0.01, "q8_0"),
        ({"q8_0": (0.0, -0.01, 0.01), "q6_k": (0.0, -0.01, 0.01), "q4_k_m": (-0.1, -0.2, 0.1)}, 0.2, "q4_k_m"),
    ],
)
def test_the_smallest_file_within_the_margin_is_chosen(
    losses: dict[str, tuple[float, float, float]], margin: float, chosen: str
) -> None:
    ggufs = [GgufModel(path=name, quantization=name, sha256="", size_bytes=size) for name, size in SIZES.items()]
    scores = [score("f16", 0, 0, 0), *(score(name, *loss) for name, loss in losses.items())]
    assert smallest_good(ggufs, scores, margin) == chosen


def test_a_named_file_is_made_even_where_it_is_not_listed(tmp_path: Path) -> None:
    def wanted(**export: object) -> list[Quantization]:
        return wanted_quantizations(RunContext(demo(**export), RunDir(tmp_path), Silent()))

    assert wanted() == ["q8_0"]
    assert wanted(deploy="q6_k", quantizations=["q4_0", "f16"]) == ["q6_k", "q4_0"]
    assert wanted(deploy="auto", quantizations=["q4_0"]) == ["q8_0", "q4_0"]
    with pytest.raises(ValueError, match="score_rows is 0"):
        demo(deploy="auto", score_rows=0)


def test_a_deployed_type_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    text = (REPOSITORY / "experiments" / "demo" / "smoke.yaml").read_text(encoding="utf-8")
    (tmp_path / "e.yaml").write_text(text.replace("export: {", "export: {deploy: q9_0, "))
    with pytest.raises(ConfigError, match=r"export\.deploy"):
        load_experiment(tmp_path / "e.yaml")


@pytest.mark.slow
def test_a_run_scores_every_file_and_measures_the_chosen_one_on_test(tmp_path: Path) -> None:
    config = demo(deploy="auto", quantizations=["q8_0", "q4_0"], max_loss=1.0, score_rows=6)
    search = config.search.model_copy(update={"trials": 1, "weights": None})
    lm = config.lm.model_copy(update={"n_threads": 1})
    run = run_experiment(config.model_copy(update={"run_dir": str(tmp_path), "search": search, "lm": lm}))
    exported = read_json(run / "export" / "models.json", ExportedModels)
    assert [model.quantization for model in exported.scores] == ["f16", "q8_0", "q4_0"]
    assert [model.summary.n for model in exported.scores] == [6, 6, 6]
    assert all(model.difference is not None for model in exported.scores[1:])
    assert exported.deployed == "tuned-q4_0.gguf"
    report = (run / "report.md").read_text(encoding="utf-8")
    assert "fine-tuned GGUF (q4\\_0)" in report
    assert "What each quantization scores" in report
    assert "Deployed: `tuned-q4_0.gguf`" in report
