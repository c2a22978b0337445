"""Characters drawn from the outlines of the fonts that matplotlib ships, and thinned to the path of a pen.

Outlines are read in whole font units and filled here, not by a font renderer, so the pixels do not depend on the
version of any library.
"""

from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from fontTools.pens.basePen import BasePen
from fontTools.ttLib import TTFont
from jaxtyping import Bool, Float64

CURVE_STEPS = 8  # straight pieces for one Bezier curve


def font_path(name: str) -> Path:
    """File of a font that matplotlib ships, such as "DejaVuSans"."""
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"


@cache
def _font(name: str) -> TTFont:
    return TTFont(font_path(name))


def characters_of(name: str) -> frozenset[int]:
    """Code points that the font has a glyph for."""
    return frozenset(_font(name).getBestCmap())


class _Edges(BasePen):
    """Collects an outline's closed contours as straight edges (x0, y0, x1, y1), curves cut into pieces."""

    def __init__(self, glyphs):
        super().__init__(glyphs)
        self.edges: list[tuple[float, float, float, float]] = []

    def _moveTo(self, point):
        self.start = self.last = point

    def _lineTo(self, point):
        self.edges.append((*self.last, *point))
        self.last = point

    def _bezier(self, *controls):
        level = np.array([self.last, *controls], float)[:, None]
        t = np.arange(1, CURVE_STEPS + 1)[:, None] / CURVE_STEPS
        while len(level) > 1:  # de Casteljau, for all t at once
            level = level[:-1] * (1 - t) + level[1:] * t
        for point in level[0].tolist():
            self._lineTo(point)

    def _qCurveToOne(self, control, point):
        self._bezier(control, point)

    def _curveToOne(self, first, second, point):
        self._bezier(first, second, point)

    def _closePath(self):
        self._lineTo(self.start)


def outline(font: str, code_point: int) -> Float64[np.ndarray, "edges 4"]:
    """Edges of a character, float64 (edges, 4) as x0, y0, x1, y1 in font units, y upwards; (0, 4) for a blank one."""
    glyphs = _font(font).getGlyphSet()
    pen = _Edges(glyphs)
    glyphs[_font(font).getBestCmap()[code_point]].draw(pen)
    return np.array(pen.edges, float).reshape(-1, 4)


def fill(edges: Float64[np.ndarray, "edges 4"], size: int, box: int) -> Bool[np.ndarray, "size size"]:
    """Fill an outline (nonzero winding rule): bool (size, size), its longer side scaled to `box` pixels, centred.

    Raises ValueError if there is no outline.
    """
    if not len(edges):
        raise ValueError("a blank character cannot be drawn")
    points = edges.reshape(-1, 2)
    low, high = points.min(0), points.max(0)
    scaled = (points - (low + high) / 2) * (box / (high - low).max())
    x0, y0, x1, y1 = (scaled * [1, -1] + size / 2).reshape(-1, 4).T
    winding = np.zeros((size, size + 1), np.int64)
    rows = np.arange(size)[:, None] + 0.5  # scan lines through the centres of the pixels
    crosses = (y0 <= rows) != (y1 <= rows)
    row, edge = np.nonzero(crosses)
    x = x0[edge] + (row + 0.5 - y0[edge]) * (x1 - x0)[edge] / (y1 - y0)[edge]
    column = np.clip(np.ceil(x - 0.5), 0, size).astype(np.int64)
    np.add.at(winding, (row, column), np.where(y1 > y0, 1, -1)[edge])
    return np.cumsum(winding, axis=1)[:, :-1] != 0


def thin(shapes: Bool[np.ndarray, "n size size"]) -> Bool[np.ndarray, "n size size"]:
    """Skeletons one pixel wide of bool (n, size, size), by the parallel algorithm of Zhang and Suen (1984)."""
    shapes = np.pad(shapes, ((0, 0), (1, 1), (1, 1))).astype(np.uint8)
    removable = _removable_neighbourhoods()
    active = np.arange(len(shapes))
    while len(active):
        current = shapes[active]
        before = current.sum((1, 2), dtype=np.int64)
        for half in range(2):
            neighbours = np.zeros_like(current[:, 1:-1, 1:-1])
            for bit, (dy, dx) in enumerate(_CLOCKWISE):
                height, width = current.shape[1:]
                neighbours |= current[:, 1 + dy : height - 1 + dy, 1 + dx : width - 1 + dx] << bit
            current[:, 1:-1, 1:-1] &= ~removable[half][neighbours] & 1
        shapes[active] = current
        active = active[current.sum((1, 2), dtype=np.int64) < before]
    return shapes[:, 1:-1, 1:-1].astype(bool)


_CLOCKWISE = (
    (-1, 0),
    (-1, 1),
    (0, 1),
    (1, 1),
    (1, 0),
    (1, -1),
    (0, -1),
    (-1, -1),
)  # p2 ... p9 of the paper


def _removable_neighbourhoods() -> np.ndarray:
    """For both half-steps, which of the 256 neighbourhoods lets a pixel go: uint8 {0, 1} (2, 256)."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    ink = bits.sum(1)
    transitions = ((bits == 0) & (np.roll(bits, -1, axis=1) == 1)).sum(1)
    north, east, south, west = bits[:, 0], bits[:, 2], bits[:, 4], bits[:, 6]
    contour = (ink >= 2) & (ink <= 6) & (transitions == 1)
    first = contour & (north * east * south == 0) & (east * south * west == 0)
    second = contour & (north * east * west == 0) & (north * south * west == 0)
    return np.stack([first, second]).astype(np.uint8)
