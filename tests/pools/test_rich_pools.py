"""Rich pools: every kind at its place, without models as with them, and the pools of before unchanged."""

import pytest

from programs.document_qa import answer_from_document
from promptopt.config.experiment import SearchConfig
from promptopt.errors import ConfigError, LMError
from promptopt.layout.spec import Layout
from promptopt.lm.protocol import Messages
from promptopt.lm.scripted import ScriptedLM
from promptopt.pools.build import PoolListeners, build_pools, build_rich_pools
from promptopt.pools.pool import Pools
from promptopt.pools.settings import PoolSettings
from promptopt.records import DataRow
from tests.pools.chain import ROWS, Chain, teach, teacher

DOCUMENTS = [
    DataRow(id=f"{n:02}", fields={"document": "d" * (n + 1), "question": f"q{n}", "answer": f"a{n}"}) for n in range(20)
]


def write(messages: Messages) -> str:
    return f"Answer with care, mind the number {len(messages[-1]['content'])}."


def test_the_pools_of_before_are_found_again() -> None:
    config = SearchConfig(
        demo_sets=5, demos_per_set=2, instructions=("x", "Answer the question from the document.", "y")
    )
    pool = build_pools(answer_from_document(), config, DOCUMENTS, seed=7).predictors["self"]
    # What the version before rich pools drew.
    assert [[demo["question"] for demo in demos] for demos in pool.demo_sets] == [
        [], ["q5"], ["q2", "q6"], ["q10"], ["q0", "q1"], ["q13"],
    ]  # fmt: skip
    assert pool.instructions == ("Answer the question from the document.", "x", "y")


def test_without_models_every_kind_that_needs_none_is_there() -> None:
    settings = PoolSettings(
        written=("Be brief.",), labelled=2, diverse=2, typical=2, bootstrapped=3, proposals=3, demos_per_set=2
    )
    pools = build_rich_pools(answer_from_document(), settings, DOCUMENTS, 0, proposer=None, teacher=None)
    pool = pools.predictors["self"]
    assert pool.instruction_origins == ("program", "written")
    assert pool.demo_origins == ("program", "labelled", "labelled", "diverse", "diverse", "typical", "typical")
    assert pools == build_rich_pools(answer_from_document(), settings, DOCUMENTS, 0, proposer=None, teacher=None)
    assert Pools.model_validate_json(pools.model_dump_json()) == pools


def test_rows_that_know_the_inner_fields_make_no_labelled_demos_of_a_chain() -> None:
    rows = [row.model_copy(update={"fields": {**row.fields, "item": "item"}}) for row in ROWS]
    pools = build_rich_pools(Chain(), PoolSettings(diverse=2, typical=2), rows, 0, proposer=None, teacher=None)
    assert all(pool.demo_sets == ((),) for pool in pools.predictors.values())


def test_proposals_repeat_no_written_variant() -> None:
    settings = PoolSettings(written=("Answer with great care.",), proposals=1)
    lm = ScriptedLM(["answer with great care", "Answer with little care."])
    pools = build_rich_pools(answer_from_document(), settings, DOCUMENTS, 0, proposer=lm, teacher=None)
    assert pools.predictors["self"].instructions[1:] == ("Answer with great care.", "Answer with little care.")


def test_more_of_one_kind_changes_no_other_kind() -> None:
    def sets(**kinds: int) -> dict[str, list[object]]:
        settings = PoolSettings(**{"labelled": 2, "diverse": 2, "typical": 2, **kinds})  # type: ignore[arg-type]
        pools = build_rich_pools(answer_from_document(), settings, DOCUMENTS, 0, proposer=None, teacher=None)
        pool = pools.predictors["self"]
        found: dict[str, list[object]] = {}
        for origin, demos in zip(pool.demo_origins, pool.demo_sets, strict=True):
            found.setdefault(origin, []).append(demos)
        return found

    usual, more = sets(), sets(labelled=3)
    assert (usual["diverse"], usual["typical"]) == (more["diverse"], more["typical"])
    assert more["labelled"][:2] == usual["labelled"]


