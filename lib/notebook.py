"""What the chapters share: source beside an equation, tables of the ledger, cost labels, one style of plot."""

import inspect
import json
import textwrap
from html import escape
from typing import Any

import matplotlib.pyplot as plt
from IPython.display import HTML, Markdown

from lib import ledger, report

# Colours that people with any colour vision can tell apart, dark enough for white paper (Wong 2011, reordered).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#a5527d", "#8a6d00", "#333333")
MARKERS = ("o", "s", "^", "D", "v", "P")


def show_source(*objects: Any) -> Markdown:
    """The source of functions or classes of `lib` as it is now, with the file that it is in."""
    blocks = []
    for each in map(inspect.unwrap, objects):  # of a decorated function, itself
        file = ledger.ROOT.joinpath(inspect.getsourcefile(each)).relative_to(ledger.ROOT)
        line = inspect.getsourcelines(each)[1]
        source = textwrap.dedent(inspect.getsource(each)).rstrip()
        blocks.append(f"`{file}`, from line {line}:\n\n```python\n{source}\n```")
    return Markdown("\n\n".join(blocks))


def show_table(experiment) -> HTML:
    """An experiment's table: the paper's numbers beside the ledger's."""
    return HTML(report.html_table(experiment.table()))


def show_folded(table: report.Table) -> HTML:
    """A table that opens on a click or a key: numbers behind a figure."""
    return HTML(f"<details><summary>{escape(table.caption)}</summary>{report.html_table(table)}</details>")


def show_curves(curves: dict[str, tuple[str, str]], columns: int = 2, alike: bool = False) -> None:
    """Training accuracy by instance of several runs, a panel each.

    curves: a panel's title to (experiment, variant), whose largest recorded profile is shown; alike: the largest one
    that all runs have, for panels to be compared.
    """
    shared = ledger.shared_profile(curves.values()) if alike else None
    rows = -(-len(curves) // columns)
    figure, panels = new_plot(4.5 * columns, 3.4 * rows, nrows=rows, ncols=columns, sharey=True, squeeze=False)
    for axes, (title, run) in zip(panels.flat, curves.items(), strict=False):
        record = ledger.best_record(*run, profiles=(shared,) if shared else ("paper", "short"))
        if record is None:
            axes.set(title=f"{title}: not run")
            axes.set_axis_off()
            continue
        learner = record.config["learner"]
        chance = 1 / learner["classes"] if learner.get("labels", "one-hot") == "one-hot" else 0.0
        plot_accuracy_curves(axes, record.curve, title=f"{title}, {record.profile} profile", chance=chance)
    for axes in panels.flat[len(curves) :]:
        axes.remove()
    plt.show()


def cost_label(chapter: str) -> Markdown:
    """What executing a chapter takes, from the times in `data/timings.json`; says so where nothing was measured.

    chapter: its path without suffix, such as `book/mann/equations`.
    """
    path = ledger.ROOT / "data" / "timings.json"
    measured = json.loads(path.read_text()).get(chapter, {}) if path.exists() else {}
    parts = []
    for profile in ("smoke", "short", "paper"):
        kinds = measured.get(profile, {})
        times = [f"{kind.upper()} {report.duration(run['seconds'])} ({run['machine']})" for kind, run in kinds.items()]
        if times:
            parts.append(f"profile `{profile}`: {', '.join(times)}")
    if not any("gpu" in kinds for kinds in measured.values()):
        parts.append("GPU: not measured yet")
    return Markdown(f"**Cost of executing this page** – {'; '.join(parts)}.")


def new_plot(width: float = 7.0, height: float = 4.0, **options: Any):
    """A figure and its axes in the book's style: white paper, in both themes of the page."""
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained", facecolor="white", **options)
    for each in figure.axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(alpha=0.3)
    return figure, axes


def plot_accuracy_curves(axes, curve: dict[str, Any], instances=(1, 2, 5, 10), title: str = "", chance: float = 0.2):
    """Accuracy by instance against updates, as in figure 2 of Santoro et al. 2016; `curve` is a record's."""
    for style, k in enumerate(instances):
        values = [None if a[k - 1] is None else 100 * a[k - 1] for a in curve["accuracy"]]
        axes.plot(
            curve["update"],
            [float("nan") if v is None else v for v in values],
            color=COLOURS[style],
            marker=MARKERS[style],
            markevery=max(len(values) // 8, 1),
            label=f"{report.ordinal(k)} instance",
        )
    axes.axhline(100 * chance, color="#666666", linestyle=":", label="chance")
    axes.set(xlabel="updates", ylabel="accuracy (%)", ylim=(0, 102), title=title)
    axes.legend(frameon=False, fontsize="small")
