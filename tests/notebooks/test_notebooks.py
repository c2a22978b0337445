"""The committed notebooks: no outputs, one cell of parameters, all in the table of contents; and each one runs."""

import re
import subprocess
import sys

import nbformat
import pytest

from tools.chapters import ROOT, toc_entries, toc_notebooks
from tools.execute import ChapterError, execute_chapter, shared_digest

NOTEBOOKS = sorted(
    path.relative_to(ROOT).as_posix() for path in (ROOT / "book").rglob("*.ipynb") if "." not in path.stem
)
SMOKE = {
    "profile": "smoke",
    "seed": 0,
    "device": "auto",
}  # what `make book` uses: it then finds these executions stored


@pytest.fixture(scope="module")
def shared() -> str:
    return shared_digest()


def test_table_of_contents_and_folder_agree():
    pages = {path.relative_to(ROOT).with_suffix("").as_posix() for path in (ROOT / "book").rglob("*.md")}
    pages |= {name.removesuffix(".ipynb") for name in NOTEBOOKS}
    assert sorted(toc_entries()) == sorted(pages)
    assert sorted(toc_notebooks()) == NOTEBOOKS


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_outputs(name):
    code = [cell for cell in nbformat.read(ROOT / name, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in code] == [[]] * len(code)
    assert [cell.execution_count for cell in code] == [None] * len(code)
    # The same tool and options as the pre-commit hook, which also drops what papermill adds.
    options = ["--verify", "--keep-id", "--extra-keys", "metadata.papermill cell.metadata.papermill"]
    done = subprocess.run([sys.executable, "-m", "nbstripout", *options, ROOT / name], capture_output=True, text=True)
    assert done.returncode == 0, f"nbstripout would change {name}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_one_cell_of_parameters(name):
    cells = nbformat.read(ROOT / name, as_version=4).cells
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    values: dict = {}
    exec(tagged[0].source, values)
    assert {key: values[key] for key in SMOKE} == SMOKE


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_path_of_a_machine(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    found = re.findall(r"(?:/home/|/Users/|/root/|/tmp/|/mnt/|/work/|[A-Z]:\\\\)\S*", text)
    assert found == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_chapter_executes_at_smoke(name, shared):
    try:
        path, _ = execute_chapter(name, SMOKE, shared=shared)
    except ChapterError as error:
        pytest.fail(str(error), pytrace=False)
    executed = nbformat.read(path, as_version=4)
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code" and cell.source)
