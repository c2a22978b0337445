"""The one way to the characters: Omniglot where it can be had, else the glyphs in its place."""

import warnings
from typing import Literal

from lib.data.glyphs import load_glyphs
from lib.data.omniglot import load_omniglot
from lib.data.store import Characters, DataMissing, StandInWarning


def load_characters(source: Literal["auto", "omniglot", "glyphs"] = "auto", *, download: bool = True) -> Characters:
    """Characters from `source`.

    "auto": Omniglot from BOOK_DATA_DIR, the cache, or one try to download it; else the glyphs, with a StandInWarning.
    Raises DataMissing if "omniglot" is asked for and is nowhere; DataError, with "auto", too, if a file is damaged or
    the cache folder cannot be written; ValueError for another source.
    """
    if source == "glyphs":
        return load_glyphs()
    if source == "omniglot":
        return load_omniglot(download=download)
    if source != "auto":
        raise ValueError(f'the source is "auto", "omniglot" or "glyphs", not {source!r}')
    try:
        return load_omniglot(download=download)
    except DataMissing as missing:
        warnings.warn(f"Glyphs drawn from fonts stand in for Omniglot. {missing}", StandInWarning, stacklevel=2)
        return load_glyphs()
