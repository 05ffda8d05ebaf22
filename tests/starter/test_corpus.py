"""The corpus: deterministic, its held-out part apart from its training part, its answers in its documents."""

import random

import corpus
import documents
import facts
import names
import pytest


@pytest.mark.parametrize("task", list(corpus.TASK_SHARES))
def test_same_seed_same_examples(task: str) -> None:
    first = [corpus.sample(random.Random(3), 4, task=task) for _ in range(3)]
    second = [corpus.sample(random.Random(3), 4, task=task) for _ in range(3)]
    assert first == second
    assert first[0] != corpus.sample(random.Random(4), 4, task=task)


@pytest.mark.parametrize("kind", ["person", "place", "company", "product", "thing", "pseudo", "year", "number"])
def test_held_out_names_never_appear_in_training(kind: str) -> None:
    rng = random.Random(5)
    trained = {names.draw(kind, rng, names.TRAIN) for _ in range(800)}
    held = {names.draw(kind, rng, names.NAMES) for _ in range(800)}
    assert not trained & held


def test_held_out_templates_and_relations_never_appear_in_training() -> None:
    for relation in (*facts.RELATIONS, *facts.JA_RELATIONS):
        for texts in (relation.statements, relation.questions):
            assert not set(facts.pick(texts, names.TRAIN)) & set(facts.pick(texts, names.TEMPLATES))
    secret = {r.key for r in facts.RELATIONS if r.held_out}
    rng = random.Random(6)
    used = {f.key for _ in range(400) for f in documents.make(rng, 5).facts}
    assert secret and not used & secret


def test_answers_stand_in_the_document_and_questions_have_one_answer() -> None:
    rng = random.Random(7)
    for japanese in (False, True):
        for _ in range(200):
            doc = documents.make(rng, 6, japanese=japanese)
            assert all(f.answer.lower() in doc.text.lower() for f in doc.facts)
            told: dict[str, str] = {}
            assert all(told.setdefault(q, f.answer) == f.answer for f in doc.facts for q in f.questions)


def test_every_value_of_an_example_is_named_once() -> None:
    rng = random.Random(8)
    for _ in range(300):
        example = corpus.sample(rng, 5)
        fields = [f.name for f in (*example.inputs, *example.outputs)]
        assert len(set(fields)) == len(fields)
        assert set(fields) == set(example.values)


def test_a_demo_fills_the_same_fields() -> None:
    rng = random.Random(9)
    for task in ("qa", "qa_ja", "unknown", "call"):
        example = corpus.sample(rng, 4, task=task)
        demo = corpus.like(rng, example, 2)
        assert set(demo) == set(example.values)
        assert demo != example.values
