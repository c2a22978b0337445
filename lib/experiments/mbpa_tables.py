"""Sprechmann et al. 2018 as the command line and the book show it, and the paper's claims with our verdicts.

Criteria are ours: figure 3 has no numbers. ± is half of the 95% interval of a difference over the seeds.
"""

import itertools
from collections.abc import Mapping, Sequence

from lib import ledger, report
from lib.experiments.claims import ahead, common_records, over_seeds, percent, share, verdicts
from lib.experiments.curves import PROFILES_SHOWN
from lib.ledger import Record

PAPER = "Sprechmann et al. 2018"
FIGURE2, FIGURE3 = "mbpa.figure2", "mbpa.figure3"
FITS2 = {"network": "the network", "attention": "attention", "mbpa": "MbPA"}
SIZES = (100, 200, 500, 1_000, 2_000, 5_000, 10_000)
AFTER = (1, 2, 5, 10, 15, 20)  # tasks
FIGURE3_LABELS = {
    "mlp": "MLP",
    "ewc": "EWC",
    **{f"mbpa-{size}": f"MbPA, {report.grouped(size)} examples a task" for size in SIZES},
    "random-1000": "MbPA with random neighbours, 1 000",
    "fresh-1000": "fresh weights fitted, 1 000",
    "memory-1000": "memory alone, 1 000",
    "ewc-mbpa-100": "MbPA and EWC, 100",
    "ewc-mbpa-1000": "MbPA and EWC, 1 000",
}


SYMBOLS = {"strength": "λ", "neighbours": "K", "share": "λ", "steps": "T", "rate": "α"}


def figure2() -> report.Table:
    """Root mean squared error of the three answers."""
    rows = []
    for variant in ("shifted", "reversed"):
        records = next((r for profile in PROFILES_SHOWN if (r := ledger.whole_records(FIGURE2, variant, profile))), [])
        for name, label in FITS2.items():
            if not records:
                rows.append(report.Row(label, variant, (), report.NOT_RUN))
                continue
            parts = ("error", "error_where_it_changed")
            cells = tuple(_with_interval([record.metrics[part][name] for record in records]) for part in parts)
            note = f"{records[0].profile} profile, {report.note_on(records)}"
            if name == "mbpa":
                metrics = records[0].metrics
                tried = [each["setting"] for each in metrics["tuning"][name]]
                note = ", ".join([note, *setting_in_words(metrics["setting"][name], tried)])
            rows.append(report.Row(label, variant, cells, note))
    caption = (
        "A function that changed on one side: root mean squared error of three answers (Sprechmann et al. 2018, "
        "figure 2; the paper has a picture and no numbers)"
    )
    return report.Table(caption, ("everywhere", "where it changed"), tuple(rows), ("answer", "change"))


def _with_interval(values: list[float]) -> str:
    mean, half = ledger.mean_and_interval(values)
    return f"{mean:.3f}" + ("" if half is None else f" ± {half:.3f}")


def figure3() -> report.Table:
    """Mean accuracy over all tasks met so far, after some of them."""
    rows = []
    for variant, label in FIGURE3_LABELS.items():
        found = {profile: ledger.whole_records(FIGURE3, variant, profile) for profile in PROFILES_SHOWN}
        for profile, records in found.items():
            if records:
                note = ", ".join([report.note_on(records), *_chosen(records[0])])
                rows.append(report.Row(label, f"ours, {profile} profile", _after(records), note))
        if not any(found.values()):
            rows.append(report.Row(label, "ours", (), report.NOT_RUN))
    caption = (
        "Permuted MNIST: mean accuracy in percent over the tasks met so far (Sprechmann et al. 2018, figure 3; "
        "the paper gives curves and no numbers)"
    )
    columns = tuple("after 1 task" if count == 1 else f"{count} tasks" for count in AFTER)
    return report.Table(caption, columns, tuple(rows), ("network", "source"))


