"""Made-up characters in the place of Omniglot, and short texts, so that an experiment runs in seconds anywhere."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from lib import ledger
from lib.data.store import Characters
from lib.experiments import language
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


def own_texts(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    experiment: ModuleType,
    smaller: Callable[[Any], Any],
    validation: int,
    test: int,
) -> Path:
    """A project of its own in a folder, with short texts and smaller configs of an experiment on texts.

    validation, test: words of these texts that are left. Returns the project's folder.
    """
    shutil.copytree(ledger.ROOT / "data" / "paper", root / "data" / "paper")
    monkeypatch.setattr(ledger, "ROOT", root)
    monkeypatch.setenv("BOOK_RESULTS_DIR", str(root / "data" / "results"))
    config_of, load_corpus = experiment.config_of, language.load_corpus

    def beginning(*which):
        corpus = load_corpus(*which)
        return replace(corpus, validation=corpus.validation[:validation], test=corpus.test[:test])

    monkeypatch.setattr(experiment, "config_of", lambda *which: smaller(config_of(*which)))
    monkeypatch.setattr(language, "load_corpus", beginning)
    return root
