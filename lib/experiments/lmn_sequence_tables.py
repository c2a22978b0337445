"""Shankar & Sarawagi 2018, table 2 as the command line and the book show it, and what the paper claims by it."""

from lib import ledger, report
from lib.data.sequences import NAMES
from lib.experiments import claims
from lib.experiments.claims import FAILS, HOLDS, Claim
from lib.experiments.curves import PROFILES_SHOWN
from lib.experiments.lmn_table1 import LABELS
from lib.ledger import Record

NAME, READINGS = "lmn.table2", "lmn.readings"
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
    "combiner-all-states": "LMN, a state for every label",
}


def cell(log_perplexities: list[float], ranks: list[float]) -> str:
    """As the paper writes it: log-perplexity and, in parentheses, the mean reciprocal rank; means over seeds."""
    mean, half = ledger.mean_and_interval(log_perplexities)
    spread = "" if half is None else f" ± {half:.2f}"
    return f"{mean:.2f}{spread} ({sum(ranks) / len(ranks):.2f})"


def table2() -> report.Table:
    """Table 2 with our rows."""
    paper = ledger.paper_numbers("lmn")["table2"]
    rows = []
    for data in NAMES:
        if data in paper["rows"]:
            reported = dict(zip(paper["columns"], paper["rows"][data], strict=True))
            cells = tuple(_paper_cell(reported.get(method)) for method in METHOD_LABELS)
            rows.append(report.Row(LABELS[data], "paper", cells))
        rows += _our_rows(data)
    caption = (
        "Log-perplexity, in nats a token, and in parentheses the mean reciprocal rank of what came next, on test "
        "sequences (Shankar & Sarawagi 2018, table 2; the GRU alone and second-order MAML are not in the paper)"
    )
    return report.Table(caption, tuple(METHOD_LABELS.values()), tuple(rows), ("data", "source"))


def _paper_cell(pair: list[float] | None) -> str:
    return "–" if pair is None else f"{pair[0]:.2f} ({pair[1]:.2f})"


def _our_rows(data: str) -> list[report.Row]:
    rows = []
    for profile in PROFILES_SHOWN:
        cells, notes = [], []
        for method, label in METHOD_LABELS.items():
            records = ledger.load_records(NAME, f"{data}-{method}", profile)
            records = [r for r in records if not r.data["is_standin"]] or records
            scores = [[record.metrics[key] for record in records] for key in ("log_perplexity", "mrr")]
            cells.append(cell(*scores) if records else report.NOT_RUN)
            if records:
                seconds = report.duration(sum(record.seconds for record in records) / len(records))
                stand_in = ", STAND-IN DATA" if records[0].data["is_standin"] else ""
                notes.append(f"{label} n = {len(records)}, {seconds}{stand_in}")
        if notes:
            rows.append(report.Row(LABELS[data], f"ours, {profile} profile", tuple(cells), "; ".join(notes)))
    return rows or [report.Row(LABELS[data], "ours", (), report.NOT_RUN)]


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
        for profile in PROFILES_SHOWN:
            records = ledger.load_records(READINGS, variant, profile)
            if records:
                scores = [[record.metrics[key] for record in records] for key in ("log_perplexity", "mrr")]
                setting = ", ".join(f"{name} {value:g}" for name, value in records[0].metrics["setting"].items())
                note = f"n = {len(records)}; chosen on validation: {setting}"
                if records[0].data["is_standin"]:
                    note += f"; STAND-IN DATA: {records[0].data['name']}"
                rows.append(report.Row(label, f"ours, {profile} profile", (cell(*scores),), note))
        if not rows or rows[-1].label != label:
            rows.append(report.Row(label, "ours", (), report.NOT_RUN))
    caption = "Readings of LMN on Foursquare, New York: log-perplexity in nats, mean reciprocal rank in parentheses"
    return report.Table(caption, ("test",), tuple(rows), ("reading", "source"))


def lower(first: str, second: str, data: str) -> tuple[str, str]:
    """A judge's verdict: has the first method a lower log-perplexity than the second, beyond what seeds explain?

    With three seeds or more of both, the interval of the difference by seed decides; with fewer, the means do, and the
    evidence says so.
    """
    for profile in PROFILES_SHOWN:
        pairs = _pairs(first, second, data, profile)
        if pairs:
            break
    differences = [a.metrics["log_perplexity"] - b.metrics["log_perplexity"] for a, b in pairs]
    mean, half = ledger.mean_and_interval(differences)
    certain = f", 95% interval ± {half:.3f} over {len(pairs)} seeds" if half is not None else ", one seed"
    holds = mean + (half or 0.0) < 0
    ranks = [sum(pair[i].metrics["mrr"] for pair in pairs) / len(pairs) for i in (0, 1)]
    evidence = (
        f"{METHOD_LABELS[first]} less {METHOD_LABELS[second]}: {mean:+.3f} nats{certain}; "
        f"MRR {ranks[0]:.3f} against {ranks[1]:.3f}"
    )
    return (HOLDS if holds else FAILS), evidence


def _pairs(first: str, second: str, data: str, profile: str) -> list[tuple[Record, Record]]:
    found = [
        {record.seed: record for record in ledger.whole_records(NAME, f"{data}-{method}", profile)}
        for method in (first, second)
    ]
    return [(found[0][seed], found[1][seed]) for seed in sorted(found[0].keys() & found[1].keys())]


def _comparison(text: str, first: str, second: str, data: str) -> Claim:
    return Claim(
        figure=f"table 2, {LABELS[data]}",
        text=text,
        criterion=f"log-perplexity of {METHOD_LABELS[first]} below that of {METHOD_LABELS[second]}, beyond the seeds",
        runs=((NAME, f"{data}-{first}"), (NAME, f"{data}-{second}")),
        judge=lambda *_: lower(first, second, data),
        compares=True,
    )


COMPARISONS = (
    ("LMN beats an LSTM with five times the recurrent parameters", "lmn", "lstm"),
    ("weights that the combiner sets beat constant ones", "lmn", "lmn-fixed"),
    ("a memory without training beats retuning all parameters", "lmn-fixed", "maml"),
    ("retuning all parameters beats retuning one vector", "maml", "rei"),
    ("retuning one vector beats the LSTM", "rei", "lstm"),
    ("LMN-fixed beats D-NTM", "lmn-fixed", "dntm"),
)
CLAIMS = tuple(_comparison(text, first, second, data) for data in NAMES[:5] for text, first, second in COMPARISONS)


def verdicts() -> report.Table:
    """What the paper says of table 2, and whether our records bear it out."""
    return claims.verdicts(CLAIMS, "Shankar & Sarawagi 2018")
