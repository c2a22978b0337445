"""Tables of the ledger: the paper's numbers beside ours, as text for the command line and as HTML for the book."""

import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape
from typing import Any

from lib import ledger
from lib.ledger import Record

NOT_RUN = "not run"
LONGEST_NUMBER = 15  # characters, such as those of «0.950 ± 0.013» or «-10.6 (-12.9%)»
MODEL_NAMES = {"mbpa": "MbPA"}  # where a record's word for a model is not the book's
WIDE = 8  # columns, from which on a table does not fit beside the contents of a page
LONGEST_NOTE = 25  # characters, such as those of «quoted, not measured here»


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    label: str
    source: str
    """`paper`, or `ours` with the profile."""
    cells: tuple[str, ...]
    """One for each column; none at all where nothing was run."""
    note: str = ""
    """What a reader must know of this row: seeds, updates, device, stand-in data."""


@dataclass(frozen=True)
class Table:
    """A table with its caption."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    names: tuple[str, str] = ("network", "source")
    """What stands above the rows' labels and sources."""


def ordinal(k: int) -> str:
    """1st, 2nd, 3rd, 4th ..."""
    suffix = "th" if k % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(k % 10, "th")
    return f"{k}{suffix}"


def grouped(number: int) -> str:
    """With a space between thousands: 10 000."""
    return f"{number:,}".replace(",", " ")


def percent(values: list[float]) -> str:
    """Mean of shares as a percentage, ± the half-width of its 95% interval over seeds where there are several."""
    mean, half = ledger.mean_and_interval(values)
    return f"{100 * mean:.1f}" + ("" if half is None else f" ± {100 * half:.1f}")


def accuracy_rows(
    experiment: str, variant: str, label: str, instances: list[int], profiles: Iterable[str]
) -> list[Row]:
    """Our rows of a table of test accuracy by instance: one for each profile with records, or one that says «not run».

    Finished and unfinished runs, real data and stand-ins have rows of their own.
    """
    return _rows(experiment, variant, label, instances, profiles, lambda record: record.metrics["accuracy"])


def validation_rows(
    experiment: str, variant: str, label: str, instances: list[int], profiles: Iterable[str]
) -> list[Row]:
    """As `accuracy_rows`, with the accuracy of a run's last validation in place of the test's."""

    def last_validation(record: Record) -> list[float | None]:
        validations = (record.curve or {}).get("validation_accuracy")
        return validations[-1] if validations else [None] * max(instances)

    return _rows(experiment, variant, label, instances, profiles, last_validation, _validated_at)


def digit_rows(experiment: str, variant: str, label: str, instances: list[int], profiles: Iterable[str]) -> list[Row]:
    """As `accuracy_rows`, with the test on miniMNIST in place of that on characters: the mean over the draws."""

    def on_digits(record: Record) -> list[float | None]:
        return record.metrics.get("mini_mnist", {}).get("accuracy", [None] * max(instances))

    return _rows(experiment, variant, label, instances, profiles, on_digits, _spread_of_draws)


def _spread_of_draws(records: list[Record]) -> str:
    draws = [draw[1] for record in records for draw in record.metrics.get("mini_mnist", {}).get("by_draw", [])]
    if not draws:
        return ", not tested on digits"
    parts = [f"2nd instance {100 * min(draws):.1f} to {100 * max(draws):.1f} over {len(draws)} draws of the images"]
    if any(record.metrics["mini_mnist"]["data"]["is_standin"] for record in records):
        parts.append(f"STAND-IN DIGITS: {records[0].metrics['mini_mnist']['data']['name']}")
    return "".join(f", {part}" for part in parts)


def _validated_at(records: list[Record]) -> str:
    last = [
        record.curve["validation_update"][-1] for record in records if (record.curve or {}).get("validation_update")
    ]
    return ", validated at update " + grouped(min(last)) if last else ""


