"""Mureja et al. 2017: the tables that the command line and the book show, the paper's numbers beside the ledger's."""

from collections.abc import Callable

from lib import ledger, report
from lib.experiments.curves import PROFILES_SHOWN, accuracy_curves, loss_curves

TABLE1_LABELS = {
    "mann-santoro": "MANN, as reported by Santoro et al.",
    "mann-experiment1": "MANN, one read, experiment I",
    "flmn-experiment1": "FLMN, experiment I",
    "mann-experiment2": "MANN, one read, experiment II",
    "flmn-experiment2": "FLMN, experiment II",
}
SINGLE = ", one episode an update"
READINGS = (("flmn.table1", ""), ("flmn.readings", SINGLE))  # of table 1: experiment, and what a label ends in
ABLATION_LABELS = {
    "mann-four-heads": "MANN, four heads",
    "mann-half-memory": "MANN, one head, half the memory",
    "mann-quarter-turns": "MANN, one head, augmented, and new classes by quarter turns",
    "mann-adam": "MANN, one head, Adam at 0.001",
    "mann-glorot": "MANN, one head, Glorot's initial weights",
    "mann-shared-key": "MANN, one head, which stores the key that it looks for",
    "mann-constant-gate": "MANN, one head, the gate one learnt number",
    "flmn-shuffled-split": "FLMN, training and test characters from all alphabets",
    "flmn-dynamic-gate": "FLMN, the controller sets the gate",
    "flmn-same-step": "FLMN, a label goes to where the feature of its own step goes",
    "flmn-answer-from-memory": "FLMN, the softmax sees only what was read",
}
FAIR_LABELS = {  # (experiment, variant): the settings that are tried for either network
    ("flmn.fair", "mann"): "MANN, RMSprop",
    ("flmn.fair", "mann-adam"): "MANN, Adam at 0.001",
    ("flmn.fair", "mann-glorot"): "MANN, RMSprop, Glorot's initial weights",
    ("flmn.table1", "flmn-1"): "FLMN, RMSprop",
    ("flmn.fair", "flmn-adam"): "FLMN, Adam at 0.001",
    ("flmn.fair", "flmn-glorot"): "FLMN, RMSprop, Glorot's initial weights",
}


def _variant(row: str) -> str:
    return row.replace("-experiment", "-")


def table1() -> report.Table:
    """Table 1 with our rows."""
    paper = ledger.paper_numbers("flmn")["table1"]
    rows = []
    for name, label in TABLE1_LABELS.items():
        note = "borrowed by the paper" if name == "mann-santoro" else ""
        rows.append(report.Row(label, "paper", tuple(str(v) for v in paper["rows"][name]), note))
        if name != "mann-santoro":
            rows += report.accuracy_rows("flmn.table1", _variant(name), label, paper["instances"], PROFILES_SHOWN)
            rows += report.accuracy_rows(
                "flmn.readings", _variant(name), label + SINGLE, paper["instances"], ("paper",)
            )
        if name == "flmn-experiment1":
            split, label = "flmn-shuffled-split", f"{label}, training and test characters from all alphabets"
            rows += report.accuracy_rows("flmn.ablations", split, label, paper["instances"], PROFILES_SHOWN)
    caption = "Test accuracy in percent by instance, five classes an episode (Mureja et al. 2017, table 1)"
    return report.Table(caption, tuple(report.ordinal(k) for k in paper["instances"]), tuple(rows))


def readings() -> report.Table:
    """Table 1 with our rows of an update on one episode."""
    paper = ledger.paper_numbers("flmn")["table1"]
    rows = []
    for name, label in list(TABLE1_LABELS.items())[1:]:
        rows.append(report.Row(label, "paper", tuple(str(v) for v in paper["rows"][name])))
        rows += report.accuracy_rows("flmn.readings", _variant(name), label, paper["instances"], PROFILES_SHOWN)
    caption = (
        "Test accuracy in percent by instance, each update on one episode in place of sixteen (Mureja et al. 2017, "
        "table 1)"
    )
    return report.Table(caption, tuple(report.ordinal(k) for k in paper["instances"]), tuple(rows))


def differences() -> report.Table:
    """Ours less the paper's in each cell of table 1, for both readings: means over the seeds of the paper profile."""
    paper = ledger.paper_numbers("flmn")["table1"]
    rows = []
    for experiment, more in reversed(READINGS):
        for name, label in list(TABLE1_LABELS.items())[1:]:
            found = ledger.whole_records(experiment, _variant(name), "paper")
            if not found:
                rows.append(report.Row(label + more, "ours", (), report.NOT_RUN))
                continue
            ours = [
                100 * sum(record.metrics["accuracy"][k - 1] for record in found) / len(found)
                for k in paper["instances"]
            ]
            cells = tuple(f"{a - b:+.1f}" for a, b in zip(ours, paper["rows"][name], strict=True))
            rows.append(report.Row(label + more, "ours, paper profile", cells, report.note_on(found)))
    caption = "Table 1: our test accuracy less the paper's, in points"
    return report.Table(caption, tuple(report.ordinal(k) for k in paper["instances"]), tuple(rows))


def table2() -> report.Table:
    """Table 2 with our rows, the mean over the draws of the images and how far they spread."""
    paper = ledger.paper_numbers("flmn")["table2"]
    rows = [report.Row(name.upper(), "paper", tuple(str(v) for v in paper["rows"][name])) for name in ("mann", "flmn")]
    for name, label in list(TABLE1_LABELS.items())[1:]:
        rows += report.digit_rows("flmn.table1", _variant(name), label, paper["instances"], PROFILES_SHOWN)
        rows += report.digit_rows("flmn.readings", _variant(name), label + SINGLE, paper["instances"], ("paper",))
    caption = "Trained on Omniglot, tested on miniMNIST: accuracy in percent by instance (Mureja et al. 2017, table 2)"
    return report.Table(caption, tuple(report.ordinal(k) for k in paper["instances"]), tuple(rows))


