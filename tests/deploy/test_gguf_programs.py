"""A GGUF answers with nothing else needed, on the prompts that were evaluated, or says what it needs."""

from collections.abc import Callable
from pathlib import Path

import dspy
import pytest

import promptopt as po
from promptopt.candidate import Candidate
from promptopt.errors import ConfigError, ModelError
from promptopt.evaluation.evaluate import Evaluator
from promptopt.lm.gguf_program import read_gguf_program
from promptopt.records import DataRow
from tests.deploy.conftest import DEMO, SETTINGS, candidate_for
from tests.fixtures_gguf import write_tiny_gguf

INPUTS = {"document": "Tom lives in Oslo.\n", "question": "Where does Tom live?"}


class AnswerFromDocument(dspy.Signature):
    """Answer the question from the document."""

    document: str = dspy.InputField(desc="text that holds the answer")
    question: str = dspy.InputField()
    answer: str = dspy.OutputField(desc="a few words")


class TwoSteps(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = dspy.Predict("document, question -> passage")
        self.second = dspy.Predict(AnswerFromDocument)

    def forward(self, document: str, question: str) -> dspy.Prediction:
        passage = self.first(document=document, question=question).passage
        prediction: dspy.Prediction = self.second(document=passage, question=question)
        return prediction


class Shouting(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.predict = dspy.Predict(AnswerFromDocument)

    def forward(self, document: str, question: str) -> dspy.Prediction:
        prediction: dspy.Prediction = self.predict(document=document.upper(), question=question)
        return prediction


def seen(program: dspy.Module) -> list[tuple[dict[str, str], ...]]:
    """Return the prompts of one call of `program`."""
    lm = po.ScriptedLM(["x\n---\ny"] * 4)
    program.set_lm(lm)
    program(**INPUTS)
    return [request.messages for request in lm.requests]


@pytest.mark.parametrize("made", [dspy.Predict, dspy.ChainOfThought])
def test_it_comes_back_alone_with_the_same_prompts(
    made: Callable[..., dspy.Module], carrying: Callable[..., Path]
) -> None:
    program = made(AnswerFromDocument)
    loaded = po.load_gguf_program(carrying(program), n_threads=1, cache_dir=None)
    lm = loaded.get_lm()
    assert (lm.n_ctx, lm.kwargs["max_tokens"], lm.kwargs["seed"]) == (1024, 8, 3)
    lm.close()
    assert seen(loaded) == seen(candidate_for(program).apply(program))
    assert seen(loaded.deepcopy()) == seen(program)


def test_it_answers_as_the_evaluation_did_token_for_token(carrying: Callable[..., Path]) -> None:
    program = dspy.Predict(AnswerFromDocument)
    path = carrying(program)
    lm = po.LlamaCpp(path, n_ctx=SETTINGS.n_ctx, max_tokens=SETTINGS.max_tokens, n_threads=1, cache_dir=None)
    evaluator = Evaluator(program, candidate_for(program), lm, po.metrics.answer_f1, tuple(INPUTS))
    record = evaluator.evaluate(DataRow(id="0" * 16, fields={**INPUTS, "answer": "Oslo"}))
    lm.close()
    loaded = po.load_gguf_program(path, n_threads=1, cache_dir=None)
    assert loaded(**INPUTS).answer == record.prediction["answer"]
    messages = loaded.get_lm().history[-1]["messages"]
    assert loaded.get_lm().count_tokens(messages) == record.prompt_tokens > 50
    loaded.get_lm().close()


def test_several_predictors_need_their_program(carrying: Callable[..., Path]) -> None:
    path = carrying(TwoSteps())
    with pytest.raises(ConfigError, match=r"2 predictors \(first, second\).*program=") as caught:
        po.load_gguf_program(path)
    assert "somewhere:program" in str(caught.value)
    loaded = po.load_gguf_program(path, program=TwoSteps(), n_threads=1, cache_dir=None)
    loaded.get_lm().close()
    assert seen(loaded) == seen(candidate_for(TwoSteps()).apply(TwoSteps()))


def test_a_program_with_code_of_its_own_needs_it(carrying: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="Shouting does more than ask its predictor"):
        po.load_gguf_program(carrying(Shouting()))
    with pytest.raises(ConfigError, match="temperature"):
        po.load_gguf_program(carrying(dspy.Predict(AnswerFromDocument, temperature=0.5)))
    strange = AnswerFromDocument.with_updated_fields("answer", type_=dspy.Image)
    with pytest.raises(ConfigError, match="'answer' has the type Image"):
        po.load_gguf_program(carrying(dspy.Predict(strange), Candidate.of_program(dspy.Predict(strange), po.Layout())))


def test_another_program_than_the_exported_one_is_refused(carrying: Callable[..., Path]) -> None:
    path = carrying(dspy.Predict(AnswerFromDocument))
    changed = AnswerFromDocument.with_updated_fields("document", desc="something else")
    with pytest.raises(ConfigError, match="not the one"):
        po.load_gguf_program(path, program=dspy.Predict(changed))
    with pytest.raises(ConfigError, match="predictors"):
        po.load_gguf_program(path, program=TwoSteps())


def test_a_file_without_a_program_or_with_a_broken_one(tmp_path: Path, carrying: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="carries no program"):
        po.load_gguf_program(write_tiny_gguf(tmp_path / "plain.gguf"))
    candidate = candidate_for(dspy.Predict(AnswerFromDocument)).model_dump_json()
    for name, extra, said in (
        ("newer", {"promptopt.schema_version": "2", "promptopt.made_by": "promptopt 9"}, "version 2.*promptopt 9"),
        ("damaged", {"promptopt.schema_version": "1", "promptopt.signatures": "{"}, r"promptopt\.signatures"),
        ("deep", {"promptopt.schema_version": "1", "promptopt.signatures": "[" * 100_000}, r"promptopt\.signatures"),
    ):
        path = write_tiny_gguf(tmp_path / f"{name}.gguf", metadata={"promptopt.candidate": candidate, **extra})
        with pytest.raises(ModelError, match=said):
            po.load_gguf_program(path)
    old = write_tiny_gguf(
        tmp_path / "old.gguf", metadata={"promptopt.candidate": candidate, "promptopt.program": "a:b"}
    )
    with pytest.raises(ConfigError, match="before signatures were carried"):
        po.load_gguf_program(old)
    assert read_gguf_program(old).candidate.predictors["self"].demos == (DEMO,)


def test_a_tampered_pair_of_keys_is_refused(tmp_path: Path, carrying: Callable[..., Path]) -> None:
    from promptopt.lm.gguf_info import read_gguf

    whole = read_gguf(carrying(dspy.Predict(AnswerFromDocument))).metadata
    keys = {key: str(value) for key, value in whole.items() if key.startswith("promptopt.")}
    other = candidate_for(TwoSteps()).model_dump_json()
    path = write_tiny_gguf(tmp_path / "mixed.gguf", metadata={**keys, "promptopt.candidate": other})
    with pytest.raises(ConfigError, match="carries the signature of 'self'"):
        po.load_gguf_program(path)
