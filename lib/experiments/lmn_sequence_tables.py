"""Shankar & Sarawagi 2018, table 2 as the command line and the book show it, and what the paper claims by it."""

import math
from typing import Any

from lib import ledger, report
from lib.data.sequences import NAMES
from lib.experiments.claims import FAILS, HOLDS, NOT_YET, SO_FAR
from lib.experiments.curves import PROFILES_SHOWN
from lib.experiments.lmn_table1 import LABELS
from lib.ledger import Record

NAME, READINGS = "lmn.table2", "lmn.readings"
ALWAYS = 1e6  # a margin that is never reached
METHOD_LABELS = {
    "network": "GRU alone",
    "lstm": "LSTM",
    "rei": "Rei",
    "maml": "MAML",
    "maml-2": "MAML, 2nd order",
    "dntm": "D-NTM",
    "lmn-fixed": "LMN-fixed",
    "lmn": "LMN",
}


READING_LABELS = {
    "one-cell": "LMN-fixed, one cell a label",
    "three-cells": "three cells a label, shared by the bare cosine (figure 2)",
    "three-cells-kernel": "three cells, shared by the kernel (equation 2)",
    "three-cells-zeros": "three cells, all there as zeros from the beginning",
    "always-write": "one cell, written at every step",
    "no-strength": "one cell, δ = 0: its weight α counts for nothing",
    "combiner": "LMN, one state for all labels that are not in memory",
    "combiner-all-states": "the same combiner, tested with a state for every label",
}


def table2() -> report.Table:
    """Table 2, turned: a line for each method on each data set, the paper's numbers beside ours."""
    paper = ledger.paper_numbers("lmn")
    rows = []
    for data in NAMES:
        reported = dict(zip(paper["table2"]["columns"], paper["table2"]["rows"].get(data, ()), strict=False))
        even = [_even_guess(paper["table1"]["rows"].get(data)), "–"]
        records = {method: _our_records(NAME, f"{data}-{method}") for method in METHOD_LABELS}
        found = [record for each in records.values() for record in each]
        ours = [f"{math.log(found[0].metrics['labels']):.2f}", "–"] if found else []
        rows.append(
            report.Row(LABELS[data], "an even guess", (*even, *(ours or ("–", "–"))), "" if found else report.NOT_RUN)
        )
        for method, label in METHOD_LABELS.items():
            if method == "maml-2" and not records[method]:  # ours alone: nobody misses it
                continue
            pair = reported.get(method)
            theirs = ("–", "–") if pair is None else tuple(f"{value:.2f}" for value in pair)
            rows.append(report.Row(LABELS[data], label, theirs + _our_cells(records[method]), _note(records[method])))
    caption = (
        "Log-perplexity, in nats a token, and mean reciprocal rank (MRR) of what came next, on test sequences "
        "(Shankar & Sarawagi 2018, table 2; the even guess, the GRU alone and second-order MAML are not in it). "
        "Times and updates are without those of the settings that were tried, and of the GRU that LMN stands on"
    )
    return report.Table(caption, ("paper", "paper, MRR", "ours", "ours, MRR"), tuple(rows), ("data", "method"))


def _even_guess(statistics: list | None) -> str:
    """Of the paper's number of tokens, the last of its table 1."""
    return f"{math.log(statistics[-1]):.2f}" if statistics else "–"


def _our_records(experiment: str, variant: str) -> list[Record]:
    """Those of the fullest profile that has any; on real data, where there are such."""
    for profile in PROFILES_SHOWN:
        records = ledger.load_records(experiment, variant, profile)
        if records := [r for r in records if not r.data["is_standin"]] or records:
            return records
    return []


def _our_cells(records: list[Record]) -> tuple[str, str]:
    """Log-perplexity and mean reciprocal rank; means over seeds."""
    if not records:
        return "–", "–"
    mean, half = ledger.mean_and_interval([record.metrics["log_perplexity"] for record in records])
    spread = "" if half is None else f" ± {half:.2f}"
    return f"{mean:.2f}{spread}", f"{_means(records)[1]:.2f}"


def _note(records: list[Record]) -> str:
    if not records:
        return report.NOT_RUN
    at_edge = edges(records[0].metrics)
    words = f"; at the edge of what was tried: {', '.join(_in_words(*each) for each in at_edge.items())}"
    return f"{records[0].profile} profile, {report.note_on(records)}{words if at_edge else ''}"


def edges(metrics: dict[str, Any]) -> dict[str, Any]:
    """Of the chosen setting what is the smallest or largest of three values or more that were tried."""
    chosen, tried = metrics["setting"], [each["setting"] for each in metrics["tuning"]]
    ranges = {name: sorted({setting[name] for setting in tried}) for name in chosen}
    return {
        name: chosen[name]
        for name, values in ranges.items()
        if len(values) > 2 and chosen[name] in values[:: len(values) - 1]
    }


