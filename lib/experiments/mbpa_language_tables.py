"""Sprechmann et al. 2018 on language: table 2 and figure 8 as the command line and the book show them."""

from lib import ledger, report
from lib.experiments.curves import PROFILES_SHOWN
from lib.ledger import Record

NAME, FIGURE8 = "mbpa.table2", "mbpa.figure8"
CORPORA = {"ptb": "Penn Treebank", "wikitext-2": "WikiText-2"}
QUOTED = {  # rows that the paper takes from others, and from whom
    "charcnn": ("CharCNN", "Zhang et al. 2015"),
    "variational-lstm": ("Variational LSTM", "Aharoni et al. 2017"),
    "lstm-cache-grave": ("LSTM + cache", "Grave et al. 2016"),
    "lstm-melis": ("LSTM", "Melis et al. 2017"),
    "awd-lstm": ("AWD-LSTM", "Merity et al. 2017"),
    "awd-lstm-cache": ("AWD-LSTM + cache", "Merity et al. 2017"),
    "awd-lstm-krause": ("AWD-LSTM, reproduced", "Krause et al. 2017"),
    "awd-lstm-dyneval": ("AWD-LSTM + dynamic evaluation", "Krause et al. 2017"),
}
QUOTED_GAINS = {  # row to the row that it improves on; as the table has them
    "awd-lstm-cache": "awd-lstm",
    "awd-lstm-dyneval": "awd-lstm-krause",
}
PAPERS_BEST = {"size": 5_000, "neighbours": 256, "steps": 1, "rate": 0.15, "share": 0.1}  # appendix B
PAPERS_CACHE_SHARE = 0.15  # which appendix B names along with them
LABELS = {
    "lstm": "LSTM",
    "lstm-cache": "LSTM + cache",
    "lstm-mbpa": "LSTM + MbPA",
    "lstm-mbpa-cache": "LSTM + MbPA + cache",
}
NAMES = {
    "size": "N",
    "neighbours": "K",
    "rate": "α",
    "steps": "T",
    "prior": "β",
    "share": "λ_mbpa",
    "cache_share": "λ_cache",
    "sharpness": "θ",
}


def table2() -> report.Table:
    """Table 2 with our rows: of the paper's grid of settings, of a wider one, of the setting that the paper calls
    optimal, and dynamic evaluation."""
    paper, rows = ledger.paper_numbers("mbpa")["table2"]["rows"], []
    for name, (label, source) in QUOTED.items():
        cells = _paper_cells(paper[name], paper.get(QUOTED_GAINS.get(name)))
        rows.append(report.Row(f"{label}, of {source}", "paper", cells, "quoted; not run here"))
    for name, label in LABELS.items():
        cells = _paper_cells(paper[name], None if name == "lstm" else paper["lstm"])
        rows += [report.Row(label, "paper", cells), *_our_rows(label, name)]
    for name in ("lstm", "lstm-cache"):
        rows += _our_rows(f"{LABELS[name]}, all of the test text", name, part="whole")
    adapted = ("lstm-cache", "lstm-mbpa", "lstm-mbpa-cache")
    for name in adapted:
        rows += _our_rows(f"{LABELS[name]}, wider grid", name, part="wider")
    for name in adapted:
        label = f"{LABELS[name]}, paper's setting"
        rows += _our_rows(label, name, suffix="-appendix-b")
    rows += _our_rows("LSTM, the words of dynamic evaluation", "lstm", suffix="-dynamic")
    rows += _our_rows("LSTM + dynamic evaluation", "dynamic", suffix="-dynamic")
    caption = (
        "Perplexity on validation and test text, and what a row gains on its LSTM on the test text (Sprechmann et al. "
        "2018, table 2). All our rows of a corpus and profile adapt one LSTM, which is smaller than the paper's in the "
        "short profile: compare what is gained, and rather in percent of the LSTM's perplexity than in points, which "
        "are more where an LSTM is worse. Settings are the best on validation text of those that the paper "
        "tried, or of a wider grid (not in the paper), or the one that appendix B calls optimal, with a θ of the cache "
        "that our sweep found, since the paper gives none. MbPA takes long where there are many steps, so that the "
        "short profile scores each so-manieth word of either text, of all models alike; rows of «all of the test text» "
        "score each word. Δ is negative where a row is better. Standard errors, "
        "here and in the claims, are over the words of one text, read by one trained LSTM: what another seed of the "
        "LSTM would change is not in them. The paper did not gain above 1 by dynamic evaluation, on Penn Treebank "
        "alone, and gives no number"
    )
    columns = tuple(f"{corpus}, {what}" for corpus in CORPORA.values() for what in ("validation", "test", "Δ test"))
    return report.Table(caption, columns, tuple(rows), ("model", "source"))