def setting_in_words(setting: Mapping[str, float], tried: Sequence[Mapping[str, float]]) -> list[str]:
    """A setting that was chosen, by its symbols, and which of its values end a range of three or more. What is 0 has no
    use and is left out."""
    used = {name: setting[name] for name in SYMBOLS if setting.get(name)}
    values = {name: {each[name] for each in tried} for name in used}
    ends = [SYMBOLS[name] for name, of in values.items() if len(of) > 2 and used[name] in (min(of), max(of))]
    named = [f"{SYMBOLS[name]} = {value:g}" for name, value in used.items()]
    return [*named, *([f"at an end of what was tried: {', '.join(ends)}"] if ends else [])]


def _chosen(record: Record) -> list[str]:
    """On what a row was tested, and its settings."""
    setting, tried = record.metrics["setting"], record.metrics["tuning"]
    tasks, images = record.config["tasks"]["tasks"], report.grouped(record.config["tested_on"])
    seconds = report.duration(record.metrics["test_seconds"])
    parts = [f"{tasks} tasks, each tested on {images} images in {seconds} more"]
    if setting["strength"] is not None:
        parts += setting_in_words({"strength": setting["strength"]}, tried["strengths"])
    if setting["fit"]:
        parts += setting_in_words(setting["fit"], [each["setting"] for each in tried["fits"]])
    return parts


def _after(records: list[Record]) -> tuple[str, ...]:
    met = min(len(record.metrics["mean_accuracy"]) for record in records)
    of = [
        [record.metrics["mean_accuracy"][count - 1] for record in records] if count <= met else None for count in AFTER
    ]
    return tuple(report.percent(values) if values else "–" for values in of)


def _last(records: list[Record]) -> list[float]:
    """Of each seed, the mean accuracy over all tasks at the end."""
    return [record.metrics["mean_accuracy"][-1] for record in records]


def _gains(first: list[Record], second: list[Record]) -> list[float]:
    """How far the second is ahead in points, of each seed."""
    return [100 * (b - a) for a, b in zip(_last(first), _last(second), strict=True)]


def _in_words(gains: list[float]) -> str:
    mean, half = ledger.mean_and_interval(gains)
    return f"{mean:+.1f}" + ("" if half is None else f" ± {half:.1f}")


def _ahead_of(reference: list[Record], *others: list[Record]) -> tuple[str, str]:
    gains = {records[0].variant: _gains(reference, records) for records in others}
    words = ", ".join(f"{name} {_in_words(of)}" for name, of in gains.items())
    return share([ahead(of) for of in gains.values()]), f"points ahead of {reference[0].variant}: {words}"


def _grows(*sizes: list[Record]) -> tuple[str, str]:
    rises = [ahead(_gains(less, more)) for less, more in itertools.pairwise(sizes)]
    return share(rises), ", ".join(percent(sum(_last(records)) / len(records)) for records in sizes)


def _random_helps_less(mlp: list[Record], drawn: list[Record], nearest: list[Record]) -> tuple[str, str]:
    by_random, by_nearest = _gains(mlp, drawn), _gains(mlp, nearest)
    words = f"points ahead of the MLP: random {_in_words(by_random)}, nearest {_in_words(by_nearest)}"
    less = ahead([b / 2 - a for a, b in zip(by_random, by_nearest, strict=True)])
    return share([less if ahead(by_nearest) else False]), words


def _better_together(*runs: list[Record]) -> tuple[str, str]:
    """runs: EWC; then MbPA and both, for each size."""
    ewc, pairs = runs[0], list(zip(runs[1::2], runs[2::2], strict=True))
    gains = [(_gains(ewc, both), _gains(mbpa, both), both[0].variant) for mbpa, both in pairs]
    words = "; ".join(f"{name}: {_in_words(a)} points on EWC, {_in_words(b)} on MbPA" for a, b, name in gains)
    return share([ahead(gain) for of in gains for gain in of[:2]]), words


def _runs(*variants: str) -> tuple[tuple[str, str], ...]:
    return tuple((FIGURE3, variant) for variant in variants)


