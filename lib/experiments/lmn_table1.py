"""Shankar & Sarawagi 2018, table 1: the statistics of the sequences as used here, beside the paper's.

Nothing is trained. A step is a token that is to be predicted, so each but the first of a sequence. Beside what the
paper counts, the statistics say what there is to be learnt online: how often a token was seen earlier in its own
sequence, how often right before, and how often it is a label that no training sequence has.
"""

import time
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Int64

from lib import ledger, report
from lib.data.sequences import NAMES, RULES, VALIDATION_SHARE, Sequences, load_sequences
from lib.experiments.base import PROFILES, Experiment, RunOptions
from lib.training import distributed

NAME = "lmn.table1"
PAPER = "Shankar & Sarawagi 2018"
LABELS = {
    "brightkite": "Brightkite",
    "fsq-nyc": "Foursquare, New York",
    "fsq-tokyo": "Foursquare, Tokyo",
    "geolife": "Geolife",
    "yoochoose": "Yoochoose",
    "diginetica": "Diginetica",
}
COLUMNS = (
    "train",
    "test",
    "mean length",
    "labels",
    "in train",
    "seen before",
    "just before",
    "new",
    "new, in validation",
)


def statistics(data: Sequences) -> dict[str, int | float | str]:
    """Numbers of sequences in `train`, `validation` and `test`; their mean `length`; number of `labels`, and of those
    that `train` has; and of the `test_steps` the shares whose token was `seen_before` in its own sequence, was seen
    `just_before`, and is `new`, not in `train` at all; the last of the validation's steps, too: `validation_new`."""
    in_train = np.zeros(data.labels, bool)
    in_train[data.train.tokens] = True
    test = list(data.test)
    predicted, validated = (np.concatenate([sequence[1:] for sequence in part]) for part in (test, data.validation))
    lengths = np.concatenate([part.lengths for part in (data.train, data.validation, data.test)])
    return {
        "train": len(data.train),
        "validation": len(data.validation),
        "test": len(data.test),
        "length": float(lengths.mean()),
        "labels": data.labels,
        "train_labels": int(in_train.sum()),
        "test_steps": len(predicted),
        "seen_before": float(np.concatenate([seen_before(sequence) for sequence in test]).mean()),
        "just_before": float(np.concatenate([sequence[1:] == sequence[:-1] for sequence in test]).mean()),
        "new": float((~in_train[predicted]).mean()),
        "validation_new": float((~in_train[validated]).mean()),
        "source": data.source,
        "differs": data.differs,
    }


def seen_before(sequence: Int64[np.ndarray, " length"]) -> np.ndarray:
    """bool (length - 1,): whether each token but the first occurs earlier in the sequence."""
    first = np.zeros(len(sequence), bool)
    first[np.unique(sequence, return_index=True)[1]] = True
    return ~first[1:]


def config(variant: str, profile: str) -> dict[str, str | int | float]:
    """The same for all profiles."""
    return {"data": variant, "rules": RULES, "validation_share": VALIDATION_SHARE}


def run(variant: str, profile: str, seed: int, options: RunOptions) -> ledger.Record | None:
    """Count, and record it. Neither profile nor seed change anything."""
    if not distributed.is_first():
        return None
    start = time.perf_counter()
    data = load_sequences(variant)
    metrics = statistics(data)
    record = ledger.Record(
        experiment=NAME,
        variant=variant,
        profile=profile,
        seed=seed,
        config=config(variant, profile),
        metrics=metrics,
        updates=0,
        complete=True,
        seconds=time.perf_counter() - start,
        machine=ledger.describe_machine(torch.device("cpu")),
        commit=ledger.code_commit(),
        data={"name": data.name, "sha256": data.digest, "is_standin": data.is_standin},
    )
    ledger.save_record(record)
    return record


def table1() -> report.Table:
    """Table 1 with our rows."""
    paper, rows = ledger.paper_numbers("lmn")["table1"]["rows"], []
    for variant, label in LABELS.items():
        if variant in paper:
            counts = tuple(report.grouped(number) for number in paper[variant])
            rows.append(report.Row(label, "paper", counts + ("–",) * (len(COLUMNS) - len(counts))))
        record = _preferred(ledger.load_records(NAME, variant))
        rows.append(_our_row(label, record) if record else report.Row(label, "ours", (), report.NOT_RUN))
    caption = (
        "Token sequences: how many to train (+ to validate) and to test, their mean length, distinct tokens (labels), "
        "those of them in the training sequences; the share of test steps whose token came before in the same "
        "sequence, came just before, or is new to the network; and that of validation steps whose token is new "
        "(Shankar & Sarawagi 2018, table 1; the shares are not in the paper)"
    )
    return report.Table(caption, COLUMNS, tuple(rows), ("data", "source"))


def differences() -> report.Table:
    """Which form of each data set our records are of, and in what it differs from the paper's."""
    rows = []
    for variant, label in LABELS.items():
        record = _preferred(ledger.load_records(NAME, variant))
        if record:
            source = f"STAND-IN: {record.data['name']}" if record.data["is_standin"] else record.metrics["source"]
            rows.append(report.Row(label, source, (record.metrics["differs"],)))
    return report.Table("In what our data differ from the paper's", ("differs",), tuple(rows), ("data", "form"))


def _preferred(records: Iterable[ledger.Record]) -> ledger.Record | None:
    """One of them, since all say the same: of the real data, if there is one, and of the fullest profile."""
    return max(records, key=lambda r: (not r.data["is_standin"], PROFILES.index(r.profile), -r.seed), default=None)


def _our_row(label: str, record: ledger.Record) -> report.Row:
    found = record.metrics
    train = f"{report.grouped(found['train'])} + {report.grouped(found['validation'])}"
    shares = [f"{100 * found[key]:.1f}%" for key in ("seen_before", "just_before", "new", "validation_new")]
    counts = [report.grouped(found["test"]), f"{found['length']:.1f}"]
    counts += [report.grouped(found[key]) for key in ("labels", "train_labels")]
    source = "ours, STAND-IN" if record.data["is_standin"] else "ours"
    return report.Row(label, source, (train, *counts, *shares))


EXPERIMENTS = (
    Experiment(
        name=NAME,
        paper=PAPER,
        title="Statistics of the token sequences as used here",
        variants=NAMES,
        run=run,
        config=config,
        table=table1,
        costs=dict.fromkeys(PROFILES, "seconds"),
        wanted=tuple((name, 0) for name in NAMES),
    ),
)
