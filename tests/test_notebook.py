"""What the chapters draw: panels that are to be compared are of one profile."""

import dataclasses

import matplotlib.pyplot as plt
import pytest

from lib import ledger, notebook
from tests.experiments.test_mann_claims import by_instance, record, trained


@pytest.fixture
def titles(tmp_path, monkeypatch):
    """Titles of the panels that `show_curves` drew, from a ledger of one's own."""
    monkeypatch.setenv("BOOK_RESULTS_DIR", str(tmp_path))
    drawn = []
    monkeypatch.setattr(plt, "show", lambda: drawn.extend(axes.get_title() for axes in plt.gcf().axes))
    yield drawn
    plt.close("all")


def save(variant: str, *profiles: str) -> None:
    made = trained(record("mann.figure3", variant, **by_instance(0.2, 0.5)), 0.3, 0.5)
    for profile in profiles:
        config = made.config | {"learner": {"classes": 5}}
        ledger.save_record(dataclasses.replace(made, profile=profile, config=config))


CURVES = {"one": ("mann.figure3", "five"), "other": ("mann.figure3", "ten")}


def test_each_panel_shows_its_largest_profile(titles):
    save("five", "short", "paper")
    save("ten", "short")
    notebook.show_curves(CURVES)
    assert titles == ["one, paper profile", "other, short profile"]


def test_panels_to_be_compared_show_the_largest_profile_that_all_have(titles):
    save("five", "short", "paper")
    save("ten", "short")
    notebook.show_curves(CURVES, alike=True)
    assert titles == ["one, short profile", "other, short profile"]
    save("ten", "paper")
    titles.clear()
    notebook.show_curves(CURVES, alike=True)
    assert titles == ["one, paper profile", "other, paper profile"]


def test_what_was_not_run_is_named(titles):
    save("five", "short")
    notebook.show_curves(CURVES, alike=True)
    assert titles == ["one, short profile", "other: not run"]


@pytest.mark.parametrize(
    ("learner", "chance"),
    [
        ({"classes": 5}, 20),
        ({"classes": 10, "labels": "one-hot"}, 10),
        ({"classes": 5, "labels": "strings"}, 0),  # one in 3125
    ],
)
def test_chance_is_that_of_the_labels(titles, monkeypatch, learner, chance):
    made = trained(record("mann.figure3", "five", **by_instance(0.2, 0.5)), 0.3, 0.5)
    ledger.save_record(dataclasses.replace(made, config=made.config | {"learner": learner}))
    lines = []
    monkeypatch.setattr(plt, "show", lambda: lines.extend(plt.gcf().axes[0].lines))
    notebook.show_curves({"one": CURVES["one"]}, columns=1)
    (found,) = [line.get_ydata()[0] for line in lines if line.get_label() == "chance"]
    assert found == pytest.approx(chance)