def _paper_cells(row: list[float | None], reference: list[float | None] | None) -> tuple[str, ...]:
    cells = []
    for at in (0, 2):
        cells += ["–" if value is None else str(value) for value in row[at : at + 2]]
        cells.append("–" if reference is None else _change(row[at + 1] - reference[at + 1], reference[at + 1]))
    return tuple(cells)


def _change(points: float, of: float, half: float | None = None) -> str:
    """Points of perplexity, with half of their interval, and in percent of the LSTM's."""
    return f"{points:+.1f}" + ("" if half is None else f" ± {half:.1f}") + f" ({100 * points / of:+.1f}%)"


def _our_rows(label: str, name: str, part: str = "rows", suffix: str = "") -> list[report.Row]:
    rows = []
    for profile in PROFILES_SHOWN:
        of = {corpus: ledger.whole_records(NAME, f"{corpus}{suffix}", profile) for corpus in CORPORA}
        if not any(of.values()):
            continue
        cells, notes = [], []
        for corpus, records in of.items():
            found = [record.metrics[part][name] for record in records]
            validation = [each["validation_perplexity"] for each in found]
            cells += ["–" if None in validation else _mean(validation), _mean([each["perplexity"] for each in found])]
            cells.append("–" if name == "lstm" and found else _gained(found))
            if records:
                notes.append(f"{CORPORA[corpus]}: {_note(records, found, part)}")
        rows.append(report.Row(label, f"ours, {profile} profile", tuple(cells), "; ".join(notes)))
    return rows or [report.Row(label, "ours", (), report.NOT_RUN)]


def _mean(values: list[float]) -> str:
    if not values:
        return report.NOT_RUN
    mean, half = ledger.mean_and_interval(values)
    return f"{mean:.1f}" + ("" if half is None else f" ± {half:.1f}")


def _gained(rows: list[dict]) -> str:
    if not rows:
        return report.NOT_RUN
    mean, half = ledger.mean_and_interval([-row["gain"] for row in rows])
    return _change(mean, sum(row["perplexity"] + row["gain"] for row in rows) / len(rows), half)


def _note(records: list[Record], found: list[dict], part: str) -> str:
    metrics, row = records[0].metrics, found[0]
    if part == "whole":
        return (
            f"n = {len(records)}, {report.grouped(metrics['whole']['words'])} words of test text, the setting as above"
        )
    read = [f"{report.grouped(count)} words of {text} text" for text, count in metrics["words"].items()]
    parts = [f"n = {len(records)}", " and ".join(read)]
    if setting := row.get("setting"):
        parts.append(setting_in_words(setting))
    if ends := row.get("at_end"):
        named = ", ".join(NAMES[end] for end in ends)
        parts.append(f"at an end of what was tried: {named}")
    if "gain_error" in row:
        parts.append(f"standard error of Δ {row['gain_error']:.2f}")
    if lead := row.get("ahead"):
        parts.append("ahead of the LSTM by {:.4f} nats a word, standard error {:.4f}".format(*lead["lstm"]))
    if part == "rows" and "exactness" in metrics and row is metrics["rows"].get("lstm-mbpa"):  # measured for this one
        exact = metrics["exactness"]
        parts.append(
            f"{report.grouped(exact['likely'])} likely words move: {exact['mean']:+.4f} nats from all in the mean of "
            f"{exact['words']} words, {exact['largest']:.4f} at most"
        )
    return ", ".join([*parts, f"on {records[0].machine['name']}"])


def setting_in_words(setting: dict[str, float]) -> str:
    """The values of a setting that are not 0, by the paper's names."""
    return ", ".join(f"{NAMES[key]} = {value:g}" for key, value in setting.items() if value)