def figure3() -> report.Table:
    """Figure 3 as numbers."""
    return accuracy_curves(
        "Training accuracy in percent, experiment I, means of 500 updates (Mureja et al. 2017, figure 3)",
        _both_readings("mann-1", "flmn-1"),
    )


def figure4() -> report.Table:
    """Figure 4 as numbers."""
    return accuracy_curves(
        "Training accuracy in percent, experiment II, means of 500 updates (Mureja et al. 2017, figure 4)",
        _both_readings("mann-2", "flmn-2"),
    )


def _both_readings(mann: str, flmn: str) -> dict[str, tuple[str, str]]:
    runs = {"MANN": mann, "FLMN": flmn}
    return {name + more: (source, variant) for source, more in READINGS for name, variant in runs.items()}


def figure5() -> report.Table:
    """Figure 5 as numbers."""
    first, second = _both_readings("mann-1", "flmn-1"), _both_readings("mann-2", "flmn-2")
    return loss_curves(
        "Training loss in nats, means of 500 updates (Mureja et al. 2017, figure 5)",
        {f"I: {name}": run for name, run in first.items()} | {f"II: {name}": run for name, run in second.items()},
    )


def ablations() -> report.Table:
    """What the paper's MANN lacks, and what FLMN's parts are worth."""
    instances = ledger.paper_numbers("flmn")["table1"]["instances"]
    rows = []
    for variant in ("mann-1", "mann-2", "flmn-1"):
        label = TABLE1_LABELS[variant.replace("-", "-experiment")]
        rows += report.accuracy_rows("flmn.table1", variant, label, instances, PROFILES_SHOWN)
    for variant, label in ABLATION_LABELS.items():
        rows += report.accuracy_rows("flmn.ablations", variant, label, instances, PROFILES_SHOWN)
    caption = "Test accuracy in percent by instance, experiment I, one thing changed in each row"
    return report.Table(caption, tuple(report.ordinal(k) for k in instances), tuple(rows))


def tuning() -> report.Table:
    """The settings tried for either network, by the validation that chooses one of them."""
    return _all_settings("Validation", report.validation_rows)


def fair() -> report.Table:
    """FLMN and MANN with equal memory and parameters, each in the settings that were tried for both."""
    return _all_settings("Test", report.accuracy_rows)


def _all_settings(what: str, rows_of: Callable[..., list[report.Row]]) -> report.Table:
    instances = ledger.paper_numbers("flmn")["table1"]["instances"]
    rows = []
    for (experiment, variant), label in FAIR_LABELS.items():
        rows += rows_of(experiment, variant, label, instances, PROFILES_SHOWN)
    caption = f"{what} accuracy in percent by instance, experiment I: equal memory, equal parameters"
    return report.Table(caption, tuple(report.ordinal(k) for k in instances), tuple(rows))


def passed() -> report.Table:
    """When each of FLMN's numbers was passed, from the 2nd instance on: updates and time until the accuracy on
    training characters, and on those held out, first reached it."""
    paper = ledger.paper_numbers("flmn")["table1"]
    instances, rows = paper["instances"][1:], []
    for name in ("flmn-experiment1", "flmn-experiment2"):
        for experiment, more in READINGS:
            label, each_profile = TABLE1_LABELS[name] + more, []
            for profile in PROFILES_SHOWN:
                each_profile += ledger.load_records(experiment, _variant(name), profile)
            for record in each_profile:
                for kind, characters in (("", "in training"), ("validation_", "held out")):
                    cells = tuple(
                        _when(record, kind, k, reported / 100)
                        for k, reported in zip(instances, paper["rows"][name][1:], strict=True)
                    )
                    source = f"ours, {record.profile} profile, seed {record.seed}, {characters}"
                    rows.append(report.Row(label, source, cells, report.note_on([record])))
            if not each_profile:
                rows.append(report.Row(label, "ours", (), report.NOT_RUN))
    caption = (
        "Updates and time until FLMN's accuracy first reached the paper's on the test: a mean of 500 updates in "
        "training, a validation each 5000 updates on the characters held out"
    )
    return report.Table(caption, tuple(report.ordinal(k) for k in instances), tuple(rows))


def compare_with_paper(experiment: str = "flmn.table1", more: str = "") -> str:
    """How FLMN's runs of the paper profile compare with the paper's rows of table 1, in Markdown; more: of the name."""
    paper = ledger.paper_numbers("flmn")["table1"]
    sentences = []
    for name in ("flmn-experiment1", "flmn-experiment2"):
        reported = dict(zip(paper["instances"], paper["rows"][name], strict=True))
        sentences.append(report.compare_with_paper(experiment, _variant(name), TABLE1_LABELS[name] + more, reported))
    return "\n\n".join(sentences)


def _when(record: ledger.Record, kind: str, instance: int, accuracy: float) -> str:
    points = zip(record.curve[f"{kind}update"], record.curve[f"{kind}accuracy"], strict=True)
    reached = next((update for update, by_instance in points if by_instance[instance - 1] >= accuracy), None)
    if reached is None:
        return "never" if record.complete and record.profile == "paper" else "not yet"
    seconds = record.seconds * reached / record.updates
    unbroken = [report.grouped(reached), report.duration(seconds)]
    return ", ".join(part.replace(" ", "\u00a0") for part in unbroken)