def _rows(
    experiment: str,
    variant: str,
    label: str,
    instances: list[int],
    profiles: Iterable[str],
    accuracy_of: Callable[[Record], list[float | None]],
    more: Callable[[list[Record]], str] = lambda _: "",
) -> list[Row]:
    rows = []
    for profile in profiles:
        kinds = itertools.groupby(sorted(ledger.load_records(experiment, variant, profile), key=_kind), _kind)
        for records in (list(same_kind) for _, same_kind in kinds):
            by_instance = [[accuracy_of(r)[k - 1] for r in records] for k in instances]
            known = [[accuracy for accuracy in column if accuracy is not None] for column in by_instance]
            cells = tuple(percent(column) if column else "–" for column in known)
            rows.append(Row(label, f"ours, {profile} profile", cells, note_on(records) + more(records)))
    return rows or [Row(label, "ours", (), NOT_RUN)]


def _kind(record: Record) -> tuple[bool, bool]:
    return record.data["is_standin"], not record.complete


def note_on(records: list[Record]) -> str:
    """Seeds, updates, time, device and data of the records behind one row."""
    first = records[0]
    updates = f"{grouped(min(r.updates for r in records))} updates"
    if not all(r.complete for r in records):
        asked = grouped(first.config["training"]["updates"])
        updates += f" of {asked}: unfinished"
    seconds = sum(r.seconds for r in records) / len(records)
    parts = [f"n = {len(records)}", updates, f"{duration(seconds)} on {first.machine['name']}"]
    if any(r.data["is_standin"] for r in records):
        parts.append(f"STAND-IN DATA: {first.data['name']}")
    return ", ".join(parts)


def compare_with_paper(experiment: str, variant: str, who: str, reported: dict[int, float]) -> str:
    """Sentences, in Markdown, on how a row's runs of the paper profile compare with the paper's.

    who: the row's name; reported: instance to the paper's test accuracy in percent.
    """
    records = [r for r in ledger.load_records(experiment, variant, "paper") if not r.data["is_standin"]]
    records = [r for r in records if r.complete] or records
    if not records:
        return f"**{who} was not run at the paper profile yet.**"
    asked = records[0].config["training"]["updates"]
    done = min(record.updates for record in records)
    differences = {
        k: 100 * sum(record.metrics["accuracy"][k - 1] for record in records) / len(records) - number
        for k, number in reported.items()
    }
    worst = min(differences, key=differences.get)
    best = max(differences, key=differences.get)
    progress = f"After {grouped(done)} of {grouped(asked)} updates"
    verdict = "within 2 points of the paper's row or above it at every instance"
    if differences[worst] < -2:
        verdict = "short of the paper's row by more than 2 points at some instance"
    who = who if len(records) == 1 else f"{who}, the mean of {len(records)} seeds,"
    return (
        f"**{progress} {who} is {verdict}.** Its lowest cell beside the paper is the {ordinal(worst)} instance, "
        f"at {differences[worst]:+.1f} points, its highest the {ordinal(best)}, at {differences[best]:+.1f}."
        + "".join(_still_rising(record) for record in records if not record.complete)
    )


def _still_rising(record: Record, span: int = 10_000) -> str:
    curve = record.curve or {"update": [], "accuracy": []}
    at = {u: a[1] for u, a in zip(curve["update"], curve["accuracy"], strict=True)}
    if record.updates not in at or record.updates - span not in at:
        return ""
    gain = 100 * (at[record.updates] - at[record.updates - span])
    span_text = grouped(span)
    return (
        f" The run is unfinished: in its last {span_text} updates the training accuracy of the 2nd instance changed by "
        f"{gain:+.1f} points."
    )


