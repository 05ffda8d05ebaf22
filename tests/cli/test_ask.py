"""`promptopt ask`: an answer on stdout, or one line on stderr and exit code 2."""

import json
from pathlib import Path
from typing import Literal

import dspy
import pytest

from promptopt.candidate import Candidate
from promptopt.cli import main as cli
from promptopt.deploy.gguf_programs import gguf_program
from promptopt.layout.spec import Layout
from promptopt.lm.gguf_program import program_metadata
from promptopt.records import AnswerSettings
from tests.fixtures_gguf import write_tiny_gguf, write_tiny_lora


class Grade(dspy.Signature):
    """Grade the report."""

    report: str = dspy.InputField()
    points: int = dspy.InputField()
    kind: Literal["long", "short"] = dspy.InputField()
    grade: str = dspy.OutputField()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = dspy.Predict(Grade)
    candidate = Candidate.of_program(program, Layout(output_style="bare", field_style="label"))
    settings = AnswerSettings(n_ctx=512, max_tokens=6, temperature=0.0, seed=0)
    carried = gguf_program(program, candidate, settings, path="a:b", experiment="grades")
    path = tmp_path_factory.mktemp("ask") / "model.gguf"
    return write_tiny_gguf(path, metadata=program_metadata(carried))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("ask") / "plain.gguf", n_ctx_train=1024)


def asked(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.main(["ask", "--n-threads=1", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_it_prints_the_output_fields(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.txt").write_text("All went well.\n", encoding="utf-8")
    fields = [f"--field=report=@{tmp_path / 'report.txt'}", "--field=points=7", "--field=kind=long"]
    code, out, _ = asked(capsys, model, *fields)
    assert code == 0
    assert out.startswith("grade: ")
    code, as_json, _ = asked(capsys, model, *fields, "--json")
    answer = json.loads(as_json)
    assert out == f"grade: {answer['grade']}\n"
    inline = ["--field", "report=All went well.", *fields[1:]]
    assert asked(capsys, model, *inline, "--json")[1] == as_json
    assert asked(capsys, model, *inline, "--json", "--max-tokens=1")[1] != as_json
    lora = write_tiny_lora(tmp_path / "lora.gguf", seed=1)
    assert asked(capsys, model, *inline, "--json", f"--lora={lora}")[1] != as_json
    assert asked(capsys, model, "--field=report=@@home", *fields[1:])[0] == 0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (["report=x", "points=7"], "missing: kind). The program takes report, points, kind"),
        (["report=x", "points=7", "kind=long", "colour=red"], "unknown: colour"),
        (["report=x", "points=seven", "kind=long"], "'points' is 'seven', which is no int"),
        (["report=x", "points=7", "kind=huge"], "'kind' is 'huge'"),
        (["report=@none.txt", "points=7", "kind=long"], "'none.txt' cannot be read (No such file"),
        (["report"], "--field 'report' is not NAME=VALUE"),
        (["report=x", "report=y"], "--field report was given twice"),
    ],
)
def test_wrong_fields_are_one_line(
    model: Path, capsys: pytest.CaptureFixture[str], fields: list[str], said: str
) -> None:
    code, out, err = asked(capsys, model, *(f"--field={field}" for field in fields))
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_a_plain_gguf_needs_a_signature(plain: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = asked(capsys, plain, "--field=question=x")
    assert code == 2
    assert "carries no program" in err
    assert err.count("\n") == 1
    for wrong in ("question", "question -> answer: Nonsense", "a b -> c", "__import__('os') -> x"):
        code, _, err = asked(capsys, plain, "--field=question=x", "--signature", wrong)
        assert (code, err.count("\n")) == (2, 1), err
        assert "does not parse" in err
    code, _, err = asked(capsys, model, "--field=question=x", "--signature", "question -> answer")
    assert code == 2
    assert "carries a program of its own" in err
    # A random model does not write DSPy's markers: that, too, is said in one line.
    code, _, err = asked(
        capsys, plain, "--field=question=x", "--signature", "question -> answer", "--n-ctx=1024", "--max-tokens=4"
    )
    assert code == 2
    assert "not in the format of the layout" in err
    assert err.count("\n") == 1


def test_missing_files_and_prompts_that_do_not_fit(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = asked(capsys, tmp_path / "none.gguf", "--field=a=b")
    assert (code, err.count("\n")) == (2, 1)
    assert "no model file" in err
    code, _, err = asked(capsys, model, "--field=points=1", "--field=kind=long", f"--field=report={'long ' * 400}")
    assert (code, err.count("\n")) == (2, 1)
    assert "tokens" in err
