"""Omniglot from archives: order, names, and every way in which an archive can be wrong."""

import dataclasses
import errno
import multiprocessing
import os
import shutil
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from lib.data import (
    CacheWarning,
    Characters,
    DataError,
    DataMissing,
    StandInWarning,
    load_characters,
    load_omniglot,
    omniglot,
)
from lib.data.omniglot import OMNIGLOT
from lib.data.store import array_digest
from lib.data.torchvision_import import import_torchvision


@pytest.fixture
def given(small, monkeypatch: pytest.MonkeyPatch):
    """The small Omniglot, written to where BOOK_DATA_DIR points."""
    monkeypatch.setenv("BOOK_DATA_DIR", str(small.write()))
    return small


def load(small, **options):
    return load_omniglot(release=small.release, **{"download": False} | options)


def test_order_by_character_number_whatever_the_order_in_the_archive(given):
    characters = load(given)
    assert (characters.images() == given.ink).all()
    assert list(characters.class_names) == given.names
    assert characters.digest == given.release.digest and not characters.is_standin


def test_decoded_once_then_mapped_from_the_cache(given, monkeypatch: pytest.MonkeyPatch):
    load(given)
    monkeypatch.setattr(omniglot, "decode_archives", None)
    again = load(given)
    assert isinstance(again.packed, np.memmap)
    assert (again.images() == given.ink).all() and list(again.class_names) == given.names
    shutil.rmtree(given.folder)
    monkeypatch.delenv("BOOK_DATA_DIR")
    assert load(given).digest == given.release.digest


def test_a_damaged_cache_is_made_anew(given, cache: Path):
    load(given)
    (path,) = cache.glob("*.npy")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.warns(CacheWarning, match=path.name):
        assert (load(given).images() == given.ink).all()
    assert isinstance(load(given).packed, np.memmap)


def test_archives_given_later_are_checked_though_there_is_a_cache(given):
    load(given)
    given.paths[0].write_bytes(b"garbage")
    with pytest.raises(DataError, match=str(given.paths[0])):
        load(given)


def test_garbage_in_place_of_an_archive(given, cache: Path):
    given.paths[1].write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(DataError, match=f"{given.paths[1]} is damaged.*expected a zip archive of 6 drawings.*Replace"):
        load(given)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_archive(given, share: float):
    content = given.paths[0].read_bytes()
    given.paths[0].write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=str(given.paths[0])):
        load(given)


@pytest.mark.parametrize("place", [0.2, 0.4, 0.6, 0.8])
def test_a_flipped_bit_in_the_middle(given, place: float):
    content = bytearray(given.paths[0].read_bytes())
    content[int(len(content) * place)] ^= 8
    given.paths[0].write_bytes(content)
    with pytest.raises(DataError, match=str(given.paths[0])):
        load(given)


def test_a_missing_drawing(given):
    given.write({given.member(2, 3): None})
    with pytest.raises(
        DataError, match=f"{given.paths[0]}.*expected 9 drawings, found: 8 drawings, 1 missing: 0002_03.png"
    ):
        load(given)


def test_a_drawing_too_many(given):
    given.write({"images_evaluation/Alpha/character02/0006_01.png": given.png(given.ink[0, 0])})
    with pytest.raises(DataError, match=f"{given.paths[1]}.*7 drawings, 1 not part of it: 0006_01.png"):
        load(given)


def test_a_drawing_that_is_no_image(given):
    given.write({given.member(4, 2): b"not a picture"})
    with pytest.raises(DataError, match=f"{given.paths[1]}.*expected a PNG image as {given.member(4, 2)}"):
        load(given)


def test_a_drawing_cut_short(given):
    given.write({given.member(1, 1): given.png(given.ink[0, 0])[:200]})
    with pytest.raises(DataError, match=given.member(1, 1)):
        load(given)


def test_a_drawing_of_another_size(given):
    given.write({given.member(5, 1): given.png(given.ink[0, 0, :28, :20])})
    with pytest.raises(DataError, match=f"expected 105x105 pixels in {given.member(5, 1)}, found: 28x20"):
        load(given)


def test_one_pixel_that_differs(given):
    other = given.ink[2, 1].copy()
    other[50, 50] ^= True
    given.write({given.member(3, 2): given.png(other)})
    with pytest.raises(
        DataError, match=f"not Omniglot's: expected sha256 {given.release.digest}, found [0-9a-f]{{64}}"
    ):
        load(given)


def test_one_of_the_archives_missing(given):
    given.paths[1].unlink()
    with pytest.raises(DataError, match=f"{given.paths[1]} is missing") as caught:
        load(given)
    assert not isinstance(caught.value, DataMissing)


def test_nothing_there(small, cache: Path):
    with pytest.raises(DataMissing, match="images_background.zip.*BOOK_DATA_DIR"):
        load(small)


def test_a_cache_folder_that_cannot_be_written(given, cache: Path, monkeypatch: pytest.MonkeyPatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=f"{cache} cannot be written: No space left on device.*BOOK_CACHE_DIR"):
        load(given)
    assert list(cache.iterdir()) == []


