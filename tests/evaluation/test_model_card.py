"""The model card: what a stranger must know, and nothing of this machine."""

import yaml

from promptopt.evaluation.model_card import render_model_card
from promptopt.evaluation.report_data import DataOverview, ModelCardData, ReportData, RunRecord
from promptopt.records import EvaluationSummary, FinetuneResult, GgufModel, ParityReport

SUMMARY = EvaluationSummary(
    name="tuned_gguf", title="fine-tuned GGUF (q8_0)", split="test", n=200, mean=0.5, ci_low=0.4, ci_high=0.6,
    parse_failures=1, unscored=0, prompt_tokens=10, completion_tokens=2, latency_s=0.1,
)  # fmt: skip
PARITY = ParityReport(
    prompts=9, token_ids_equal=9, greedy_prompts=4, greedy_equal=3, mean_agreed_tokens=7.0, max_new_tokens=8,
    quantization="f16",
)  # fmt: skip
RESULT = FinetuneResult(
    lora_dir="lora", base_model="/models/secret/base", base_quantization="nf4", best_step=3, best_eval_loss=0.25,
    steps=3, epochs=1.0, train_rows=45, val_rows=3, trained_tokens=99, trainable_parameters=1234, wall_s=1.0,
    device="cpu", stopped_early=False, history=(),
)  # fmt: skip
DATA = ReportData(
    experiment="support",
    metric="answer_f1",
    summaries=(SUMMARY,),
    finetune=RESULT,
    parity=(PARITY,),
    ggufs=(GgufModel(path="tuned-q8_0.gguf", quantization="q8_0", sha256="ab" * 32, size_bytes=3_200_000),),
    data=DataOverview(rows={"train": 48, "val": 12, "test": 200}, fingerprints={"train": "f" * 64}),
    run=RunRecord(versions={"dspy": "3.4.1"}, seeds={"experiment": 7}, file_hashes={"/models/secret": "0"}),
)
CARD = ModelCardData(
    deployed="tuned-q8_0.gguf",
    base_model="Qwen2.5-1.5B-Instruct",
    inputs={"ticket": "str", "it's": "int"},
    outputs={"team": "str"},
    demos=2,
    recipe={"rank": 16},
    files=("lora.gguf", "Modelfile"),
    left_out={"lora": "DoRA"},
)


def header(card: str) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load(card.split("---\n")[1])
    return found


def test_it_says_what_was_measured_and_on_what() -> None:
    card = render_model_card(DATA, CARD)
    for said in (
        "`Qwen2.5-1.5B-Instruct`, fine-tuned",
        "| fine-tuned GGUF (q8\\_0) | 0.500 | 0.400 to 0.600 | 1 of 200 |",
        "| `tuned-q8_0.gguf` | q8_0 | 3.2 MB | `" + "ab" * 32,
        "| f16 | 9 of 9 | 3 of 4 | 7.0 of 8 |",
        "| train | 48 | `ffffffffffffffff` |",
        "| `rank` | `16` |",
        "| rows (train / validation) | 45 / 3 |",
        "hold 2 example(s) of the training data, in full",
        "- `lora` could not be made: DoRA",
        "promptopt ask tuned-q8_0.gguf --field 'ticket=…'",
        'po.load_gguf_program("tuned-q8_0.gguf")',
        "ollama create",
        "| `seed of experiment` | `7` |",
    ):
        assert said in card, said
    assert "secret" not in card


def test_a_licence_is_unknown_until_it_is_stated() -> None:
    unknown = render_model_card(DATA, CARD)
    assert header(unknown)["license"] == "unknown"
    assert "base_model" not in header(unknown)
    assert "is not stated here" in unknown
    stated = {"licence": "apache-2.0", "base_id": "Qwen/Qwen2.5-1.5B-Instruct"}
    known = render_model_card(DATA, CARD.model_copy(update=stated))
    assert header(known)["license"] == "apache-2.0"
    assert header(known)["base_model"] == "Qwen/Qwen2.5-1.5B-Instruct"
    assert "is not stated here" not in known


def test_a_program_that_must_be_passed_is_not_asked_by_the_file_alone() -> None:
    card = render_model_card(DATA, CARD.model_copy(update={"needs_program": "it has 2 predictors (a, b)"}))
    assert "promptopt ask" not in card
    assert "program=MyProgram()" in card
    assert "it has 2 predictors (a, b)" in card
