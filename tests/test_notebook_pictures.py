"""The worked example of figure 5, as the page shows it."""

import dataclasses
import html

import matplotlib.pyplot as plt
import numpy as np
import pytest

from lib import ledger, notebook_pictures
from lib.config import to_dict
from lib.experiments import mbpa_incremental_tables as tables
from lib.experiments.mbpa_incremental_configs import UNBALANCED, in_profile
from lib.experiments.mbpa_split import GROUPS
from lib.tasks.incremental import picture_set


@pytest.fixture
def said(monkeypatch):
    """What is shown besides figures, as text."""
    shown = []
    monkeypatch.setattr(notebook_pictures, "display", lambda each: shown.append(html.unescape(each.data)[5:-6]))
    return shown


@pytest.fixture
def example(tmp_path, monkeypatch):
    """A record of the stand-in's pictures, said to be of the paper profile."""
    monkeypatch.setenv("BOOK_RESULTS_DIR", str(tmp_path))
    config = in_profile(UNBALANCED["tiny-imagenet"], "smoke")
    pictures = picture_set(config.pictures, config.size, config.held_out)
    p = dict.fromkeys(tables.MODELS, [0.1, 0.6, 0.3]) | {"mbpa": [0.1, 0.2, 0.7]}
    found = {
        "picture": 3,
        "label": 9,
        "epoch": 20.0,
        "neighbours": [5, 6, 7, 8],
        "labels": [2, 4, 9, 9],
        "weights": [0.25] * 4,
        "classes": [2, 4, 9],
        "probabilities": p,
        "neighbours_right_before": 0.25,
        "neighbours_right_after": 0.75,
        "moved": 1.0,
    }
    record = ledger.Record(
        experiment=tables.FIGURE5,
        variant="tiny-imagenet",
        profile="paper",
        seed=2,
        config=to_dict(config),
        metrics={
            "epochs": [20.0],
            "accuracy": dict.fromkeys(tables.MODELS, dict.fromkeys(GROUPS, [0.5])),
            "example": found,
        },
        updates=1,
        complete=True,
        seconds=1.0,
        machine={"name": "m"},
        commit="c",
        data={**pictures.data, "is_standin": False},
    )
    ledger.save_record(record)
    return record, pictures


def test_the_example_is_drawn_with_its_neighbours_and_told_in_words(example, monkeypatch, said):
    record, pictures = example
    drawn = []
    monkeypatch.setattr(plt, "show", lambda: drawn.append(plt.gcf()))
    notebook_pictures.show_example("tiny-imagenet", "omniglot")
    titles = [axes.get_title() for axes in drawn[0].axes if axes.get_title()]
    assert titles == ["the query: K"] + [pictures.class_names[label] for label in (2, 4, 9, 9)]
    told = "\n".join(said)
    assert "«K»" in told and "Omniglot: not run" in told
    assert "MbPA             70% for it; most, 70%, for «K»" in told
    assert "Parametric       30% for it; most, 60%, for «E»" in told
    assert "its 4 neighbours, of 3 classes:\n    25% are named rightly before the fit, 75% after it" in told
    assert max(map(len, told.splitlines())) <= 80, "no line is longer than a page is wide"
    plt.close("all")


def test_without_the_pictures_the_numbers_are_told_alone(example, monkeypatch, said):
    other = picture_set("stand-in", 16, 0.2)
    other.data["sha256"] = "another"
    monkeypatch.setattr(notebook_pictures, "picture_set", lambda *_: other)
    notebook_pictures.show_example("tiny-imagenet")
    told = "\n".join(said)
    assert "not at hand" in told and "«class 9»" in told


def test_kept_pictures_are_drawn_where_the_data_is_not_at_hand_if_they_are_of_that_example(
    example, tmp_path, monkeypatch, said
):
    record, _ = example
    monkeypatch.setattr(ledger, "ROOT", tmp_path)
    monkeypatch.setattr(notebook_pictures, "KEPT", ("tiny-imagenet",))
    at_hand = notebook_pictures.pictures_of(record)
    notebook_pictures.keep(record, at_hand)
    kept = notebook_pictures.kept_pictures(record)
    assert kept.names == at_hand.names and len(kept.images) == 5
    assert all(np.array_equal(a, b) for a, b in zip(kept.images, at_hand.images, strict=True))
    monkeypatch.setattr(notebook_pictures, "pictures_of", lambda record: None)
    drawn = []
    monkeypatch.setattr(plt, "show", lambda: drawn.append(plt.gcf()))
    notebook_pictures.show_example("tiny-imagenet")
    assert len(drawn) == 1 and "«K»" in said[0]
    plt.close("all")
    other = dataclasses.replace(record, metrics={"example": record.metrics["example"] | {"picture": 4}})
    assert notebook_pictures.kept_pictures(other) is None


def test_of_pictures_that_may_not_be_passed_on_the_names_alone_are_kept(example, tmp_path, monkeypatch, said):
    record, _ = example
    monkeypatch.setattr(ledger, "ROOT", tmp_path)
    notebook_pictures.keep(record, notebook_pictures.pictures_of(record))
    monkeypatch.setattr(notebook_pictures, "pictures_of", lambda record: None)
    notebook_pictures.show_example("tiny-imagenet")
    assert notebook_pictures.kept_pictures(record).images == []
    assert "its pictures are not at hand" in said[0] and "«K»" in said[1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Greek/character03", "Greek 03"),
        ("television, television system", "television"),
        ("a name that is much too long for it", "a name that is mu…"),
    ],
)
def test_names_are_short(name, expected):
    assert notebook_pictures.short(name) == expected