def test_a_file_in_place_of_the_cache_folder(given, cache: Path, monkeypatch: pytest.MonkeyPatch):
    cache.write_text("")
    monkeypatch.setattr(omniglot, "decode_archives", None)  # it fails before the work
    with pytest.raises(DataError, match=f"{cache} cannot be written"):
        load(given)


def _load_in_process(small, barrier, results) -> None:
    barrier.wait()
    results.put(array_digest(load(small).packed))


def test_two_processes_that_decode_at_once(given, cache: Path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_load_in_process, args=(given, barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [given.release.digest] * 2
    for process in processes:
        process.join(60)
    assert len(list(cache.iterdir())) == 2
    assert isinstance(load(given).packed, np.memmap)


def fake_torchvision_class(small, error: Exception | None = None):
    """Does what torchvision's Omniglot does with download=True: an archive and its unpacked folder below the root."""

    def download(root: str, background: bool, download: bool) -> None:
        assert download
        folder = Path(root, "omniglot-py")
        source = small.paths[0 if background else 1]
        (folder / source.stem).mkdir(parents=True)
        if error and not background:
            raise error
        shutil.copy(source, folder)

    return download


def test_download_keeps_the_archives_alone(small, cache: Path, monkeypatch: pytest.MonkeyPatch):
    small.write()
    monkeypatch.setattr(import_torchvision().datasets, "Omniglot", fake_torchvision_class(small))
    assert (load(small, download=True).images() == small.ink).all()
    kept = sorted(path.name for path in (cache / "downloads").rglob("*"))
    assert kept == ["images_background.zip", "images_evaluation.zip", "omniglot-py"]
    for path in cache.glob("omniglot*"):
        path.unlink()
    assert (load(small).images() == small.ink).all()  # from the kept archives, without a network


@pytest.mark.parametrize(
    "error", [URLError("Name or service not known"), TimeoutError("timed out"), RuntimeError("File corrupted")]
)
def test_a_download_that_fails(small, cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception):
    small.write()
    monkeypatch.setattr(import_torchvision().datasets, "Omniglot", fake_torchvision_class(small, error))
    with pytest.raises(DataMissing, match="could not be downloaded.*BOOK_DATA_DIR"):
        load(small, download=True)
    assert list((cache / "downloads").iterdir()) == []


def test_a_download_that_finds_the_disk_full(small, cache: Path, monkeypatch: pytest.MonkeyPatch):
    small.write()
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(import_torchvision().datasets, "Omniglot", fake_torchvision_class(small, full))
    with pytest.raises(DataError, match=f"{cache}.* cannot be written: No space left") as caught:
        load(small, download=True)
    assert not isinstance(caught.value, DataMissing)
    assert list((cache / "downloads").iterdir()) == []


def test_auto_does_not_hide_damage_behind_the_stand_in(given, monkeypatch: pytest.MonkeyPatch):
    given.paths[0].write_bytes(b"garbage")
    with pytest.raises(DataError, match=str(given.paths[0])):
        load_characters(download=False)


def test_auto_says_that_glyphs_stand_in(monkeypatch: pytest.MonkeyPatch):
    glyphs = Characters("glyphs", np.zeros((1, 20, 105, 14), np.uint8), ("Latin U+0041",), "", is_standin=True)
    monkeypatch.setattr("lib.data.characters.load_glyphs", lambda: glyphs)
    with pytest.warns(StandInWarning, match="stand in for Omniglot"):
        assert load_characters(download=False) is glyphs
    with pytest.raises(DataMissing):
        load_characters("omniglot", download=False)


def test_another_source_is_refused():
    with pytest.raises((ValueError, TypeError)):
        load_characters("mnist")


def test_real_omniglot(real_data: Path | None, session_cache: Path, small, monkeypatch):
    """The whole way and what is known of the data, on the real archives if there are some, else on small ones."""
    folder, release = real_data, OMNIGLOT
    if folder is None or not (folder / "omniglot-py").is_dir():
        folder, release = small.write(), small.release
    monkeypatch.setenv("BOOK_DATA_DIR", str(folder))
    monkeypatch.setenv("BOOK_CACHE_DIR", str(session_cache))
    load_omniglot(download=False, release=release)
    characters = load_omniglot(download=False, release=release)
    assert isinstance(characters.packed, np.memmap)
    assert array_digest(characters.packed) == release.digest == characters.digest
    assert len(set(characters.class_names)) == len(characters.class_names) == release.classes
    drawings = characters.packed.reshape(-1, 105 * 14)
    distinct = len({drawing.tobytes() for drawing in drawings})
    if release is not OMNIGLOT:
        assert distinct == len(drawings)
        return
    assert characters.packed.shape == (1623, 20, 105, 14)
    assert [len(part) for part in characters.train_test_split()] == [1200, 423]
    assert len({name.split("/")[0] for name in characters.class_names}) == 50
    assert distinct == len(drawings) - 1  # as published, two are the same:
    braille = characters.images([characters.class_names.index("Braille/character01")])[0]
    assert (braille[2] == braille[18]).all()


def test_the_release_names_every_character_once():
    numbers = [number for _, first, last in OMNIGLOT.archives for number in range(first, last + 1)]
    assert numbers == list(range(1, 1624)) and OMNIGLOT.classes == 1623
    assert dataclasses.replace(OMNIGLOT, drawers=3).drawers == 3
