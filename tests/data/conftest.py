"""A cache of its own for each test, and small archives in the form of Omniglot's."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib.data.omniglot import Release
from lib.data.store import array_digest, data_dir


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and no data beside it."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("BOOK_CACHE_DIR", str(folder))
    monkeypatch.delenv("BOOK_DATA_DIR", raising=False)
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path | None:
    """The folder of real data, if the tests were given one."""
    return data_dir()


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests that need data which take seconds to make."""
    return tmp_path_factory.mktemp("session-cache")


class SmallOmniglot:
    """Five characters by three drawers, in two archives; `write` can leave out or replace members."""

    def __init__(self, folder: Path):
        self.folder = folder
        rng = np.random.default_rng(5)
        self.ink = rng.random((5, 3, 105, 105)) < 0.1
        digest = array_digest(np.packbits(self.ink, axis=-1))
        self.release = Release((("images_background.zip", 1, 3), ("images_evaluation.zip", 4, 5)), digest, drawers=3)
        # The alphabets' names run against the character numbers, and «character» numbers start anew in each alphabet.
        self.names = [
            "Zeta/character01",
            "Zeta/character02",
            "Eta/character01",
            "Beta/character01",
            "Alpha/character01",
        ]

    @staticmethod
    def png(ink: np.ndarray, mode: str = "1") -> bytes:
        """Black strokes on white, as Omniglot's files are."""
        file = io.BytesIO()
        Image.fromarray(np.where(ink, 0, 255).astype(np.uint8)).convert(mode).save(file, "PNG")
        return file.getvalue()

    @property
    def paths(self) -> list[Path]:
        return [self.folder / "omniglot-py" / name for name, _, _ in self.release.archives]

    def member(self, character: int, drawer: int) -> str:
        part = "images_background" if character <= 3 else "images_evaluation"
        return f"{part}/{self.names[character - 1]}/{character:04}_{drawer:02}.png"

    def write(self, replace: dict[str, bytes | None] | None = None) -> Path:
        for path, (_, first, last) in zip(self.paths, self.release.archives, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            members = {
                self.member(character, drawer): self.png(
                    self.ink[character - 1, drawer - 1], mode="1" if drawer > 1 else "L"
                )
                for character in range(last, first - 1, -1)
                for drawer in (2, 3, 1)
            }
            part = next(iter(members)).split("/")[0]
            members |= {name: content for name, content in (replace or {}).items() if name.startswith(part)}
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.mkdir(part)
                for name, content in members.items():
                    if content is not None:
                        archive.writestr(name, content)
        return self.folder


@pytest.fixture
def small(tmp_path: Path) -> SmallOmniglot:
    """A small Omniglot; nothing is written before `small.write()`."""
    return SmallOmniglot(tmp_path / "data")
