"""DSPy's weight optimizers with QLoRAProvider: real training, real LoRA weights, real llama.cpp, DSPy unchanged."""

from pathlib import Path
from typing import Any

import dspy
import pytest

import promptopt as po
from promptopt.finetune.chat_tokens import ChatTokenizer
from promptopt.lm.scripted import ScriptedLM
from promptopt.records import TrainingRow
from promptopt.rundir import read_jsonl
from tests.finetune.tiny_models import COLOURS, THINGS

LAYOUT = po.Layout(output_style="label", field_style="label", prefill=True)
EXAMPLES = [
    dspy.Example(thing=f"{colour} {thing} {number}", colour=colour).with_inputs("thing")
    for number in range(2)
    for thing in THINGS
    for colour in COLOURS
]
RECIPE = {"rank": 8, "alpha": 16, "learning_rate": 1e-2, "epochs": 2, "batch_size": 8, "max_length": 256}


class Name(dspy.Signature):
    """Say the colour."""

    thing: str = dspy.InputField()
    colour: str = dspy.OutputField()


def metric(example: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> float:
    return float(prediction.colour.strip() == example.colour)


def teacher() -> dspy.Module:
    """Answers right, in the layout: what a good teacher writes after the prefill."""
    known = {example.thing: example.colour for example in EXAMPLES}

    def answer(messages: Any) -> str:
        asked = messages[-2]["content"]
        return next(f" {colour}" for thing, colour in known.items() if f"Thing: {thing}\n" in f"{asked}\n")

    program = dspy.Predict(Name)
    program.set_lm(ScriptedLM(answer))
    return program


@pytest.fixture
def provider(hf_dir: Path, tmp_path: Path) -> po.QLoRAProvider:
    return po.QLoRAProvider(hf_dir, folder=tmp_path / "runs", val_share=0.2)


@pytest.fixture
def lm(gguf: Path, provider: po.QLoRAProvider) -> po.LlamaCpp:
    return po.LlamaCpp(gguf, n_ctx=256, max_tokens=8, n_threads=1, parallel=2, cache_dir=None, provider=provider)


def finetuner(**settings: Any) -> dspy.BootstrapFinetune:
    return dspy.BootstrapFinetune(metric=metric, train_kwargs=RECIPE, num_threads=2, **settings)


def test_bootstrap_finetune_gives_back_an_lm_with_the_new_weights(
    lm: po.LlamaCpp, provider: po.QLoRAProvider, hf_dir: Path
) -> None:
    program = dspy.Predict(Name)
    program.set_lm(lm)
    prompt = [{"role": "user", "content": "what colour is the red car?"}]
    before = lm.generate_tokens(lm.tokenize_messages(prompt), 16)
    with dspy.context(adapter=po.LayoutAdapter(LAYOUT)):
        tuned = finetuner().compile(program, trainset=EXAMPLES, teacher=teacher())
        answer = tuned(thing=EXAMPLES[0].thing)
        assert "colour" in answer

    answering = tuned.lm
    assert isinstance(answering, po.LlamaCpp)
    assert answering.model.startswith("llama_cpp/tiny-llama-tuned-")
    assert (len(answering.lora), lm.lora) == (1, ())
    # The base is the same file in the same memory, and still answers as it did.
    assert answering.chat is lm.chat
    assert answering.generate_tokens(lm.tokenize_messages(prompt), 16) != before
    assert lm.generate_tokens(lm.tokenize_messages(prompt), 16) == before

    (folder,) = provider.folder.iterdir()
    train, val = (read_jsonl(folder / f"{side}.jsonl", TrainingRow) for side in ("train", "val"))
    assert len(train) + len(val) == len(EXAMPLES)
    assert len(val) > 1
    assert not {row.prompt for row in train} & {row.prompt for row in val}
    served = served_tokens(lm)
    from transformers import AutoTokenizer

    chat = ChatTokenizer(AutoTokenizer.from_pretrained(hf_dir))
    for row in (*train, *val):
        given, generated = chat.split_ids(row)
        assert tuple(given) in served
        assert row.prefill == "Colour:"
        assert lm.chat.model.vocabulary.ends_generation(generated[-1])

    # The same data again is the same model, and nothing is trained.
    changed = (folder / "finetune" / "result.json").stat().st_mtime_ns
    with dspy.context(adapter=po.LayoutAdapter(LAYOUT)):
        again = dspy.Predict(Name)
        again.set_lm(lm)
        finetuner().compile(again, trainset=EXAMPLES, teacher=teacher())
    assert again.lm.model == answering.model
    assert (folder / "finetune" / "result.json").stat().st_mtime_ns == changed


def served_tokens(lm: po.LlamaCpp) -> set[tuple[int, ...]]:
    """Return the tokens of every prompt of EXAMPLES as the engine is given them."""
    seen: set[tuple[int, ...]] = set()
    submit = lm.chat.engine.submit

    def spy(request: Any, **settings: Any) -> Any:
        seen.add(tuple(request.prompt))
        return submit(request, **settings)

    lm.chat.engine.submit = spy  # type: ignore[method-assign]
    try:
        with dspy.context(lm=lm, adapter=po.LayoutAdapter(LAYOUT)):
            program = dspy.Predict(Name)
            for example in EXAMPLES:
                program(thing=example.thing)
    finally:
        lm.chat.engine.submit = submit  # type: ignore[method-assign]
    return seen


def test_better_together_tunes_twice_and_the_second_time_from_its_own_weights(
    lm: po.LlamaCpp, provider: po.QLoRAProvider
) -> None:
    program = dspy.Predict(Name)
    program.set_lm(lm)
    shots = dspy.LabeledFewShot(k=1)
    optimizer = dspy.BetterTogether(metric=metric, p=shots, w=finetuner(exclude_demos=True))
    with dspy.context(adapter=po.LayoutAdapter(LAYOUT)):
        best = optimizer.compile(
            program, trainset=EXAMPLES[:24], valset=EXAMPLES[24:32], teacher=teacher(), strategy="p -> w -> w", seed=0
        )
        assert not best.flag_compilation_error_occurred
        stages = {item["strategy"]: item["program"] for item in best.candidate_programs}
        assert set(stages) == {"", "p", "p -> w", "p -> w -> w"}
        lms = [stages[name].lm for name in ("", "p", "p -> w", "p -> w -> w")]
        assert [len(item.lora) for item in lms] == [0, 0, 1, 2]
        assert lms[2].lora == lms[3].lora[:1]
        assert len({item.model for item in lms}) == 3
        answers = [stages[name](thing=EXAMPLES[40].thing).colour for name in stages]
        assert all(isinstance(answer, str) for answer in answers)
    prompt = lm.tokenize_messages([{"role": "user", "content": "what colour is the red car?"}])
    said = {tuple(item.generate_tokens(prompt, 16)) for item in (lms[0], *lms[2:])}
    assert len(said) == 3


def test_kill_frees_the_model_and_the_next_request_loads_it_again(lm: po.LlamaCpp) -> None:
    prompt = lm.tokenize_messages([{"role": "user", "content": "what colour is the red car?"}])
    before, engine = lm.generate_tokens(prompt, 8), lm.chat.engine
    lm.kill()
    with pytest.raises(po.PromptoptError, match="closed"):
        engine.embed([prompt], normalize=True)
    assert lm.copy(temperature=0.5).generate_tokens(prompt, 8) == before
    assert lm.chat.engine is not engine
    lm.kill()
    lm.kill()
    lm.launch()
    lm.close()
    with pytest.raises(po.PromptoptError, match="closed"):
        lm.generate_tokens(prompt, 8)