def test_a_program_of_two_predictors_gets_demos_and_proposals_for_both() -> None:
    settings = PoolSettings(labelled=2, diverse=2, bootstrapped=2, demos_per_set=2, proposals=2, bootstrap_rows=30)

    def build(parallel: int) -> Pools:
        return build_rich_pools(
            Chain(), settings, ROWS, 5,
            proposer=ScriptedLM(write, parallel=parallel), teacher=teacher(ScriptedLM(teach, parallel=parallel)),
        )  # fmt: skip

    pools = build(1)
    assert pools == build(4)
    assert pools.generation == 0
    find, reply = pools.predictors["find.predict"], pools.predictors["reply"]
    for pool in (find, reply):
        assert pool.demo_origins == ("program", "bootstrapped", "bootstrapped")
        assert len(pool.instructions) == 3
        assert pool.instruction_origins[1].startswith("proposed with tip")
    assert all(demo["reasoning"] for demos in find.demo_sets for demo in demos)
    # The sets with the same number come from the same runs.
    for of_find, of_reply in zip(find.demo_sets, reply.demo_sets, strict=True):
        assert [demo["question"] for demo in of_find] == [demo["question"] for demo in of_reply]
    # And a program that carries them runs.
    indices = {"find.predict": 2, "reply": 2}
    student = pools.candidate(Layout(), indices, indices).apply(Chain())
    lm = ScriptedLM(teach)
    student.set_lm(lm)
    assert student(question="What is the code of item05?").answer == "code 05"
    assert "[[ ## reasoning ## ]]\nit says" in str(lm.requests[0].messages).replace("\\n", "\n")


def test_the_writer_sees_what_the_teacher_did_inside_the_chain() -> None:
    lm = ScriptedLM(write)
    settings = PoolSettings(bootstrapped=2, demos_per_set=2, proposals=1)
    build_rich_pools(Chain(), settings, ROWS, 5, proposer=lm, teacher=teacher(ScriptedLM(teach)))
    assert "reasoning: it says" in lm.requests[0].messages[0]["content"]


def test_the_teacher_is_asked_no_more_rows_than_allowed_and_a_poor_one_leaves_fewer_sets() -> None:
    asked: list[str] = []
    refused: list[str] = []
    listeners = PoolListeners(
        on_record=lambda record: asked.append(record.example_id),
        on_refused=lambda predictor, reply, why: refused.append(predictor),
    )
    settings = PoolSettings(bootstrapped=2, bootstrap_rows=4, proposals=1)
    pools = build_rich_pools(
        Chain(), settings, ROWS, 0,
        proposer=ScriptedLM(lambda messages: ""),
        teacher=teacher(ScriptedLM(lambda messages: "I do not know.")),
        listeners=listeners,
    )  # fmt: skip
    assert len(asked) == len(set(asked)) == 4
    assert refused == ["find.predict"] * 3 + ["reply"] * 3
    assert all(pool.demo_sets == ((),) and len(pool.instructions) == 1 for pool in pools.predictors.values())


@pytest.mark.parametrize("broken", ["proposer", "teacher"])
def test_broken_models_raise(broken: str) -> None:
    models = {"proposer": ScriptedLM(write), "teacher": ScriptedLM(teach), broken: ScriptedLM([])}
    with pytest.raises(LMError):
        build_rich_pools(
            Chain(), PoolSettings(bootstrapped=1, proposals=1), ROWS, 0,
            proposer=models["proposer"], teacher=teacher(models["teacher"]),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"labelled": -1}, "labelled of the pools is -1"),
        ({"demos_per_set": 0}, "whole numbers from 1"),
        ({"min_score": 1.5}, r"min_score of the pools is 1\.5"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PoolSettings(**wrong)  # type: ignore[arg-type]
