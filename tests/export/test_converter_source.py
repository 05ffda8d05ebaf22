"""llama.cpp's converter is taken from the pinned source package, checked, and never taken damaged.

Tests are offline: in place of pip's download stands a package made of the files that `make install` fetched.
"""

import os
import shutil
import tarfile
from pathlib import Path

import pytest

from promptopt.cli.doctor import State, check_converter
from promptopt.cli.main import main
from promptopt.errors import ExportError
from promptopt.export import converter_source
from promptopt.export.converter_source import FETCH_LINE, TREE_SHA256, fetch_converter, find_converter, tree_digest

ARGUMENTS = FETCH_LINE.split()[1:]
INSIDE = "llama_cpp_python-0.3.36/vendor/llama.cpp"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source package with more in it than is kept; the cache is empty from here on."""
    monkeypatch.delenv(converter_source.ENVIRONMENT, raising=False)
    folder = shutil.copytree(find_converter(), tmp_path / "tree", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = tmp_path / "package.tar.gz"
    with tarfile.open(made, "w:gz", compresslevel=1) as archive:
        archive.add(folder, INSIDE)
        for name in ("src/llama.py", "conversion/../../../../../escaped.py"):
            archive.add(__file__, f"{INSIDE}/{name}")
    return made


def test_it_is_unpacked_checked_and_kept(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_converter().state is State.MISSING and FETCH_LINE in check_converter().advice
    monkeypatch.setattr(converter_source, "_download", lambda folder: package)
    assert main(ARGUMENTS) == 0
    assert tree_digest(find_converter()) == TREE_SHA256 and check_converter().state is State.OK
    assert not list(tmp_path.rglob("escaped.py")) and not list((tmp_path / "cache").rglob("llama.py.py"))
    monkeypatch.setattr(converter_source, "_download", None)
    assert main(ARGUMENTS) == 0  # there already: nothing is downloaded again


def test_damaged_files_are_not_used_and_replaced(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converter_source, "_download", lambda folder: package)
    changed = fetch_converter() / "conversion" / "llama.py"
    changed.write_text("raise SystemExit\n")
    with pytest.raises(ExportError, match=r"is not what llama-cpp-python .* carries.*--fetch-converter"):
        find_converter()
    fetch_converter()
    assert "raise SystemExit" not in changed.read_text() and find_converter()


def test_another_package_is_refused(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(package, "w:gz") as archive:
        archive.add(__file__, f"{INSIDE}/conversion/base.py")
    monkeypatch.setattr(converter_source, "_download", lambda folder: package)
    with pytest.raises(ExportError, match="is not the one that was tested"):
        fetch_converter()
    assert not list((tmp_path / "cache" / "promptopt" / "converter").iterdir())


def test_pip_is_held_to_the_version_and_its_hash(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pip's own answer to a package of another content, from an index on disk."""
    index = tmp_path / "index"
    index.mkdir()
    shutil.copyfile(package, index / f"llama_cpp_python-{converter_source.VERSION}.tar.gz")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    assert main(ARGUMENTS) == 2
    assert "pip could not download the source package" in (said := capsys.readouterr().err)
    assert "HASHES" in said and converter_source.ENVIRONMENT in said


def test_a_checkout_can_be_named(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(converter_source.ENVIRONMENT, str(tmp_path / "tree"))
    assert find_converter() == tmp_path / "tree"
