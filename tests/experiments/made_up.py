"""Made-up characters in the place of Omniglot, so that an experiment runs in seconds anywhere."""

import hashlib

import numpy as np

from lib.data.store import Characters
from tests.tasks.drawings import strokes


def made_up_characters(
    name: str = "omniglot", is_standin: bool = False, seed: int = 0, classes: int = 32
) -> Characters:
    """Classes of 20 drawings; the default says of itself that it is the real data."""
    packed = np.packbits(strokes(classes, 20, seed), axis=-1)
    return Characters(
        name=name,
        packed=packed,
        class_names=tuple(f"Made up/character{i:02d}" for i in range(len(packed))),
        digest=hashlib.sha256(packed.tobytes()).hexdigest(),
        is_standin=is_standin,
    )
