"""Shankar & Sarawagi 2018, table 5: the table that is shown, and what the paper claims of it."""

import itertools

from lib import ledger, report
from lib.experiments.claims import FAILS, HOLDS, Claim
from lib.ledger import Record

NAME = "lmn.table5"
CORPORA = {"wikitext-2": "WikiText-2", "text8": "text8"}
METHODS = {
    "lstm": "LSTM",
    "cache": "Neural cache",
    "lmn-fixed": "LMN-fixed",
    "lmn-always": "LMN-fixed, writing always",
    "lmn": "LMN",
}
ROWS = {  # of the paper's table, and their names there
    "lstm": "lstm",
    "pointer-lstm": "pointer-lstm",
    "cache": "neural-cache",
    "lmn-fixed": "lmn-fixed",
    "lmn-always": "lmn-always",
    "lmn": "lmn",
}
COLUMNS = ("WikiText-2", "text8", "stand-in for text8")
BORROWED = {
    "lstm": "reported by Grave et al.",
    "cache": "reported by Grave et al.",
    "pointer-lstm": "reported by Merity et al.; not run here",
}


def table5() -> report.Table:
    """Table 5 with our rows; a stand-in has a column of its own."""
    paper, rows = ledger.paper_numbers("lmn")["table5"]["rows"], []
    for method, name in ROWS.items():
        label = METHODS.get(method, "Pointer sentinel LSTM")
        if name in paper:
            cells = tuple("–" if value is None else str(value) for value in paper[name])
            rows.append(report.Row(label, "paper", (*cells, "–"), BORROWED.get(method, "")))
        if method in METHODS:
            rows += _our_rows(method, label)
    caption = (
        "Test perplexity of language models that read with a memory: 100 for WikiText-2, 2000 for text8 "
        "(Shankar & Sarawagi 2018, table 5). Our rows of a profile adapt one LSTM; the short profile's has 200 "
        "units, the paper's 1024, so compare rows, not our numbers with the paper's"
    )
    return report.Table(caption, COLUMNS, tuple(rows), ("method", "source"))


def in_short() -> str:
    """A sentence, in Markdown, for each text that was read: the methods from the lowest perplexity to the highest."""
    lines = []
    for index, text in enumerate(COLUMNS):
        for profile in ("paper", "short"):
            found = {label: _by_column(method, profile)[index] for method, label in METHODS.items()}
            means = {label: _mean(records) for label, records in found.items() if records}
            if len(means) > 1:
                order = ", ".join(f"{label} {means[label]:.1f}" for label in sorted(means, key=means.get))
                lines.append(f"- **{text}**, {profile} profile, from the lowest perplexity to the highest: {order}.")
                break
    return "\n".join(lines) or "**No text was read with two methods yet.**"


def _by_column(method: str, profile: str) -> tuple[list[Record], list[Record], list[Record]]:
    """The finished records of a method for each of `COLUMNS`."""
    by_corpus = [ledger.load_records(NAME, f"{corpus}-{method}", profile) for corpus in CORPORA]
    finished = [[r for r in records if r.complete] for records in by_corpus]
    wikitext, text8 = ([r for r in records if not r.data["is_standin"]] for records in finished)
    return wikitext, text8, [r for r in finished[1] if r.data["is_standin"]]


def _our_rows(method: str, label: str) -> list[report.Row]:
    rows = []
    for profile in ("paper", "short"):
        columns = _by_column(method, profile)
        if any(columns):
            notes = (f"{c}: {report.note_on(column)}" for c, column in zip(COLUMNS, columns, strict=True) if column)
            rows.append(
                report.Row(label, f"ours, {profile} profile", tuple(map(_perplexity, columns)), "; ".join(notes))
            )
    return rows or [report.Row(label, "ours", (), report.NOT_RUN)]


def _perplexity(records: list[Record]) -> str:
    if not records:
        return report.NOT_RUN
    _, half = ledger.mean_and_interval([record.metrics["perplexity"] for record in records])
    return f"{_mean(records):.1f}" + ("" if half is None else f" ± {half:.1f}")


def _mean(records: list[Record]) -> float:
    return sum(record.metrics["perplexity"] for record in records) / len(records)


def _lower(worse: Record, better: Record) -> tuple[str, str]:
    a, b = (record.metrics["perplexity"] for record in (worse, better))
    return HOLDS if b < a else FAILS, f"{b:.1f} against {a:.1f}: {100 * (b / a - 1):+.1f}%"


def _claims(corpus: str) -> tuple[Claim, ...]:
    paper, column = ledger.paper_numbers("lmn")["table5"]["rows"], list(CORPORA).index(corpus)

    def reported(method: str) -> float:
        return paper[ROWS[method]][column]

    return tuple(
        Claim(
            f"Table 5, {CORPORA[corpus]}",
            f"{METHODS[better]} predicts better than {METHODS[worse].replace('LSTM', 'the LSTM')}: "
            f"perplexity {reported(better)} against {reported(worse)}",
            "a lower test perplexity, on the same LSTM",
            ((NAME, f"{corpus}-{worse}"), (NAME, f"{corpus}-{better}")),
            _lower,
            compares=True,
        )
        for worse, better in itertools.pairwise(("lstm", "cache", "lmn"))
    )


def paper_claims() -> tuple[Claim, ...]:
    """What the paper says of either text; with its numbers, for which its file is read."""
    return tuple(claim for corpus in CORPORA for claim in _claims(corpus))
