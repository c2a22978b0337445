"""Santoro et al. 2016: the tables that the command line and the book show, the paper's numbers beside the ledger's."""

from lib import ledger, report
from lib.experiments.curves import accuracy_curves

PROFILES_SHOWN = ("paper", "short")
SAMPLES = (1, 5, 10, 20, 30, 40, 50)  # of an episode, in the tables of regression
TABLE1_LABELS = {"feedforward": "feed-forward", "lstm": "LSTM", "mann": "MANN"}
TABLE2_LABELS = {
    ("knn-raw-pixels", "none"): ("knn-raw", "nearest neighbour, raw pixels"),
    ("knn-deep-features", "none"): ("knn-deep", "nearest neighbour, features of an autoencoder"),
    ("feedforward", "none"): ("feedforward", "feed-forward"),
    ("lstm", "none"): ("lstm", "LSTM"),
    ("mann-lrua", "feedforward"): ("mann-feedforward", "MANN, feed-forward controller"),
    ("mann-lrua", "lstm"): ("mann", "MANN, LSTM controller"),
    ("mann-ntm", "lstm"): ("ntm", "MANN with NTM access"),
}
READING_LABELS = {
    "shared-keys": "a head stores the key that it looks for",
    "own-slots": "head j writes to the j-th least used slot",
    "shared-keys-own-slots": "both of the above",
    "constant-gate": "the gate α is one learnt number a head",
}
ABLATION_LABELS = {
    "ntm": "NTM access in place of least recently used access",
    "fixed-gate": "the gate is not learnt: half of a write to either place",
    "one-read": "one head in place of four",
}


def table1() -> report.Table:
    """Table 1 with our rows."""
    paper = ledger.paper_numbers("mann")["table1"]
    instances = paper["instances"]
    rows = [report.Row("human", "paper", tuple(str(v) for v in paper["rows"]["human"]), "quoted, not measured here")]
    for variant, label in TABLE1_LABELS.items():
        rows.append(report.Row(label, "paper", tuple(str(v) for v in paper["rows"][variant])))
        rows += report.accuracy_rows("mann.table1", variant, label, instances, ("paper", "short"))
    caption = (
        "Test accuracy in percent by instance, five classes an episode, one-hot labels (Santoro et al. 2016, table 1)"
    )
    return report.Table(caption, tuple(report.ordinal(k) for k in instances), tuple(rows))


def table2() -> report.Table:
    """Table 2 with our rows."""
    paper = ledger.paper_numbers("mann")["table2"]
    rows = []
    for reported in paper["rows"]:
        variant, label = TABLE2_LABELS[reported["model"], reported["controller"]]
        label = f"{label}, {reported['classes']} classes"
        rows.append(report.Row(label, "paper", tuple(str(v) for v in reported["accuracy"])))
        variant = f"{variant}-{reported['classes']}"
        rows += report.accuracy_rows("mann.table2", variant, label, paper["instances"], PROFILES_SHOWN)
    caption = "Test accuracy in percent by instance, labels of five letters (Santoro et al. 2016, table 2)"
    return report.Table(caption, tuple(report.ordinal(k) for k in paper["instances"]), tuple(rows))


def compare_with_paper() -> str:
    """How MANN's runs of the paper profile compare with the paper's row of table 1, see `report.compare_with_paper`."""
    paper = ledger.paper_numbers("mann")["table1"]
    reported = dict(zip(paper["instances"], paper["rows"]["mann"], strict=True))
    return report.compare_with_paper("mann.table1", "mann", "MANN", reported)


def figure2() -> report.Table:
    """Figure 2 as numbers: training accuracy by instance at some points of the runs."""
    curves = {"a: LSTM": ("mann.table1", "lstm"), "b: MANN": ("mann.table1", "mann")}
    curves |= {"c: LSTM, 15 classes": ("mann.table2", "lstm-15"), "d: MANN, 15 classes": ("mann.table2", "mann-15")}
    return accuracy_curves("Training accuracy in percent, means of 500 updates (Santoro et al. 2016, figure 2)", curves)


def figure3() -> report.Table:
    """Figure 3 as numbers: training without wiping the memory, beside runs that wipe it."""
    curves = {
        "a: five classes": ("mann.figure3", "five"),
        "five classes, wiped (table 1)": ("mann.table1", "mann"),
        "b: ten classes": ("mann.figure3", "ten"),
        "ten classes, wiped": ("mann.figure3", "ten-wiped"),
    }
    return accuracy_curves(
        "Training accuracy in percent, the memory not wiped, means of 500 updates (Santoro et al. 2016, figure 3)",
        curves,
    )


