"""Compiled training does what plain training does. In a process of its own, without run-time checks of shapes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
needs_a_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler, as torch.compile does on a CPU"
)


@pytest.mark.parametrize(
    ("length", "backend", "graphs"), [(5, "aot_eager", 3), pytest.param(2, None, 1, marks=needs_a_compiler)]
)
def test_compiled_training_gives_the_losses_and_weights_of_plain_training(length, backend, graphs):
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "training" / "compiled_run.py", str(length), *([backend] if backend else [])],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["graphs"] >= graphs, "nothing was compiled"
    plain, compiled = found["plain"], found["compiled"]
    np.testing.assert_allclose(compiled["losses"], plain["losses"], atol=1e-4)
    assert len(set(plain["losses"])) > 4
    for a, b in zip(plain["weights"], compiled["weights"], strict=True):
        np.testing.assert_allclose(b, a, atol=1e-3)