ALL_SIZES = tuple(f"mbpa-{size}" for size in SIZES)
CLAIMS = (
    over_seeds(
        "Figure 3",
        "MbPA beats the MLP",
        "ahead after the last task with each number of examples, by more than the interval; in part: with some",
        _runs("mlp", *ALL_SIZES),
        _ahead_of,
    ),
    over_seeds(
        "Figure 3",
        "it is superior to EWC for all sizes of memory but 100 examples a task",
        "ahead after the last task from 200 examples on; in part: with some",
        _runs("ewc", *ALL_SIZES[1:]),
        _ahead_of,
    ),
    over_seeds(
        "Figure 3",
        "with 100 examples a task EWC is ahead of it",
        "ahead after the last task by more than the interval",
        _runs("mbpa-100", "ewc"),
        _ahead_of,
    ),
    over_seeds(
        "Figure 3",
        "it gets better with the number of examples",
        "from each size to the next, by more than the interval; in part: in some",
        _runs(*ALL_SIZES),
        _grows,
    ),
    over_seeds(
        "Section 4.1",
        "updates on memories chosen at random are considerably less useful",
        "less than half as far ahead of the MLP, by more than the interval",
        _runs("mlp", "random-1000", "mbpa-1000"),
        _random_helps_less,
    ),
    over_seeds(
        "Figure 3, right",
        "EWC and MbPA together are better than either",
        "ahead of both, with 100 and with 1000 examples; in part: in some of the four comparisons",
        _runs("ewc", "mbpa-100", "ewc-mbpa-100", "mbpa-1000", "ewc-mbpa-1000"),
        _better_together,
    ),
)


def figure3_claims() -> report.Table:
    """What the paper says of figure 3, with our verdicts."""
    return verdicts(CLAIMS, "Sprechmann et al. 2018 on permuted MNIST")


def forgotten_in_words() -> str:
    """Sentences, in Markdown: what is left of the first task after the last one, and whose the neighbours are."""
    names = ("mlp", "mbpa-1000", "fresh-1000", "memory-1000")
    found = dict(zip(names, common_records(_runs(*names), all_seeds=True, enough=2), strict=False))
    if not found:
        return "**Figure 3 was not run yet.**"
    of_first = {
        name: percent(sum(record.metrics["by_task"][0] for record in records) / len(records))
        for name, records in found.items()
    }
    fitted = found["mbpa-1000"]
    own = percent(sum(record.metrics["own_task"] for record in fitted) / len(fitted))
    return (
        f"On the first task, after the last one, at the {fitted[0].profile} profile (n = {len(fitted)}): the MLP as it "
        f"stands names {of_first['mlp']} of the digits; fitted to the nearest of 1000 examples a task, "
        f"{of_first['mbpa-1000']}; weights that were never trained, fitted likewise, {of_first['fresh-1000']}; the "
        f"vote of the same examples, {of_first['memory-1000']}. Over all tasks, {own} of the nearest neighbours are "
        "examples of the query's own task."
    )


def few_steps_in_words() -> str:
    """A sentence, in Markdown: how good the best fit of so many steps was, of those that were tried (section 4.1)."""
    for profile in PROFILES_SHOWN:
        if records := [r for r in ledger.whole_records(FIGURE3, "mbpa-1000", profile) if r.metrics["tuning"]["fits"]]:
            break
    else:
        return "**Figure 3 was not run yet.**"
    best: dict[int, float] = {}
    for each in records[0].metrics["tuning"]["fits"]:
        steps = each["setting"]["steps"]
        best[steps] = max(best.get(steps, 0.0), each["validation_accuracy"])
    words = [f"with T = {steps} {percent(accuracy)}" for steps, accuracy in sorted(best.items())]
    return (
        f"Of the fits to 1000 examples a task that were tried (the {profile} profile, seed 0), the best {words[0]} of "
        f"the validation images named rightly, {', '.join(words[1:])}."
    )
