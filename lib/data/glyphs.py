"""Glyphs: the stand-in for Omniglot where there is neither a copy nor a network.

Characters of many scripts, thinned to the path of a pen and redrawn by 20 «drawers» each, through random affine and
elastic distortion. No two classes look alike in any of the four rotations by 90 degrees, since the tasks make new
classes by rotation. Everything is a function of the fonts and of `SEED`.
"""

import hashlib
import unicodedata

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from tqdm import tqdm

from lib.data.outlines import characters_of, fill, font_path, outline, thin
from lib.data.store import IMAGE_SIZE, Characters, cache_dir, load_array, make_cache_folder, save_array

FONT = "DejaVuSans"
SEED = 20160519
DRAWERS = 20
BOX = 66  # pixels: longer side of an undistorted character
MOST_PER_SCRIPT = 80
TOLERANCE = 5  # pixels that a stroke may lie beside another and still be taken for it
ALIKE = 0.88  # two characters look alike if this share of either's strokes lies along the other's
SHORTEST = 50  # pixels of stroke: less is hardly a character
RECIPE = 1  # raise it when the drawings change, so that older caches are left alone

# Classes come in this order, so the last quarter, the test part, holds scripts that training never shows.
SCRIPTS: tuple[tuple[str, tuple[tuple[int, int], ...]], ...] = (
    ("Latin", ((0x41, 0x5A), (0x61, 0x7A), (0xDF, 0xFE), (0x180, 0x1BF), (0x250, 0x2AF))),
    ("Greek", ((0x391, 0x3C9), (0x3D0, 0x3E1))),
    ("Cyrillic", ((0x400, 0x52F),)),
    ("Canadian syllabics", ((0x1401, 0x1676),)),
    ("Arabic", ((0x621, 0x6D5),)),
    ("Armenian", ((0x531, 0x587),)),
    ("Hebrew", ((0x5D0, 0x5EA),)),
    ("Ogham", ((0x1681, 0x169A),)),
    ("Coptic", ((0x3E2, 0x3EF),)),
    ("Old Italic", ((0x10300, 0x10323),)),
    ("Georgian", ((0x10A0, 0x10FF),)),
    ("Lao", ((0xE81, 0xEDD),)),
    ("N'Ko", ((0x7C0, 0x7EA),)),
    ("Tifinagh", ((0x2D30, 0x2D65),)),
)


def load_glyphs() -> Characters:
    """The glyphs, made once (about 10 seconds) and then memory-mapped from the cache.

    Raises DataError if the cache folder cannot be written.
    """
    recipe = [RECIPE, hashlib.sha256(font_path(FONT).read_bytes()).hexdigest()]
    cached = load_array("glyphs", matches=lambda record: record["recipe"] == recipe)
    if cached:
        packed, record = cached
        return Characters("glyphs", packed, tuple(record["class_names"]), record["digest"], is_standin=True)
    make_cache_folder(cache_dir())  # fail before the work, not after it
    packed, class_names = make_glyphs()
    digest = save_array("glyphs", packed, {"recipe": recipe, "class_names": class_names})
    packed.flags.writeable = False
    return Characters("glyphs", packed, tuple(class_names), digest, is_standin=True)


def make_glyphs() -> tuple[UInt8[np.ndarray, "classes drawers size bytes"], list[str]]:
    """Packed drawings, uint8 (classes, 20, 105, 14), and class names such as "Greek U+03B1"."""
    skeletons, class_names = distinct_skeletons()
    rng = np.random.default_rng(SEED)
    packed = np.stack(
        [
            np.packbits(redraw(skeleton, DRAWERS, rng), axis=-1)
            for skeleton in tqdm(skeletons, desc="drawing glyphs", leave=False, disable=None)
        ]
    )
    return packed, class_names


def distinct_skeletons() -> tuple[Bool[np.ndarray, "classes size size"], list[str]]:
    """One skeleton per class, bool (classes, 105, 105), and class names.

    Of characters that look alike in any rotation by 90 degrees, the first is kept.
    """
    font = characters_of(FONT)
    candidates = [
        (script, code)
        for script, ranges in SCRIPTS
        for first, last in ranges
        for code in range(first, last + 1)
        if code in font and unicodedata.category(chr(code))[0] == "L" and not unicodedata.decomposition(chr(code))
    ]
    skeletons = thin(np.stack([fill(outline(FONT, code), IMAGE_SIZE, BOX) for _, code in candidates]))
    usable = (skeletons.sum((1, 2)) >= SHORTEST) & ~_has_dots(skeletons)
    candidates = [candidate for candidate, use in zip(candidates, usable, strict=True) if use]
    skeletons = skeletons[usable]
    similarity = rotated_similarity(skeletons)
    kept: list[int] = []
    count = dict.fromkeys((script for script, _ in SCRIPTS), 0)
    for index, (script, _) in enumerate(candidates):
        if count[script] < MOST_PER_SCRIPT and not (similarity[index, kept] >= ALIKE).any():
            kept.append(index)
            count[script] += 1
    return skeletons[kept], [f"{script} U+{code:04X}" for script, code in (candidates[index] for index in kept)]


