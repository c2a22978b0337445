"""torchvision imports with any build of torch, and is left alone where it imports by itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lib
from lib.data import torchvision_import
from lib.data.torchvision_import import import_torchvision


def run(code: str, *paths: Path) -> str:
    """Standard output of a fresh interpreter that finds `paths` before all else."""
    root = Path(lib.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*paths, root)))}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def stand_in(folder: Path, source: str) -> Path:
    """A package named torchvision with this source."""
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text(source)
    return folder


def test_torchvision_works_through_it():
    torchvision = import_torchvision()
    assert torchvision.datasets.Omniglot.folder == "omniglot-py"
    assert len(torchvision.utils.make_grid([torch.zeros(3, 4, 4)] * 2)) == 3
    assert import_torchvision() is torchvision


def test_the_operators_are_declared_only_where_the_import_fails_even_after_a_failed_attempt():
    code = (
        "from lib.data import torchvision_import as t\n"
        "try:\n import torchvision\n plain = 'healthy'\nexcept RuntimeError:\n plain = 'fails'\n"
        "t.import_torchvision().transforms.ToTensor()\nprint(plain, len(t._declared))"
    )
    assert run(code) in ("healthy 0", "fails 1")


def test_a_healthy_torchvision_is_left_alone(tmp_path: Path):
    folder = stand_in(tmp_path, "loads = globals().get('loads', 0) + 1")
    code = "from lib.data import torchvision_import as t; print(t.import_torchvision().loads, t._declared)"
    assert run(code, folder) == "1 []"


def test_another_failure_is_not_hidden(tmp_path: Path):
    folder = stand_in(tmp_path, "raise RuntimeError('something else')")
    code = (
        "from lib.data import torchvision_import as t\n"
        "try:\n t.import_torchvision()\nexcept RuntimeError as error:\n print(error, t._declared)"
    )
    assert run(code, folder) == "something else []"


@pytest.mark.parametrize(
    ("missing", "message"), [("torchvision", "torchvision is not installed.*requirements.txt"), ("PIL", "PIL is gone")]
)
def test_an_absent_package(monkeypatch: pytest.MonkeyPatch, missing: str, message: str):
    def fail(name: str):
        raise ModuleNotFoundError(f"{missing} is gone", name=missing)

    monkeypatch.setattr(torchvision_import.importlib, "import_module", fail)
    with pytest.raises(ImportError, match=message):
        import_torchvision()
