"""Random cases for tests: the same ones on every run, so that a test that passes here passes everywhere."""

import os

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

seeds = st.integers(0, 2**32 - 1)


def random_cases(count: int) -> settings:
    """Hypothesis settings for `count` cases. TEST_CASES_FACTOR multiplies them; they then differ from run to run."""
    factor = int(os.environ.get("TEST_CASES_FACTOR", "1"))
    return settings(deadline=None, derandomize=factor == 1, max_examples=count * factor, database=None)


def normal(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    """Normal numbers, float64."""
    return np.random.default_rng(seed).standard_normal(shape) * scale
