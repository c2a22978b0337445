"""Sprechmann et al. 2018, table 1 and figures 4 to 7, as they are shown.

The paper's data set is ImageNet; ours are others, so that differences between models are compared, not numbers.
"""

import itertools
from collections.abc import Callable, Sequence

from lib import ledger, report
from lib.experiments.curves import PROFILES_SHOWN
from lib.experiments.mbpa_tables import setting_in_words
from lib.ledger import Record

TABLE1, FIGURE4, FIGURE5, FIGURE6, FIGURE7 = (
    f"mbpa.{name}" for name in ("table1", "figure4", "figure5", "figure6", "figure7")
)
EPOCHS = (0.1, 1.0, 3.0)  # of table 1
AFTER = (*EPOCHS, 20.0, 30.0)  # in figure 5 and the text of section 4.2
MODELS = {
    "mbpa": "MbPA",
    "non-parametric": "Non-parametric",
    "mixture": "Mixture",
    "parametric": "Parametric",
}
DATA_SETS = {"tiny-imagenet": "Tiny ImageNet", "omniglot": "Omniglot", "imagenet": "ImageNet"}
TIMES = "Times do not count the networks and settings of table 1, which these runs take over"
GROUPS = {"new": ("novel", "new classes"), "old": ("pretrained", "old classes")}  # the paper's name, ours


def area(epochs: Sequence[float], accuracy: Sequence[float], upto: float) -> float:
    """Mean accuracy on the way to an epoch: the area under the curve, in straight lines between the points where the
    models were tested, divided by its length. Before the first point the curve is taken to be level. Raises ValueError
    if nothing was tested at that epoch."""
    if upto not in epochs:
        raise ValueError(f"there is no test after {upto} passes, only after {', '.join(map(str, epochs))}")
    points = [(0.0, accuracy[0])] + [(e, a) for e, a in zip(epochs, accuracy, strict=True) if e <= upto]
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points)) / upto


def even(epoch: float) -> bool:
    """Does the memory then hold each picture as often as any other? It has room for one pass; within a later pass,
    whose order is another, it has some pictures twice and others not at all."""
    return epoch <= 1 or epoch == round(epoch)


def shown_records(experiment: str, variant: str) -> list[Record]:
    """The finished records of the first profile that has any, of all seeds."""
    return next((r for profile in PROFILES_SHOWN if (r := ledger.whole_records(experiment, variant, profile))), [])


def data_of(variant: str) -> str:
    """The data set of a variant, such as that of `omniglot-balanced`."""
    return variant.removesuffix("-balanced")


def title_of(data: str, records: list[Record]) -> str:
    """Of a plot: the data set, the profile and the number of splits, or that it was not run."""
    shown = f"{records[0].profile} profile, n = {len(records)}" if records else "not run"
    return f"{DATA_SETS[data]}, {shown}"


def top1(record: Record, model: str, group: str, epoch: float) -> float:
    """Accuracy at an epoch."""
    metrics = record.metrics
    return metrics["accuracy"][model][group][metrics["epochs"].index(epoch)]


def auc(record: Record, model: str, group: str, epoch: float) -> float:
    """Mean accuracy up to an epoch, by the points where the memory holds all pictures alike."""
    points = zip(record.metrics["epochs"], record.metrics["accuracy"][model][group], strict=True)
    return area(*zip(*(point for point in points if even(point[0])), strict=True), epoch)


def area_in_words() -> str:
    """A sentence, in Markdown: what the areas to the first epoch of table 1 would lose on new classes if they began at
    zero and were not level before the first test."""
    said = []
    for data, name in DATA_SETS.items():
        if records := shown_records(TABLE1, data):
            losses = []
            for model, label in MODELS.items():
                lost = [
                    r.metrics["epochs"][0] * r.metrics["accuracy"][model]["new"][0] / 2 / EPOCHS[0] for r in records
                ]
                losses.append(f"{label} {100 * sum(lost) / len(lost):.1f}")
            said.append(f"{name} {', '.join(losses)}")
    if not said:
        return "**Table 1 was not run yet.**"
    return (
        f"The areas of table 1 are level before the first test. Were they zero at the start, those of new classes to "
        f"{EPOCHS[0]:g} passes would lose, in points: {'; '.join(said)}."
    )


def _ours(records: list[Record]) -> str:
    return f"ours, {records[0].profile} profile"


def note_on(records: list[Record]) -> str:
    """What a row must say of its records, and on how many pictures they were tested."""
    config = records[0].config.get("of", records[0].config)
    return f"{report.note_on(records)}, tested on {report.grouped(config['tested_on'])} pictures at most"


def _chosen(record: Record, model: str) -> list[str]:
    """The setting that was chosen for a model, in words."""
    chosen, tried = record.metrics["setting"], record.metrics["tuning"][model]
    if model == "parametric":
        return setting_in_words({"rate": chosen["rate"]}, tried)
    return setting_in_words(chosen[model], [each["setting"] for each in tried])