def duration(seconds: float) -> str:
    """A time that people can read: 42 s, 7 min, 2.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def describe_record(record: Record) -> str:
    """One or two lines on what a run gave."""
    if not record.metrics:
        return f"  stopped at update {record.updates}; the same command goes on from there"
    if "negative_log_likelihood" in record.metrics:
        ours, exact = record.metrics["negative_log_likelihood"], record.metrics["gp_negative_log_likelihood"]
        shown = "test negative log-likelihood by sample, in nats: " + ", ".join(
            f"{ordinal(k)} {ours[k - 1]:.2f} (exact GP {exact[k - 1]:.2f})" for k in (1, 5, 20, 50) if k <= len(ours)
        )
    elif "perplexity" in record.metrics:
        shown = f"test perplexity {record.metrics['perplexity']:.1f}"
    elif "log_perplexity" in record.metrics:
        shown = f"test log-perplexity {record.metrics['log_perplexity']:.3f}, MRR {record.metrics['mrr']:.3f}"
    elif "kinds" in record.metrics:
        named = zip(record.metrics["kinds"], record.metrics["accuracy"], strict=True)
        shown = "test accuracy: " + ", ".join(f"{kind} {accuracy:.1%}" for kind, accuracy in named)
    elif "mean_accuracy" in record.metrics:
        by_task = record.metrics["mean_accuracy"]
        shown = f"test accuracy after the last of {len(by_task)} tasks, the mean over all of them: {by_task[-1]:.1%}"
    elif "error" in record.metrics:
        named = ((MODEL_NAMES.get(model, model), error) for model, error in record.metrics["error"].items())
        shown = "root mean squared error: " + ", ".join(f"{name} {error:.3f}" for name, error in named)
    elif "by_value" in record.metrics:
        last = zip(record.metrics["values"], record.metrics["by_value"], strict=True)
        shown = f"MbPA's test accuracy at the end, by {record.metrics['changed']}: " + ", ".join(
            f"{value:g} {models['mbpa']['all'][-1]:.1%}" for value, models in last
        )
    elif "accuracy" not in record.metrics:
        shown = "recorded"
    elif isinstance(record.metrics["accuracy"], dict):
        last = ((model, curves["all"][-1]) for model, curves in record.metrics["accuracy"].items())
        shown = "test accuracy at the end: " + ", ".join(
            f"{MODEL_NAMES.get(model, model)} {a:.1%}" for model, a in last
        )
    else:
        shown = "test accuracy by instance: " + ", ".join(
            f"{ordinal(k)} {a:.1%}"
            for k, a in enumerate(record.metrics["accuracy"], 1)
            if a is not None and k in (1, 2, 3, 4, 5, 10)
        )
    data = f"  data: {record.data['name']}, {source}\n" if (source := record.metrics.get("source")) else ""
    return f"  {shown}\n{data}  {note_on([record])}; recorded as {record.name}.json"


def cost(experiment: str, variant: str, profile: str) -> str:
    """What a run took with its test: the mean of its complete records, «7 min on a CPU»; without any «not measured»."""
    records = [r for r in ledger.load_records(experiment, variant, profile) if r.complete]
    if not records:
        return "not measured"
    names = {"cpu": "a CPU", "cuda": records[0].machine["name"]}
    seconds = sum(r.seconds + _test_seconds(r) for r in records) / len(records)
    return f"{duration(seconds)} on {names.get(records[0].machine['device'], records[0].machine['device'])}"


def _test_seconds(record: Record) -> float:
    """What a record says its test took, where that is not among its seconds."""
    own = record.metrics.get("seconds")
    return record.metrics.get("test_seconds", 0.0) + (own["test"] if isinstance(own, dict) else 0.0)


def _expected_cost(experiment: Any, variant: str, profile: str) -> str:
    taken = cost(experiment.name, variant, profile)
    return f"{experiment.costs[profile]}, roughly" if taken == "not measured" else taken


def cost_table(experiments: Iterable) -> Table:
    """What the variants of experiments took at each profile, from their records."""
    rows = [
        Row(variant, experiment.name, tuple(_expected_cost(experiment, variant, each) for each in experiment.profiles))
        for experiment in experiments
        if not experiment.drawn_from
        for variant in experiment.variants
    ]
    return Table(
        "Time of one run, by profile: measured, or expected («roughly»)",
        ("smoke", "short", "paper"),
        tuple(rows),
        ("variant", "experiment"),
    )


def experiment_list(experiments: Iterable) -> str:
    """What `python -m lib list` prints: each experiment with the records that the ledger has of its variants."""
    lines = []
    for experiment in experiments:
        lines.append(f"{experiment.name}  {experiment.paper}: {experiment.title}")
        if experiment.drawn_from:
            drawn_from = ", ".join(dict.fromkeys(name for name, _ in experiment.drawn_from.values()))
            lines.append(f"    drawn from the runs of {drawn_from}")
            continue
        for variant in experiment.variants:
            for profile in experiment.profiles:
                records = ledger.load_records(experiment.name, variant, profile)
                state = note_on(records) if records else NOT_RUN
                taken = _expected_cost(experiment, variant, profile)
                lines.append(f"    {variant:<21} {profile:<6} cost {taken:<28} {state}")
    return "\n".join(lines)


def text_table(table: Table) -> str:
    """A table for a terminal."""
    header = (*table.names, *table.columns, "")
    body = [(row.label, row.source, *_filled(row, table), row.note) for row in table.rows]
    widths = [max(len(line[i]) for line in (header, *body)) for i in range(len(header))]
    lines = [_caption(table), ""]
    for line in (header, *body):
        cells = [
            text.ljust(w) if i < 2 or i == len(header) - 1 else text.rjust(w)
            for i, (text, w) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _filled(row: Row, table: Table) -> tuple[str, ...]:
    return row.cells or ("–",) * len(table.columns)


def html_table(table: Table) -> str:
    """A table for a page: a caption, header cells with their scope, and notes where there are any.

    Notes are the last column or, where one of them is longer than `LONGEST_NOTE`, each a line below its row.
    """
    longest = max((len(row.note) for row in table.rows), default=0)
    column = 0 < longest <= LONGEST_NOTE
    names = (*table.names, *table.columns, *(["from"] if column else []))
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    lines = []
    for row in table.rows:
        cells = f"<td>{escape(row.source)}</td>" + "".join(_cell(text) for text in _filled(row, table))
        beside = f'<td class="note">{_unbroken(row.note)}</td>' if column else ""
        kind = "paper" if row.source == "paper" else "ours"
        lines.append(f'<tr class="{kind}"><th scope="row">{escape(row.label)}</th>{cells}{beside}</tr>')
        if row.note and not column:
            lines.append(_line_below(row, kind, len(names)))
    wide = " wide" if len(names) >= WIDE else ""
    return (
        f'<table class="ledger{wide}"><caption><span>{escape(_caption(table))}</span></caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )


def _line_below(row: Row, kind: str, width: int) -> str:
    # The row's name is not drawn: it is for those who hear the note without seeing what it stands below.
    name = f'<span class="visually-hidden">{escape(row.label)}: </span>'
    return (
        f'<tr class="{kind} below"><td class="note" colspan="{width}"><div>{name}{_unbroken(row.note)}</div></td></tr>'
    )


def _caption(table: Table) -> str:
    intervals = any("±" in cell and len(cell) <= LONGEST_NUMBER for row in table.rows for cell in row.cells)
    told = "±" in table.caption
    return table.caption + (
        "; ±: half of the 95% interval over the n seeds, by Student's t" if intervals and not told else ""
    )


def _cell(text: str) -> str:
    kind = "number" if len(text) <= LONGEST_NUMBER else "words"
    return f'<td class="{kind}">{_unbroken(text)}</td>'


def _unbroken(text: str) -> str:
    return escape(unbroken(text))


def unbroken(text: str) -> str:
    """No line ends between thousands or after ±."""
    return re.sub(r"(?<=\d) (?=\d{3}\b)", "\u00a0", text).replace("± ", "±\u00a0")