def figure4() -> report.Table:
    """Figure 4 as numbers: test accuracy with more classes than there were in training."""
    records = [r for profile in PROFILES_SHOWN for r in ledger.load_records("mann.figure4", "mann", profile)]
    columns = sorted({int(classes) for r in records for classes in r.metrics["by_classes"]})
    rows = []
    for record in records:
        for k in (1, 2, 5, 10):
            found = (record.metrics["by_classes"].get(str(classes), {}).get("accuracy") for classes in columns)
            cells = tuple("–" if accuracy is None else f"{100 * accuracy[k - 1]:.1f}" for accuracy in found)
            label = f"{report.ordinal(k)} instance, trained up to {_last_classes(record)} classes"
            rows.append(report.Row(label, f"ours, {record.profile} profile", cells, report.note_on([record])))
    rows = rows or [report.Row("MANN", "ours", (), report.NOT_RUN)]
    caption = "Test accuracy in percent by number of classes in an episode (Santoro et al. 2016, figure 4)"
    return report.Table(
        caption, tuple(f"{classes} classes" for classes in columns), tuple(rows), ("instance", "source")
    )


def _last_classes(record: ledger.Record) -> int:
    curriculum = record.config["curriculum"]
    return curriculum["first"] + (record.updates - 1) // curriculum["every"]


def figure5() -> report.Table:
    """Figure 5 as numbers: likelihoods, MANN's means beside the exact GP's, variances beside distances to samples."""
    shape = "the GP's mean, R²", "variance with distance, Spearman"
    rows = []
    for record in _regression_records("mann.figure5", "1d"):
        metrics = record.metrics
        mann = f"{metrics['mean_r2']:.2f}", f"{metrics['distance_correlation']:.2f}"
        rows += _likelihood_rows(record, "1-D", mann, ("1", f"{metrics['gp_distance_correlation']:.2f}"))
    rows = rows or [report.Row("1-D, MANN", "ours", (), report.NOT_RUN)]
    caption = (
        "Functions of one number: negative log-likelihood of the k-th sample in nats, 100 test episodes; after 20 "
        "samples, how far MANN's means follow the GP's, and how far a predicted variance grows with the distance to "
        "the nearest sample (Santoro et al. 2016, figure 5)"
    )
    return report.Table(caption, (*(report.ordinal(k) for k in SAMPLES), *shape), tuple(rows))


def figure6() -> report.Table:
    """Figure 6 as numbers: negative log-likelihood by sample of MANN and of the exact GP."""
    rows = []
    for variant, label in {"2d": "2-D", "3d": "3-D"}.items():
        records = _regression_records("mann.figure6", variant)
        rows += [row for record in records for row in _likelihood_rows(record, label)]
        if not records:
            rows.append(report.Row(f"{label}, MANN", "ours", (), report.NOT_RUN))
    caption = (
        "Functions of two and of three numbers: negative log-likelihood of the k-th sample in nats, 100 test episodes "
        "(Santoro et al. 2016, figure 6)"
    )
    return report.Table(caption, tuple(report.ordinal(k) for k in SAMPLES), tuple(rows))


def _regression_records(experiment: str, variant: str) -> list[ledger.Record]:
    return [record for profile in PROFILES_SHOWN for record in ledger.load_records(experiment, variant, profile)]


def _likelihood_rows(
    record: ledger.Record, label: str, mann: tuple[str, ...] = (), gp: tuple[str, ...] = ()
) -> list[report.Row]:
    """MANN and the exact GP on the same test episodes; `mann` and `gp` are further cells."""

    def cells(score: str) -> tuple[str, ...]:
        return tuple(f"{record.metrics[score][k - 1]:.2f}" for k in SAMPLES)

    source = f"ours, {record.profile} profile, seed {record.seed}"
    return [
        report.Row(f"{label}, MANN", source, cells("negative_log_likelihood") + mann, report.note_on([record])),
        report.Row(f"{label}, exact GP", source, cells("gp_negative_log_likelihood") + gp, "the same test episodes"),
    ]


def readings() -> report.Table:
    """The other readings of MANN beside the one of table 1, on the held-out training classes."""
    instances = ledger.paper_numbers("mann")["table1"]["instances"]
    rows = report.validation_rows("mann.table1", "mann", "as in table 1", instances, PROFILES_SHOWN)
    for variant, label in READING_LABELS.items():
        rows += report.validation_rows("mann.readings", variant, label, instances, PROFILES_SHOWN)
    caption = (
        "Accuracy in percent by instance on the classes held out for validation, at a run's last validation: "
        "one thing is read another way in each row"
    )
    return report.Table(caption, tuple(report.ordinal(k) for k in instances), tuple(rows))


def ablations() -> report.Table:
    """MANN without one of its parts, beside MANN, on the test classes."""
    instances = ledger.paper_numbers("mann")["table1"]["instances"]
    rows = report.accuracy_rows("mann.table1", "mann", "MANN as in table 1", instances, PROFILES_SHOWN)
    rows += report.accuracy_rows("mann.table1", "lstm", "LSTM, no memory but its own", instances, PROFILES_SHOWN)
    for variant, label in ABLATION_LABELS.items():
        rows += report.accuracy_rows("mann.ablations", variant, label, instances, PROFILES_SHOWN)
    caption = (
        "Test accuracy in percent by instance, five classes an episode: one part of MANN changed, and an LSTM alone"
    )
    return report.Table(caption, tuple(report.ordinal(k) for k in instances), tuple(rows))
