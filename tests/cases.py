"""Random cases for tests."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

seeds = st.integers(0, 2**32 - 1)


def random_cases(count: int) -> settings:
    """Hypothesis settings for `count` cases."""
    return settings(max_examples=count, deadline=None)


def normal(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    """Normal numbers, float64."""
    return np.random.default_rng(seed).standard_normal(shape) * scale