def figure8() -> report.Table:
    """By bucket of words, how much MbPA improves on LSTM and cache: of either way to make buckets of equal size."""
    rows = []
    for corpus, label in CORPORA.items():
        records = next((r for profile in PROFILES_SHOWN if (r := ledger.whole_records(NAME, corpus, profile))), [])
        if not records:
            rows.append(report.Row(label, "ours", (), report.NOT_RUN))
        for record in records:
            for equal, what in {"tokens": "equally many words read", "types": "equally many distinct words"}.items():
                buckets = record.metrics["figure8"][equal]
                cells = tuple(_spread(bucket["improvement"], bucket["deviation"]) for bucket in buckets)
                counts = ", ".join(report.grouped(bucket["words"]) for bucket in buckets)
                overall = ", ".join("–" if b["words"] == 0 else f"{b['of_perplexity']:+.1f}" for b in buckets)
                note = f"{record.profile} profile, seed {record.seed}, words read: {counts}; of perplexity: {overall}"
                rows.append(report.Row(f"{label}, {what}", "ours", cells, note))
    caption = (
        "By how many percent a word's perplexity falls when MbPA joins LSTM and cache, in five buckets by training "
        "frequency (Sprechmann et al. 2018, figure 8, which has bars and no numbers, and does not say of what the "
        "buckets have equally many): mean ± standard deviation over the words of the test text. «Of perplexity»: by "
        "how many percent the perplexity of a bucket as a whole falls"
    )
    columns = ("1: most frequent", "2", "3", "4", "5: least frequent")
    return report.Table(caption, columns, tuple(rows), ("corpus, buckets", "source"))


def _spread(mean: float | None, deviation: float | None) -> str:
    return "–" if mean is None else f"{mean:.1f}" + ("" if deviation is None else f" ± {deviation:.1f}")


def papers_setting_in_words() -> str:
    """An item, in Markdown, for each corpus: what the setting that the paper calls optimal does to our LSTM, on the
    words that settings were chosen by, and with nothing chosen but θ of the cache on the test text."""
    asked = {name: value for name, value in PAPERS_BEST.items() if name != "share"}
    lines = []
    for corpus, label in CORPORA.items():
        record = next((r[0] for profile in PROFILES_SHOWN if (r := ledger.whole_records(NAME, corpus, profile))), None)
        if record is None:
            continue
        tried = [each for each in record.metrics["tuning"]["mbpa"] if all(each.get(k) == v for k, v in asked.items())]
        of = min((each for each in tried if not each.get("prior")), key=lambda each: each["perplexity"])
        rows, reach = record.metrics["rows"], record.metrics["reach"]
        best = rows["lstm-mbpa"]
        lines.append(
            f"- **{label}**, on {report.grouped(record.metrics['words']['validation'])} words of the validation text: "
            f"LSTM {rows['lstm']['validation_perplexity']:.1f}; with MbPA in the paper's setting (N = 5000, K = 256, "
            f"T = 1, α = 0.15), mixed at its best share, {of['perplexity']:.1f}; at the best of the paper's grid "
            f"({setting_in_words(best['setting'])}) {best['validation_perplexity']:.1f}. In the paper's setting the "
            f"nearest neighbour has {100 * reach['largest_weight']:.1f}% of the weight in the mean, the kernel's "
            f"values, by whose sum the weights are divided, sum up to {reach['kernel_sum']:.2g}, and the "
            f"log-likelihood of the word that came changes by {reach['change']:.3f} nats."
            f"{_stated_in_words(corpus, record.profile)}"
        )
    return "\n".join(lines) or "**No text was read yet.**"


def _stated_in_words(corpus: str, profile: str) -> str:
    records = ledger.whole_records(NAME, f"{corpus}-appendix-b", profile)
    if not records:
        return " On all of the test text, with nothing chosen but θ of the cache: not run."
    rows, words = records[0].metrics["rows"], report.grouped(records[0].metrics["words"]["test"])
    told = [f"LSTM {rows['lstm']['perplexity']:.1f}"]
    for name in ("lstm-cache", "lstm-mbpa", "lstm-mbpa-cache"):
        mean, error = rows[name]["ahead"]["lstm"]
        change = _change(-rows[name]["gain"], rows["lstm"]["perplexity"])
        told.append(
            f"{LABELS[name]} {rows[name]['perplexity']:.1f}, {change}, ahead by {mean:.4f} nats a word (standard error "
            f"{error:.4f})"
        )
    setting = setting_in_words(rows["lstm-mbpa-cache"]["setting"])
    chosen = f"with nothing chosen but θ of the cache ({setting})"
    return f" On all {words} words of the test text, {chosen}: {'; '.join(told)}."
