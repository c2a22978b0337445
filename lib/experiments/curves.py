"""Training curves as numbers: what the figures show, for those who read tables."""

from collections.abc import Callable

from lib import ledger, report
from lib.ledger import Record

PROFILES_SHOWN = ("paper", "short")
POINTS = (1_000, 2_500, 5_000, 10_000, 20_000, 50_000, 100_000)  # updates


def accuracy_curves(caption: str, curves: dict[str, tuple[str, str]]) -> report.Table:
    """Training accuracy by instance at some points of runs. curves: label to (experiment, variant)."""

    def rows(record: Record) -> dict[str, list[float | None]]:
        by_instance = zip(*record.curve["accuracy"], strict=True)
        return {report.ordinal(k): list(each) for k, each in enumerate(by_instance, 1) if k in (1, 2, 5, 10)}

    return _curves(caption, curves, rows, lambda value: f"{100 * value:.1f}")


def loss_curves(caption: str, curves: dict[str, tuple[str, str]]) -> report.Table:
    """Training loss at some points of runs. curves: label to (experiment, variant)."""
    return _curves(caption, curves, lambda record: {"": record.curve["loss"]}, lambda value: f"{value:.3f}")


def _curves(
    caption: str,
    curves: dict[str, tuple[str, str]],
    rows_of: Callable[[Record], dict[str, list[float | None]]],
    shown: Callable[[float], str],
) -> report.Table:
    rows = []
    for label, (experiment, variant) in curves.items():
        each_profile = (ledger.load_records(experiment, variant, profile) for profile in PROFILES_SHOWN)
        records = next((records for records in each_profile if records), [])
        if not records:
            rows.append(report.Row(label, "ours", (), report.NOT_RUN))
        for record in records:
            for name, values in rows_of(record).items():
                at = dict(zip(record.curve["update"], values, strict=True))
                cells = tuple("–" if at.get(u) is None else shown(at[u]) for u in POINTS)
                source = f"ours, {record.profile} profile, seed {record.seed}"
                rows.append(report.Row(f"{label}, {name}" if name else label, source, cells, report.note_on([record])))
    return report.Table(caption, tuple(report.grouped(u) for u in POINTS), tuple(rows))
