"""Colour pictures in folders by class: Tiny ImageNet, ImageNet, or any set that is laid out as they are.

    <root>/train/<class>/.../<picture>        <root>/val/<class>/.../<picture>

lies as folders under `$BOOK_DATA_DIR/<name>`, or in tar archives (packed or not) in that folder, whose members' paths
end so. Pictures are decoded once, to one size, and memory-mapped from the cache. `classes.tsv`, where there is one
(number, folder, words), says in which order the classes are numbered and what they are called; else their folders'
names do.

Of Tiny ImageNet, `tiny-imagenet-200.zip` as it is published will do, too: its pictures to test on are sorted into
classes by its list, and a hundred of its two hundred classes are taken, in a random order that is always the same.
"""

import io
import re
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image
from tqdm import tqdm

from lib.data.glyphs import redraw
from lib.data.mnist import FACES
from lib.data.outlines import fill, outline, thin
from lib.data.store import (
    IMAGE_SIZE,
    DataError,
    DataMissing,
    StandInWarning,
    array_digest,
    cache_dir,
    data_dir,
    file_stamps,
    load_array,
    make_cache_folder,
    save_array,
)

TINY = "tiny-imagenet-100"
MEMBER = re.compile(r"(?:.*/)?(?P<part>train|val)/(?P<folder>[^/]+)/(?:.*/)?[^/]+\.(?:jpe?g|png)", re.IGNORECASE)
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz")
OFFICIAL = {TINY: "tiny-imagenet-200.zip"}
CHOSEN, ORDER_SEED = 100, 1993  # classes of the official archive, and the seed of their order
STANDIN_CLASSES = "ABCDEFGHJKLMNPRSTUXZ"
STANDIN = {"train": (20, 8101), "val": (4, 8102)}  # drawings of a letter and face, seed


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures to train on, then pictures to test on, with their classes.

    images: uint8 (N, S, S, 3). labels: int64 (N,). training: how many of them, the first ones, are to train on.
    digest: sha256 of the bytes of the images, then of the labels. is_standin: made-up pictures.
    """

    name: str
    images: UInt8[np.ndarray, "n size size 3"]
    labels: Int64[np.ndarray, "n"]
    training: int
    class_names: tuple[str, ...]
    digest: str
    is_standin: bool

    def __len__(self) -> int:
        """How many pictures."""
        return len(self.images)


def load_pictures(name: str = TINY, size: int = 64) -> Pictures:
    """The pictures under `$BOOK_DATA_DIR/<name>`, `size` pixels a side; the stand-in, with a warning, where none are.

    Larger or oblong ones are scaled, then cut around their middle. Raises DataError if a file is damaged, if a class
    has no pictures to train on or to test on, or if the cache folder cannot be written.
    """
    try:
        return _load(name, size)
    except DataMissing as missing:
        warnings.warn(f"Letters drawn in colours stand in for {name}. {missing}", StandInWarning, stacklevel=2)
        return make_pictures(size)


def make_pictures(size: int = 64) -> Pictures:
    """The stand-in: capital letters of five typefaces, each drawing in colours of its own; 100 of each to train on."""
    drawn = {part: _coloured_letters(count, seed, size) for part, (count, seed) in STANDIN.items()}
    images, labels = (np.concatenate([each[i] for each in drawn.values()]) for i in range(2))
    digest = _digest(images, labels)
    return Pictures("coloured letters", images, labels, len(drawn["train"][1]), tuple(STANDIN_CLASSES), digest, True)


def _coloured_letters(count: int, seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    kinds = [(face, letter) for face in FACES for letter in range(len(STANDIN_CLASSES))]
    shapes = np.stack([fill(outline(face, ord(STANDIN_CLASSES[letter])), IMAGE_SIZE, box=76) for face, letter in kinds])
    drawings = np.concatenate([redraw(skeleton, count, rng, pen=4) for skeleton in thin(shapes)])
    labels = np.repeat([letter for _, letter in kinds], count).astype(np.int64)
    ink, ground = rng.integers(0, 256, (2, len(labels), 1, 1, 3))
    slope = rng.uniform(-0.5, 0.5, (len(labels), 2, 1, 1, 1))
    rows, columns = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE] - IMAGE_SIZE / 2
    images = np.empty((len(labels), size, size, 3), np.uint8)
    for i, drawing in enumerate(drawings):
        shade = slope[i, 0] * rows[..., None] + slope[i, 1] * columns[..., None]
        picture = np.where(drawing[..., None] > 0, ink[i], (ground[i] + shade).clip(0, 255)).astype(np.uint8)
        images[i] = np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BOX))
    order = rng.permutation(len(labels))
    return images[order], labels[order]


def _load(name: str, size: int) -> Pictures:
    root = data_dir() / name if data_dir() else None
    official = data_dir() / OFFICIAL[name] if data_dir() and name in OFFICIAL else None
    if root is None or not root.is_dir():
        if official is None or not official.is_file():
            files = f"{name}/train and {name}/val, or archives of them"
            files += f", or {OFFICIAL[name]}" if name in OFFICIAL else ""
            raise DataMissing(f"Set BOOK_DATA_DIR to a folder that holds {files}.")
        root, archives = official, [official]
    else:
        archives = sorted(path for path in root.iterdir() if path.name.endswith(ARCHIVES))
        if not archives and not (root / "train").is_dir():
            raise DataMissing(f"There is neither a folder train nor a tar archive in {root}.")
    stamps = file_stamps(archives or [root / "train", root / "val"])
    key = f"pictures-{name}-{size}"
    if cached := load_array(key, matches=lambda record: record["source"] == stamps):
        images, record = cached
        labels = np.array(record["labels"], np.int64)
        return Pictures(
            name, images, labels, record["training"], tuple(record["class_names"]), record["pictures"], False
        )
    make_cache_folder(cache_dir())  # fail before the work, not after it
    listed, members = _read_official(official) if root == official else (_listed(root), _members(root, archives))
    pictures = _decode_all(name, root, listed, members, size)
    details = {
        "source": stamps,
        "labels": pictures.labels.tolist(),
        "training": pictures.training,
        "class_names": pictures.class_names,
        "pictures": pictures.digest,
    }
    save_array(key, pictures.images, details)
    return pictures


def _decode_all(name: str, root: Path, listed: str, members: Iterator[tuple[str, bytes]], size: int) -> Pictures:
    found: dict[str, list[tuple[str, str, np.ndarray]]] = {"train": [], "val": []}
    for path, content in tqdm(members, desc=f"decoding {name}", leave=False, disable=None):
        if match := MEMBER.fullmatch(path):
            found[match["part"].lower()].append((match["folder"], path, _decode(root, path, content, size)))
    folders, names = _classes(root, listed, {folder for part in found.values() for folder, _, _ in part})
    for part, pictures in found.items():
        if missing := sorted(set(folders) - {folder for folder, _, _ in pictures}):
            raise DataError(f"{root} has no pictures in {part} of {len(missing)} classes, such as {missing[0]}.")
    ordered = [sorted(found[part], key=lambda each: each[1]) for part in ("train", "val")]
    images = np.stack([picture for part in ordered for _, _, picture in part])
    labels = np.array([folders[folder] for part in ordered for folder, _, _ in part], np.int64)
    return Pictures(name, images, labels, len(ordered[0]), names, _digest(images, labels), is_standin=False)


def _members(root: Path, archives: list[Path]) -> Iterator[tuple[str, bytes]]:
    """Path and content of each file, whether or not it is a picture."""
    for archive in archives:
        try:
            with tarfile.open(archive) as tar:
                for member in tar:
                    if member.isfile():
                        yield member.name, tar.extractfile(member).read()
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            raise DataError(f"{archive} is damaged ({error}). Put the original file there.") from error
    if not archives:
        for part in ("train", "val"):
            for path in sorted((root / part).rglob("*")):
                if path.is_file():
                    yield path.relative_to(root).as_posix(), path.read_bytes()


def _read_official(path: Path) -> tuple[str, Iterator[tuple[str, bytes]]]:
    """Of the published archive: the classes that are taken, as `classes.tsv` lists them, and their pictures, under
    paths by class."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            root = next(name for name in names if name.endswith("words.txt")).removesuffix("words.txt")
            words = dict(line.split("\t", 1) for line in archive.read(f"{root}words.txt").decode().splitlines())
            lines = archive.read(f"{root}val/val_annotations.txt").decode().splitlines()
            folder_of = dict(line.split("\t")[:2] for line in lines)
            folders = sorted(
                {match["folder"] for name in names if "/train/" in name and (match := MEMBER.fullmatch(name))}
            )
    except (zipfile.BadZipFile, zlib.error, OSError, KeyError, StopIteration, ValueError) as error:
        raise DataError(f"{path} is not the published archive ({error!r}). Put the original file there.") from error
    order = np.random.RandomState(ORDER_SEED).permutation(len(folders))[:CHOSEN]
    chosen = [folders[at] for at in order]
    taken = set(chosen)
    listed = "".join(f"{number}\t{folder}\t{words.get(folder, folder)}\n" for number, folder in enumerate(chosen))

    def members() -> Iterator[tuple[str, bytes]]:
        try:
            with zipfile.ZipFile(path) as archive:
                for name in names:
                    file, by_class = name.rsplit("/", 1)[-1], name
                    if file in folder_of:
                        by_class = f"{root}val/{folder_of[file]}/images/{file}"
                    match = MEMBER.fullmatch(by_class)
                    if match and match["folder"] in taken:
                        yield by_class, archive.read(name)
        except (zipfile.BadZipFile, zlib.error, OSError) as error:
            raise DataError(f"{path} is damaged ({error}). Put the original file there.") from error

    return listed, members()