def table1() -> report.Table:
    """Top-1 accuracy and area under the curve, of new and of old classes."""
    paper, rows = ledger.paper_numbers("mbpa")["table1"], []
    for group, (theirs, ours) in GROUPS.items():
        for model, label in MODELS.items():
            reported = paper[theirs][model]
            cells = tuple(f"{value:.1f}" for kind in ("top1", "auc") for value in reported[kind])
            rows.append(report.Row(f"{label}, {ours}", "paper", cells, "ImageNet"))
            for data, name in DATA_SETS.items():
                if records := shown_records(TABLE1, data):
                    cells = tuple(
                        report.percent([score(record, model, group, epoch) for record in records])
                        for score in (top1, auc)
                        for epoch in EPOCHS
                    )
                    note = ", ".join([note_on(records), *_chosen(records[0], model)])
                    rows.append(report.Row(f"{label}, {ours}", f"{_ours(records)}: {name}", cells, note))
                elif data == "tiny-imagenet":
                    rows.append(report.Row(f"{label}, {ours}", f"ours: {name}", (), report.NOT_RUN))
    caption = (
        "Half of the classes are new: accuracy in percent, and area under its curve, after so many passes through the "
        "pictures of all classes (Sprechmann et al. 2018, table 1). The data sets differ: compare models, not numbers"
    )
    columns = (*(f"top-1 at {epoch:g}" for epoch in EPOCHS), *(f"AUC to {epoch:g}" for epoch in EPOCHS))
    return report.Table(caption, columns, tuple(rows), ("model", "source"))


def _points(experiment: str, variant: str, groups: dict[str, str], epochs: Sequence[float]) -> list[report.Row]:
    """A row for each model and group with its accuracy at some epochs, where it was tested there."""
    records, rows = shown_records(experiment, variant), []
    for group, name in groups.items():
        for model, label in MODELS.items():
            source = f"{DATA_SETS[data_of(variant)]}, {name}"
            if not records:
                rows.append(report.Row(label, source, (), report.NOT_RUN))
                continue
            tested = records[0].metrics["epochs"]
            cells = tuple(
                report.percent([top1(record, model, group, epoch) for record in records]) if epoch in tested else "–"
                for epoch in epochs
            )
            rows.append(report.Row(label, source, cells, f"{records[0].profile} profile, {note_on(records)}"))
    return rows


def figure4() -> report.Table:
    """All classes together, and apart, at some points of the curves."""
    groups, epochs = {"all": "all classes", "new": "new classes", "old": "old classes"}, (0.02, 0.1, 0.5, 1.0, 3.0)
    rows = [row for data in ("tiny-imagenet", "omniglot") for row in _points(TABLE1, data, groups, epochs)]
    caption = "The curves behind table 1: accuracy in percent on the way (Sprechmann et al. 2018, figure 4)"
    return report.Table(caption, tuple(f"at {epoch:g}" for epoch in epochs), tuple(rows), ("model", "classes"))


def figure5() -> report.Table:
    """New classes of which half were shown a tenth; and all shown in full, for longer than in table 1."""
    groups, epochs = {"new": "new classes", "scarce": "new classes, a tenth shown", "old": "old classes"}, AFTER
    rows = []
    for data in ("tiny-imagenet", "omniglot"):
        rows += _points(FIGURE5, data, groups, epochs)
        in_full = {"all": "all classes, shown in full", "new": "new classes, shown in full"}
        rows += _points(FIGURE5, f"{data}-balanced", in_full, epochs)
    caption = (
        "A tenth of the pictures of half the new classes, and all of them: accuracy in percent after so many passes "
        f"(Sprechmann et al. 2018, figure 5; the paper gives curves and no numbers). {TIMES}"
    )
    return report.Table(caption, tuple(f"at {epoch:g}" for epoch in epochs), tuple(rows), ("model", "classes"))


def _changed(experiment: str, what: str, label: Callable[[float], str], models: Sequence[str]) -> list[report.Row]:
    """A row for each value of what was changed, and each model: new and old classes, at the table's epochs."""
    rows = []
    for data in ("tiny-imagenet", "omniglot"):
        records = shown_records(experiment, f"{data}-{what}")
        if not records:
            rows.append(report.Row(what, DATA_SETS[data], (), report.NOT_RUN))
            continue
        epochs, note = records[0].metrics["epochs"], f"{records[0].profile} profile, {note_on(records)}"
        for index, value in enumerate(records[0].metrics["values"]):
            for model in models:
                curves = [record.metrics["by_value"][index][model] for record in records]
                cells = tuple(
                    report.percent([curve[group][epochs.index(epoch)] for curve in curves])
                    for group in GROUPS
                    for epoch in EPOCHS
                )
                named = label(value) if len(models) == 1 else f"{MODELS[model]}, {label(value)}"
                rows.append(report.Row(named, DATA_SETS[data], cells, note))
    return rows


COLUMNS = tuple(f"{group} at {epoch:g}" for group in GROUPS for epoch in EPOCHS)


def figure6() -> report.Table:
    """The size of the memory, and the last layer's rate."""
    memory = _changed(FIGURE6, "memory", lambda share: f"memory of {share:.3g} of the pictures", ["mbpa"])
    rate = _changed(FIGURE6, "rate", lambda rate: f"rate {rate:g}", ["mbpa", "mixture", "parametric"])
    caption = (
        "How MbPA depends on the size of its memory, and all models on the last layer's learning rate: accuracy in "
        f"percent (Sprechmann et al. 2018, figure 6; the paper gives curves and no numbers). {TIMES}"
    )
    return report.Table(caption, COLUMNS, (*memory, *rate), ("what was changed", "data"))


def figure7() -> report.Table:
    """The number of neighbours."""
    rows = _changed(FIGURE7, "neighbours", lambda k: f"K = {k:g}", ["mbpa"])
    caption = (
        "How MbPA depends on the number of neighbours: accuracy in percent (Sprechmann et al. 2018, figure 7; the "
        f"paper gives curves and no numbers). {TIMES}"
    )
    return report.Table(caption, COLUMNS, tuple(rows), ("neighbours", "data"))
