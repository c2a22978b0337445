"""Set-up of all tests: one thread, shapes checked at run time, a cache of decoded data inside the checkout."""

import os
from pathlib import Path

import hypothesis
import pytest
from jaxtyping import install_import_hook

import tests.typechecker  # noqa: F401  the import hook names it

ROOT = Path(__file__).resolve().parents[1]

# Decoding Omniglot and drawing the glyphs take seconds: done once, kept between runs, and out of the user's own cache.
# Tests of the cache itself use one of their own.
os.environ.setdefault("BOOK_CACHE_DIR", str(ROOT / "_build" / "cache"))
# Two busy processes on two cores would spin, each waiting for the other's threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Every shape in an annotation of `lib` is checked when the function is called. Before the first import of `lib`.
install_import_hook("lib", "tests.typechecker.checked")

import torch  # noqa: E402

torch.set_num_threads(1)

# On CI the same cases each time; at a desk new ones, and found failures are tried again first.
hypothesis.settings.register_profile("desk", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "desk")


@pytest.fixture
def two_threads():
    """PyTorch on two threads; the tests' own number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
