"""The cache: round trips, damage, folders that cannot be written, several processes at once."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from lib.data import store
from lib.data.store import CacheWarning, Characters, DataError, cache_dir, data_dir, load_array, save_array


def array(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (7, 3, 105, 14), dtype=np.uint8)


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.name.startswith(".") or path.suffix == ".tmp"]


def test_round_trip_is_memory_mapped_and_read_only(cache: Path):
    digest = save_array("a", array(), {"class_names": ["x"]})
    loaded, record = load_array("a", digest)
    assert isinstance(loaded, np.memmap) and not loaded.flags.writeable
    assert (loaded == array()).all() and record["class_names"] == ["x"]
    assert leftovers(cache) == [] and len(list(cache.iterdir())) == 2


def test_nothing_cached_is_none_without_a_warning(cache: Path, recwarn: pytest.WarningsRecorder):
    assert load_array("a") is None
    save_array("a", array(), {})
    (cache / "a.json").unlink()  # as if killed between the two files
    assert load_array("a") is None
    assert not recwarn.list


def test_a_record_that_does_not_match_counts_as_none_and_stays(cache: Path):
    save_array("a", array(), {"recipe": 1})
    assert load_array("a", matches=lambda record: record["recipe"] == 2) is None
    assert load_array("a", matches=lambda record: record["recipe"] == 1) is not None


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:20]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)),
        lambda path: path.write_bytes(path.read_bytes().replace(b"|u1", b"|i1")),
        lambda path: path.unlink(),
    ],
    ids=["bit", "short", "header", "empty", "zip", "type", "missing"],
)
def test_a_damaged_array_is_deleted_with_a_warning(cache: Path, damage):
    save_array("a", array(), {})
    (path,) = cache.glob("*.npy")
    damage(path)
    with pytest.warns(CacheWarning, match=path.name):
        assert load_array("a") is None
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"array": 3}', "\udcff"])
def test_a_damaged_record_is_deleted_with_a_warning(cache: Path, content: str):
    save_array("a", array(), {})
    (cache / "a.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.warns(CacheWarning, match=r"a\.json"):
        assert load_array("a") is None
    assert not (cache / "a.json").exists()


def test_an_intact_array_of_other_content_is_refused(cache: Path):
    save_array("a", array(), {})
    with pytest.warns(CacheWarning, match="expected 0000"):
        assert load_array("a", "0" * 64) is None


def test_a_record_cannot_point_outside_the_cache(cache: Path, tmp_path: Path):
    save_array("a", array(), {})
    (path,) = cache.glob("*.npy")
    outside = path.rename(tmp_path / path.name)
    record = json.loads((cache / "a.json").read_text())
    (cache / "a.json").write_text(json.dumps(record | {"array": f"../{path.name}"}))
    with pytest.warns(CacheWarning):
        assert load_array("a") is None
    assert outside.exists()


def test_a_file_in_place_of_the_cache_folder(cache: Path):
    cache.write_text("")
    assert load_array("a") is None
    with pytest.raises(DataError, match=f"{cache}.*File exists.*BOOK_CACHE_DIR"):
        save_array("a", array(), {})
    assert cache.read_text() == ""


@pytest.mark.parametrize("function", ["mkdir", "open", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_folder_that_cannot_be_written(cache: Path, monkeypatch: pytest.MonkeyPatch, function: str, number: int):
    real = getattr(os, function)

    def fail(*args, **kwargs):
        if function == "open" and not args[1] & os.O_CREAT:
            return real(*args, **kwargs)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        with pytest.raises(DataError, match=f"{cache} cannot be written: {os.strerror(number)}.*BOOK_CACHE_DIR"):
            save_array("a", array(), {})
    assert not cache.exists() or list(cache.iterdir()) == []


def test_a_write_that_the_system_stops_midway(cache: Path):
    """A real limit on the size of files, in a process of its own."""
    resource = pytest.importorskip("resource")
    code = "import numpy as np; from lib.data.store import save_array; save_array('a', np.zeros(200_000, np.uint8), {})"
    result = subprocess.run(
        [sys.executable, "-c", code],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        env=os.environ | {"PYTHONPATH": str(Path(store.__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert f"DataError: The cache folder {cache} cannot be written: File too large" in result.stderr
    assert list(cache.iterdir()) == []


def test_a_damaged_cache_in_a_folder_that_cannot_be_written(cache: Path, monkeypatch: pytest.MonkeyPatch):
    save_array("a", array(), {})
    (cache / "a.json").write_text("{")

    def fail(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "unlink", fail)
    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.warns(CacheWarning), pytest.raises(DataError, match=f"{cache} cannot be written: Read-only"):
        load_array("a")


def _build_and_load(barrier, results, seed: int) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(10):
            barrier.wait()
            save_array("a", array(), {"seed": seed})
            loaded, _ = load_array("a")
            results.put((bool((loaded == array()).all()), [str(warning.message) for warning in caught]))


def test_processes_that_build_at_the_same_time(cache: Path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    processes = [context.Process(target=_build_and_load, args=(barrier, results, seed)) for seed in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in range(30)]
    for process in processes:
        process.join(60)
    assert found == [(True, [])] * 30
    assert leftovers(cache) == [] and len(list(cache.iterdir())) == 2


def _save_forever() -> None:
    for seed in range(10**9):
        save_array("a", array(seed % 2), {"seed": seed})


def test_killed_at_any_moment_the_cache_is_whole(cache: Path, recwarn: pytest.WarningsRecorder):
    save_array("a", array(), {"seed": 0})
    for attempt in range(8):
        process = multiprocessing.get_context("fork").Process(target=_save_forever)
        process.start()
        time.sleep(0.05 + 0.013 * attempt)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        loaded, record = load_array("a")
        assert (loaded == array(record["seed"] % 2)).all()
    assert not [warning for warning in recwarn if issubclass(warning.category, CacheWarning)]


def test_data_dir_and_cache_dir_follow_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert data_dir() is None
    monkeypatch.setenv("BOOK_DATA_DIR", str(tmp_path))
    assert data_dir() == tmp_path
    monkeypatch.setenv("BOOK_DATA_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="BOOK_DATA_DIR is .*nowhere, which is not a folder"):
        data_dir()
    monkeypatch.delenv("BOOK_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "networks-that-remember"


@pytest.mark.parametrize(("classes", "train"), [(1623, 1200), (404, 299), (5, 4)])
def test_train_and_test_classes_are_disjoint_and_in_proportion(classes: int, train: int):
    packed = np.zeros((classes, 2, 105, 14), np.uint8)
    split = Characters("x", packed, ("",) * classes, "", is_standin=True).train_test_split()
    assert [len(part) for part in split] == [train, classes - train]
    assert np.concatenate(split).tolist() == list(range(classes))


def test_another_share_of_the_classes_can_be_trained_on():
    characters = Characters("x", np.zeros((1623, 2, 105, 14), np.uint8), ("",) * 1623, "", is_standin=True)
    assert [len(part) for part in characters.train_test_split(1209)] == [1209, 414]
    train, test = characters.train_test_split(1209, shuffled=True)
    assert len(train) == 1209
    assert sorted([*train, *test]) == list(range(1623))
    assert 0.6 < (train < 1209).mean() < 0.9  # 1209 of 1623 are to be expected


def test_images_unpack_to_ink_and_paper():
    ink = np.random.default_rng(1).random((4, 2, 105, 105)) < 0.3
    characters = Characters("x", np.packbits(ink, axis=-1), ("",) * 4, "", is_standin=True)
    assert (characters.images() == ink).all() and characters.images().dtype == np.uint8
    assert (characters.images([2, 0]) == ink[[2, 0]]).all()
    assert len(characters) == 4 and characters.drawers == 2
