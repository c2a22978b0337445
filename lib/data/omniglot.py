"""Omniglot (Lake, Salakhutdinov and Tenenbaum 2015): 1623 handwritten characters of 50 alphabets, 20 drawers each.

The two archives are looked for in `$BOOK_DATA_DIR/omniglot-py`, then in the cache, then downloaded by torchvision. What
is checked is the decoded pixels, not the archive, which may have been packed anew. Classes are ordered by the character
number in the file names, 0001 to 1623, never by the order of a folder.
"""

import io
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from tqdm import tqdm

from lib.data.download import download_files, downloads_dir
from lib.data.store import (
    IMAGE_SIZE,
    Characters,
    DataError,
    DataMissing,
    array_digest,
    cache_dir,
    data_dir,
    file_stamps,
    load_array,
    make_cache_folder,
    save_array,
)

FOLDER = "omniglot-py"  # torchvision's name for it
MEMBER = re.compile(r"images_\w+/(?P<name>[^/]+/character\d+)/(?P<character>\d{4})_(?P<drawer>\d{2})\.png")
DAMAGED = (zipfile.BadZipFile, zlib.error, OSError, ValueError, SyntaxError, EOFError, RuntimeError)


@dataclass(frozen=True)
class Release:
    """What the archives hold: (file name, first character number, last) of each, and the sha256 of the packed bits."""

    archives: tuple[tuple[str, int, int], ...]
    digest: str
    drawers: int = 20

    @property
    def classes(self) -> int:
        """Characters in all archives."""
        return sum(last - first + 1 for _, first, last in self.archives)


OMNIGLOT = Release(
    archives=(("images_background.zip", 1, 964), ("images_evaluation.zip", 965, 1623)),
    digest="f7b5fcd92e1615006e95c8f42b4c6b67f1fdb4178b38b300fcf9aa5c8da846b1",
)


def load_omniglot(*, download: bool = True, release: Release = OMNIGLOT) -> Characters:
    """Omniglot, decoded once and then memory-mapped from the cache.

    Raises DataMissing if it is nowhere and cannot be downloaded, DataError if an archive is damaged or is not this data
    set, or if the cache folder cannot be written.
    """
    given = _find_archives(data_dir(), release)
    stamps = file_stamps(given) if given else None
    # A cache made from other files than the given ones is not trusted to vouch for them.
    cached = load_array("omniglot", release.digest, lambda record: stamps in (None, record["source"]))
    if cached:
        packed, record = cached
        return Characters("omniglot", packed, tuple(record["class_names"]), release.digest, is_standin=False)
    make_cache_folder(cache_dir())  # fail before the work, not after it
    archives = given or _find_archives(downloads_dir(), release)
    if not archives:
        if not download:
            raise DataMissing(_where_to_put(release))
        download_files(
            "Omniglot",
            [f"{FOLDER}/{name}" for name, _, _ in release.archives],
            lambda datasets, root: [datasets.Omniglot(root, background, download=True) for background in (True, False)],
        )
        archives = _find_archives(downloads_dir(), release)
    packed, class_names = decode_archives(archives, release)
    save_array("omniglot", packed, {"source": file_stamps(archives), "class_names": class_names})
    packed.flags.writeable = False
    return Characters("omniglot", packed, tuple(class_names), release.digest, is_standin=False)


def decode_archives(
    archives: list[Path], release: Release
) -> tuple[UInt8[np.ndarray, "classes drawers 105 14"], list[str]]:
    """Packed bits, uint8 (classes, drawers, 105, 14), and class names. Raises DataError if not the release's."""
    packed = np.zeros((release.classes, release.drawers, IMAGE_SIZE, (IMAGE_SIZE + 7) // 8), np.uint8)
    class_names: list[str] = []
    with tqdm(total=release.classes * release.drawers, desc="decoding Omniglot", leave=False, disable=None) as bar:
        for path, (_, first, last) in zip(archives, release.archives, strict=True):
            expected = {(c, d) for c in range(first, last + 1) for d in range(1, release.drawers + 1)}
            try:
                with zipfile.ZipFile(path) as archive:
                    members = _members(path, archive, expected)
                    offset = len(class_names) - first
                    for (character, drawer), (member, name) in sorted(members.items()):
                        if drawer == 1:
                            class_names.append(name)
                        packed[offset + character, drawer - 1] = _decode(path, archive, member)
                        bar.update()
            except DataError:
                raise
            except DAMAGED as error:
                raise _damaged(path, f"a zip archive of {len(expected)} drawings", f"{error}") from error
    digest = array_digest(packed)
    if digest != release.digest:
        files = " and ".join(str(path) for path in archives)
        raise DataError(
            f"The pixels in {files} are not Omniglot's: expected sha256 {release.digest}, found {digest}. "
            f"Put the original {' and '.join(name for name, _, _ in release.archives)} there."
        )
    return packed, class_names


def _members(
    path: Path, archive: zipfile.ZipFile, expected: set[tuple[int, int]]
) -> dict[tuple[int, int], tuple[str, str]]:
    """Archive member and class name of each (character, drawer)."""
    members: dict[tuple[int, int], tuple[str, str]] = {}
    for member in archive.namelist():
        if match := MEMBER.fullmatch(member):
            members[int(match["character"]), int(match["drawer"])] = member, match["name"]
    if members.keys() != expected:
        missing, foreign = sorted(expected - members.keys()), sorted(members.keys() - expected)
        found = f"{len(members)} drawings"
        for what, keys in (("missing", missing), ("not part of it", foreign)):
            if keys:
                names = [f"{character:04}_{drawer:02}.png" for character, drawer in keys]
                found += f", {len(names)} {what}: {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
        raise _damaged(path, f"{len(expected)} drawings", found)
    return members


def _decode(path: Path, archive: zipfile.ZipFile, member: str) -> UInt8[np.ndarray, "105 14"]:
    """Packed bits, uint8 (105, 14), of one drawing; the PNG has black strokes on white."""
    try:
        with Image.open(io.BytesIO(archive.read(member))) as image:
            pixels = np.asarray(image.convert("L"))
    except DAMAGED as error:
        raise _damaged(path, f"a PNG image as {member}", f"{error}") from error
    if pixels.shape != (IMAGE_SIZE, IMAGE_SIZE):
        size = "x".join(str(side) for side in pixels.shape)
        raise _damaged(path, f"{IMAGE_SIZE}x{IMAGE_SIZE} pixels in {member}", f"{size}")
    return np.packbits(pixels < 128, axis=-1)


def _damaged(path: Path, expected: str, found: str) -> DataError:
    return DataError(
        f"{path} is damaged or is not Omniglot: expected {expected}, found: {found}. "
        "Replace the file, or delete it to have it downloaded."
    )


def _where_to_put(release: Release) -> str:
    names = " and ".join(name for name, _, _ in release.archives)
    places = [str(folder / FOLDER) for folder in (data_dir(), downloads_dir()) if folder]
    return (
        f"Omniglot is not there: no {names} in {' or '.join(places)}. "
        f"Put them there, or set BOOK_DATA_DIR to a folder that holds {FOLDER}/."
    )


def _find_archives(folder: Path | None, release: Release) -> list[Path] | None:
    """The archives in `folder`/omniglot-py, or None if none is there. Raises DataError if only some are."""
    if folder is None:
        return None
    paths = [folder / FOLDER / name for name, _, _ in release.archives]
    missing = [path for path in paths if not path.is_file()]
    if len(missing) == len(paths):
        return None
    if missing:
        raise DataError(f"{missing[0]} is missing, but other archives of Omniglot are there. Put it there, too.")
    return paths
