"""Chapters are executed anew whenever anything that they depend on has changed, and only then; a failure says where."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import execute

SMOKE = {"profile": "smoke", "seed": 0, "device": "cpu"}
NAME = "book/part/chapter.ipynb"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one chapter, which prints what is in its `lib`."""
    monkeypatch.setattr(execute, "ROOT", tmp_path)
    monkeypatch.setattr(execute, "BUILD", tmp_path / "_build")
    monkeypatch.setattr(execute, "characters", lambda: ("glyphs", "0" * 64))
    for name, text in {
        "lib/__init__.py": "ANSWER = 41\n",
        "lib/viewer.js": "// viewer\n",
        "data/results/record.json": "{}\n",
        "requirements.txt": "numpy==1\n",
        "tools/execute.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    write_chapter(tmp_path, "import lib\n\nprint(profile, seed, lib.ANSWER)")
    return tmp_path


def write_chapter(root, *sources):
    """A chapter with a cell of parameters and these cells."""
    parameters = new_code_cell('profile = "none"\nseed = -1\ndevice = "none"', metadata={"tags": ["parameters"]})
    cells = [new_markdown_cell("# Chapter"), parameters, *map(new_code_cell, sources)]
    (root / NAME).parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells), root / NAME)


def printed(path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


def test_executes_once_and_again_after_a_change(project):
    path, stored = execute.execute_chapter(NAME, SMOKE)
    assert (printed(path), stored) == ("smoke 0 41\n", False)
    assert execute.execute_chapter(NAME, SMOKE) == (path, True)
    assert execute.execute_chapter(NAME, SMOKE, force=True) == (path, False)

    (project / "lib" / "__init__.py").write_text("ANSWER = 42\n")
    path, stored = execute.execute_chapter(NAME, SMOKE)
    assert (printed(path), stored) == ("smoke 0 42\n", False)

    path.write_text(path.read_text()[:200])  # a stored execution that was cut off
    path, stored = execute.execute_chapter(NAME, SMOKE)
    assert (printed(path), stored) == ("smoke 0 42\n", False)
    assert str(project) not in path.read_text(), "a page must not name folders of the machine that built it"

    path, stored = execute.execute_chapter(NAME, SMOKE | {"seed": 3})
    assert (printed(path), stored) == ("smoke 3 42\n", False)
    assert execute.execute_chapter(NAME, SMOKE)[1], "the execution with other parameters is kept beside it"


@pytest.mark.parametrize(
    "changed",
    ["lib/__init__.py", "lib/viewer.js", "data/results/record.json", "data/new.json", "requirements.txt", NAME],
)
def test_key_depends_on(project, changed):
    before = execute.chapter_key(project / NAME, SMOKE, execute.shared_digest())
    text = (project / changed).read_text() if (project / changed).exists() else ""
    (project / changed).write_text(text + " ")
    assert execute.chapter_key(project / NAME, SMOKE, execute.shared_digest()) != before
    (project / changed).write_text(text)
    same = execute.chapter_key(project / NAME, SMOKE, execute.shared_digest())
    assert (same == before) is (changed != "data/new.json")  # an empty file is a change as well


def test_key_depends_on_names_parameters_and_characters(project, monkeypatch):
    shared = execute.shared_digest()
    key = execute.chapter_key(project / NAME, SMOKE, shared)
    assert execute.chapter_key(project / NAME, SMOKE | {"profile": "short"}, shared) != key
    (project / "lib" / "viewer.js").rename(project / "lib" / "other.js")
    assert execute.shared_digest() != shared
    (project / "lib" / "other.js").rename(project / "lib" / "viewer.js")
    assert execute.shared_digest() == shared
    monkeypatch.setattr(execute, "characters", lambda: ("omniglot", "1" * 64))
    assert execute.shared_digest() != shared


def test_key_leaves_out_what_python_compiles(project):
    shared = execute.shared_digest()
    (project / "lib" / "__pycache__").mkdir()
    (project / "lib" / "__pycache__" / "x.pyc").write_bytes(b"1")
    assert execute.shared_digest() == shared


def test_failing_cell_is_named_and_nothing_is_stored(project):
    write_chapter(project, "one = 1", "def divide():\n    return one / 0\n\n\ndivide()", "print('never')")
    with pytest.raises(execute.ChapterError) as caught:
        execute.execute_chapter(NAME, SMOKE)
    message = str(caught.value)
    assert message.startswith(f"{NAME}: cell 4 (In [4]) failed")
    assert "divide()" in message and "ZeroDivisionError" in message
    assert not execute.stored_path(NAME, SMOKE).exists()
    assert "never" not in printed(project / "_build" / "failed" / NAME)


def test_dead_kernel_is_named(project):
    write_chapter(project, "import os\n\nos._exit(1)")
    with pytest.raises(execute.ChapterError, match=f"{NAME}: DeadKernelError"):
        execute.execute_chapter(NAME, SMOKE)


def test_command_stops_at_a_failure(project, monkeypatch, capsys):
    write_chapter(project, "raise ValueError('no such episode')")
    monkeypatch.setattr(execute, "toc_notebooks", lambda: [NAME])
    monkeypatch.setattr(execute, "EXECUTED", project / "_build" / "executed")
    monkeypatch.setattr("sys.argv", ["execute", "--device", "cpu"])
    assert execute.main() == 1
    assert "no such episode" in capsys.readouterr().out
    assert not (project / "_build" / "executed").exists()

    write_chapter(project, "print('hello')")
    (project / "_toc.yml").write_text("root: book/part/chapter\n")
    assert execute.main() == 0
    assert printed(project / "_build" / "executed" / NAME) == "hello\n"
