"""The public names, what `import promptopt` costs, and that the dependency declarations tell the truth."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import promptopt

LAZY = {"dspy", "optuna", "torch", "llama_cpp", "transformers", "pydantic", "scipy"}
LATE_IN_METRICS = {"dspy", "jsonschema", "MeCab", "nltk", "pydantic", "rouge_score", "sacrebleu", "scipy", "sqlglot"}


def project(repository: Path) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def requirements(repository: Path) -> list[Requirement]:
    table = project(repository)
    lines = [*table["dependencies"], *(line for extra in table["optional-dependencies"].values() for line in extra)]
    return [requirement for requirement in map(Requirement, lines) if requirement.name != "promptopt"]


def pins(repository: Path) -> dict[str, str]:
    lines = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.parametrize("name", promptopt.__all__)
def test_public_name_is_importable(name: str) -> None:
    assert getattr(promptopt, name) is not None
    assert name in dir(promptopt)


def test_public_names_are_listed_once() -> None:
    assert len(promptopt.__all__) == len(set(promptopt.__all__))
    assert set(promptopt.__all__) == {*promptopt._HOMES, "metrics"}


def test_unknown_name_says_what_there_is() -> None:
    with pytest.raises(AttributeError, match=r"'Adapter'.*LayoutAdapter"):
        _ = promptopt.Adapter  # type: ignore[attr-defined]


def test_import_is_light(repository: Path) -> None:
    script = f"import sys, promptopt; print(sorted(set(sys.modules) & {LAZY!r}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_metrics_import_their_libraries_late(repository: Path) -> None:
    script = f"import sys, promptopt.metrics; print(sorted(set(sys.modules) & {LATE_IN_METRICS!r}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_package_is_typed(repository: Path) -> None:
    assert (repository / "promptopt" / "py.typed").exists()


def test_every_import_is_declared(repository: Path) -> None:
    owners = packages_distributions()
    declared = {canonicalize_name(requirement.name) for requirement in requirements(repository)}
    undeclared = {
        f"{path.relative_to(repository)}: {module}"
        for path in (repository / "promptopt").rglob("*.py")
        for module in imported_modules(path)
        if module != "promptopt" and module not in sys.stdlib_module_names
        if declared.isdisjoint(canonicalize_name(owner) for owner in owners.get(module, [module]))
    }
    assert undeclared == set()


def imported_modules(path: Path) -> set[str]:
    """Top-level names of everything imported in `path`, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_constraints_pin_the_whole_tree(repository: Path) -> None:
    pinned = pins(repository)
    queue = requirements(repository)
    seen: set[tuple[str, str]] = set()
    unpinned = set()
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        extras = requirement.extras or {""}
        if {(name, extra) for extra in extras} <= seen:
            continue
        seen |= {(name, extra) for extra in extras}
        try:
            needed = distribution(name).requires or []
        except PackageNotFoundError:  # for another system, or an extra that is not installed here
            continue
        if name not in pinned:
            unpinned.add(name)
        for line in needed:
            further = Requirement(line)
            if not further.marker or any(further.marker.evaluate({"extra": extra}) for extra in {*extras, ""}):
                queue.append(further)
    assert unpinned == set()


def test_constraints_lie_inside_the_ranges(repository: Path) -> None:
    pinned = pins(repository)
    outside = [
        f"{requirement} but {pinned.get(canonicalize_name(requirement.name))}"
        for requirement in requirements(repository)
        if pinned.get(canonicalize_name(requirement.name), "") not in requirement.specifier
    ]
    assert outside == []


def test_constraints_name_no_machine_and_no_build(repository: Path) -> None:
    lines = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
    entries = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in entries if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)] == []


def test_every_dependency_says_which_room_needs_it(repository: Path) -> None:
    text = (repository / "pyproject.toml").read_text(encoding="utf-8")
    for requirement in requirements(repository):
        name = re.escape(requirement.name)
        lines = [line for line in text.splitlines() if re.match(rf'\s*"{name}(\[\w+\])?[<>=]', line)]
        assert lines, requirement
        assert all("#" in line for line in lines), lines
