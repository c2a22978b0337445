"""Made-up characters: a few strokes on a page, drawn somewhat differently by each drawer."""

import numpy as np
from PIL import Image, ImageDraw


def strokes(classes: int, drawings: int, seed: int = 0) -> np.ndarray:
    """uint8 {0, 1} (classes, drawings, 105, 105), ink = 1."""
    random = np.random.default_rng(seed)
    images = np.zeros((classes, drawings, 105, 105), dtype=np.uint8)
    for c in range(classes):
        points = random.uniform(20, 85, (3, 4, 2))
        for d in range(drawings):
            page = Image.new("L", (105, 105), 0)
            pen = ImageDraw.Draw(page)
            for stroke in points + random.normal(0, 3, points.shape):
                pen.line([tuple(p) for p in stroke], fill=1, width=3, joint="curve")
            images[c, d] = np.asarray(page)
    return images