def rotated_similarity(skeletons: Bool[np.ndarray, "n size size"]) -> Float32[np.ndarray, "n n"]:
    """How alike any two of bool (n, size, size) are, float32 (n, n) in [0, 1]: the highest over the four rotations.

    Of two drawings, the smaller of two shares: of the one's strokes within `TOLERANCE` of the other's, and in reverse.
    """
    count = len(skeletons)
    near = _dilate(skeletons, TOLERANCE)
    used = np.flatnonzero(skeletons.any((0, 1)) | skeletons.any((0, 2)))
    # Only the centred square that holds all strokes, however turned, is compared.
    margin = min(used[0], skeletons.shape[1] - 1 - used[-1])
    skeletons, near = (images[:, margin : -margin or None, margin : -margin or None] for images in (skeletons, near))
    ink = skeletons.sum((1, 2)).astype(np.float32)
    strokes = skeletons.reshape(count, -1).astype(np.float32)
    places = near.reshape(count, -1).astype(np.float32)
    similarity = np.zeros((count, count), np.float32)
    for turns in range(4):
        turned_strokes = np.rot90(skeletons, turns, (1, 2)).reshape(count, -1).astype(np.float32)
        turned_places = np.rot90(near, turns, (1, 2)).reshape(count, -1).astype(np.float32)
        forth = turned_strokes @ places.T / ink[:, None]
        back = turned_places @ strokes.T / ink
        similarity = np.maximum(similarity, np.minimum(forth, back))
    return np.maximum(similarity, similarity.T)


def redraw(
    skeleton: Bool[np.ndarray, "size size"], drawers: int, rng: np.random.Generator, pen: int = 2
) -> Bool[np.ndarray, "drawers size size"]:
    """The same character by several drawers: bool (drawers, 105, 105) of a skeleton, bool (105, 105).

    Slant, proportions, size, place, a slow and a quick wobble of the lines, and the width of the pen, of about
    2 * pen + 1 pixels, vary.
    """
    size = len(skeleton)
    turn, slant = rng.uniform(-0.15, 0.15, (2, drawers))
    height, width = 1 / rng.uniform(0.75, 1.15, (2, drawers))  # from the drawing back to the original
    rows = np.stack([height, (slant - turn) * height], -1)
    columns = np.stack([(slant + turn) * width, width], -1)
    place = rng.uniform(-5, 5, (drawers, 2))
    grid = np.arange(size) - (size - 1) / 2
    y, x = np.meshgrid(grid, grid, indexing="ij")
    sources = []
    for axis, coefficients in enumerate((rows, columns)):
        wobble = _smooth_field(rng, drawers, size, knots=5, amount=11) + _smooth_field(rng, drawers, size, 11, amount=4)
        linear = coefficients[:, 0, None, None] * y + coefficients[:, 1, None, None] * x
        sources.append(linear + wobble + place[:, axis, None, None] + (size - 1) / 2)
    ink = _sample(_density(skeleton, pen), *sources)
    return ink > rng.integers(80, 140, (drawers, 1, 1))


def _has_dots(skeletons: np.ndarray) -> np.ndarray:
    """Which of bool (n, size, size) have ink with nothing around it: dots, which the tasks' downscaling would lose."""
    size = skeletons.shape[1]
    ink_within = []
    for reach in (1, 2):
        padded = np.pad(skeletons, ((0, 0), (reach, reach), (reach, reach))).astype(np.uint8)
        columns = sum(padded[:, shift : size + shift] for shift in range(2 * reach + 1))
        ink_within.append(sum(columns[:, :, shift : size + shift] for shift in range(2 * reach + 1)))
    return (skeletons & (ink_within[0] == ink_within[1])).any((1, 2))


def _dilate(images: np.ndarray, radius: int) -> np.ndarray:
    """Every pixel within `radius` of ink, bool (n, size, size). The ink must be that far from the border."""
    result = np.zeros_like(images)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if dy * dy + dx * dx <= radius * radius:
                result |= np.roll(images, (dy, dx), (1, 2))
    return result


def _density(skeleton: np.ndarray, pen: int) -> np.ndarray:
    """Ink within about `pen` pixels of a skeleton, int64 0 to 255, soft at the edge."""
    ink = _dilate(skeleton[None], pen)[0].astype(np.int64) * 255
    for axis in (0, 1):
        ink = (sum(w * np.roll(ink, shift, axis) for shift, w in zip(range(-2, 3), (1, 4, 6, 4, 1), strict=True))) // 16
    return ink


def _smooth_field(rng: np.random.Generator, count: int, size: int, knots: int, amount: int) -> np.ndarray:
    """Random smooth displacements, float64 (count, size, size): cubic B-splines with knots x knots pieces."""
    position = np.arange(size) * (knots / size)
    piece = position.astype(np.int64)
    t = position - piece
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], -1) / 6
    basis = np.zeros((size, knots + 3))
    np.put_along_axis(basis, piece[:, None] + np.arange(4), weights, axis=1)
    return basis @ rng.uniform(-amount, amount, (count, knots + 3, knots + 3)) @ basis.T


def _sample(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Bilinear samples of int64 (size, size) at places in pixels, int64 like y; zero outside.

    In whole 256ths of a pixel: what little machines differ in the last digit of a product is rounded away.
    """
    padded = np.pad(image, 1)
    y, x = (np.clip(np.rint((places + 1) * 256), 0, (len(padded) - 1) * 256 - 1).astype(np.int64) for places in (y, x))
    row, column, down, right = y >> 8, x >> 8, y & 255, x & 255
    corner = row * padded.shape[1] + column
    values = padded.ravel()
    upper = values[corner] * (256 - right) + values[corner + 1] * right
    corner += padded.shape[1]
    lower = values[corner] * (256 - right) + values[corner + 1] * right
    return (upper * (256 - down) + lower * down) >> 16