def _decode(root: Path, path: str, content: bytes, size: int) -> UInt8[np.ndarray, "size size 3"]:
    try:
        with Image.open(io.BytesIO(content)) as image:
            picture = image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path} in {root} is not a picture that can be decoded ({error}). Replace it.") from error
    shorter = min(picture.size)
    if shorter != size:
        scaled = [max(size, round(side * size / shorter)) for side in picture.size]
        picture = picture.resize(scaled, Image.Resampling.BILINEAR)
    left, top = ((side - size) // 2 for side in picture.size)
    return np.asarray(picture.crop((left, top, left + size, top + size)))


def _listed(root: Path) -> str:
    """The text of `classes.tsv`; empty if there is none."""
    path = root / "classes.tsv"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _classes(root: Path, listed: str, seen: set[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Number of each class folder, and the classes' names in this order."""
    if not listed:
        folders = sorted(seen)
        return {folder: number for number, folder in enumerate(folders)}, tuple(folders)
    lines, where = [line.split("\t") for line in listed.splitlines() if line.strip()], root / "classes.tsv"
    try:
        numbers = {folder: int(number) for number, folder, *_ in lines}
    except ValueError as error:
        raise DataError(f"{where} is no list of number, folder and words: {error}. Restore or remove it.") from error
    if sorted(numbers.values()) != list(range(len(lines))) or not seen <= numbers.keys():
        raise DataError(f"{where} does not number the classes of {root} from 0 on. Restore or remove it.")
    by_number = sorted(lines, key=lambda line: int(line[0]))
    return numbers, tuple(words[0] if words else folder for _, folder, *words in by_number)


def _digest(images: np.ndarray, labels: np.ndarray) -> str:
    return array_digest(np.frombuffer(array_digest(images).encode() + array_digest(labels).encode(), np.uint8))
