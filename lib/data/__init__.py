"""What is on disk: data sets are found, verified, decoded once, cached; embedded glyphs where there is nothing else."""

from lib.data.characters import load_characters
from lib.data.glyphs import load_glyphs
from lib.data.mnist import Digits, load_mnist
from lib.data.omniglot import load_omniglot
from lib.data.store import (
    CacheWarning,
    Characters,
    DataError,
    DataMissing,
    StandInWarning,
    cache_dir,
    data_dir,
)

__all__ = [
    "CacheWarning",
    "Characters",
    "DataError",
    "DataMissing",
    "Digits",
    "StandInWarning",
    "cache_dir",
    "data_dir",
    "load_characters",
    "load_glyphs",
    "load_mnist",
    "load_omniglot",
]