def in_short() -> str:
    """A sentence, in Markdown, for each data set of which LMN and another method were run at one profile."""
    lines = []
    for data in NAMES:
        for profile in PROFILES_SHOWN:
            found = {method: ledger.whole_records(NAME, f"{data}-{method}", profile) for method in METHOD_LABELS}
            means = {method: _means(records) for method, records in found.items() if records}
            if "lmn" in means and len(means) > 1:
                lines.append(_sentence(data, profile, means))
                break
    return "\n".join(lines) or "**No data set was run with LMN and another method yet.**"


def _means(records: list[Record]) -> tuple[float, float]:
    return tuple(sum(record.metrics[key] for record in records) / len(records) for key in ("log_perplexity", "mrr"))


def _sentence(data: str, profile: str, means: dict[str, tuple[float, float]]) -> str:
    order = sorted(means, key=lambda method: means[method][0])
    scores = ", ".join(f"{METHOD_LABELS[each]} {means[each][0]:.2f} ({means[each][1]:.2f})" for each in order)
    return f"- **{LABELS[data]}**, {profile} profile, from the lowest log-perplexity to the highest: {scores}."


def by_step() -> report.Table:
    """Log-perplexity by how far in its sequence a step is, of each row's first seed."""
    rows, longest = [], 0
    for data in NAMES:
        for method, label in METHOD_LABELS.items():
            record = ledger.best_record(NAME, f"{data}-{method}")
            if record:
                cells = tuple(f"{nll:.2f}" for nll, _, _ in record.metrics["by_step"])
                longest = max(longest, len(cells))
                rows.append((f"{LABELS[data]}: {label}", f"ours, {record.profile} profile", cells))
    filled = tuple(report.Row(label, source, cells + ("–",) * (longest - len(cells))) for label, source, cells in rows)
    columns = tuple(f"{2**k} to {2 ** (k + 1) - 1}" if k else "1" for k in range(longest))
    return report.Table("Log-perplexity in nats by range of steps of a sequence", columns, filled, ("row", "source"))


def readings() -> report.Table:
    """What the choices do to the result that the paper leaves open, on one data set."""
    rows = []
    for variant, label in READING_LABELS.items():
        if not (records := _our_records(READINGS, variant)):
            rows.append(report.Row(label, "ours", (), report.NOT_RUN))
            continue
        note = f"n = {len(records)}; " + ", ".join(_in_words(*each) for each in records[0].metrics["setting"].items())
        if records[0].data["is_standin"]:
            note += f"; STAND-IN DATA: {records[0].data['name']}"
        rows.append(report.Row(label, f"ours, {records[0].profile} profile", _our_cells(records), note))
    caption = (
        "Readings of LMN on Foursquare, New York: log-perplexity in nats and mean reciprocal rank (MRR) on test "
        "people; and the settings, chosen on validation people"
    )
    return report.Table(caption, ("log-perplexity", "MRR"), tuple(rows), ("reading", "source"))


def _in_words(name: str, value: float) -> str:
    sign = {"theta": "θ", "learning_rate": "learning rate", "rate": "rate of adaptation"}.get(name, name)
    return "no margin: every step is written" if (name, value) == ("margin", ALWAYS) else f"{sign} {value:g}"


COMPARISONS = (
    ("LMN beats an LSTM with five times the recurrent parameters", "lmn", "lstm"),
    ("Weights that the combiner sets beat constant ones", "lmn", "lmn-fixed"),
    ("A memory without training beats retuning all parameters", "lmn-fixed", "maml"),
    ("A memory without training beats retuning one vector", "lmn-fixed", "rei"),
    ("Retuning all parameters beats retuning one vector", "maml", "rei"),
    ("Retuning one vector beats the LSTM", "rei", "lstm"),
    ("LMN-fixed beats D-NTM", "lmn-fixed", "dntm"),
)


def verdicts() -> report.Table:
    """What the paper says of table 2, by data set, and whether our records bear it out."""
    rows = []
    for claim, first, second in COMPARISONS:
        cells = tuple(_verdict(first, second, data) for data in NAMES)
        rows.append(report.Row(claim, f"{METHOD_LABELS[first]} less {METHOD_LABELS[second]}", cells))
    caption = (
        "Claims of Shankar & Sarawagi 2018 about table 2, and our differences of log-perplexity in nats, ± half of "
        "their 95% interval over the n seeds that both rows have"
    )
    return report.Table(caption, tuple(LABELS[data] for data in NAMES), tuple(rows), ("claim", "difference"))


def _verdict(first: str, second: str, data: str) -> str:
    for profile in PROFILES_SHOWN:
        records = [
            {record.seed: record for record in ledger.whole_records(NAME, f"{data}-{method}", profile)}
            for method in (first, second)
        ]
        seeds = sorted(records[0].keys() & records[1].keys())
        if seeds:
            pairs = [[of[seed].metrics["log_perplexity"] for of in records] for seed in seeds]
            mean, half = ledger.mean_and_interval([a - b for a, b in pairs])
            verdict = HOLDS if mean + (half or 0.0) < 0 else FAILS
            if profile != "paper":  # a part of the training, see `claims`
                verdict = {HOLDS: SO_FAR, FAILS: NOT_YET}[verdict]
            spread = "" if half is None else f" ± {half:.2f}"
            return f"{verdict}: {mean:+.2f}{spread}, n = {len(seeds)}"
    return report.NOT_RUN
