"""Copy the chapters' measured times into `data/timings.json`, from which the chapters take their cost labels.

    python -m tools.timings

The file holds, for each chapter and profile, one measurement on a CPU and one on a GPU, the latest of each.
"""

import json
import sys

from tools.chapters import EXECUTED, ROOT

TIMINGS = ROOT / "data" / "timings.json"


def merge(committed: dict, measured: dict) -> dict:
    """`committed` with each chapter's measurement under its profile and kind of machine; chapters sorted by name."""
    merged = {chapter: {profile: dict(kinds) for profile, kinds in runs.items()} for chapter, runs in committed.items()}
    for chapter, run in measured.items():
        machine = run["machine"]
        merged.setdefault(chapter, {}).setdefault(run["profile"], {})[machine["kind"]] = {
            "seconds": run["seconds"],
            "machine": machine["description"],
            "torch": machine["torch"],
            "date": run["date"],
        }
    return dict(sorted(merged.items()))


def main() -> int:
    measured = EXECUTED / "timings.json"
    if not measured.is_file():
        print("There is no _build/executed/timings.json: run `make timings`.")
        return 1
    committed = json.loads(TIMINGS.read_text(encoding="utf-8")) if TIMINGS.is_file() else {}
    merged = merge(committed, json.loads(measured.read_text(encoding="utf-8")))
    TIMINGS.parent.mkdir(exist_ok=True)
    TIMINGS.write_text(json.dumps(merged, indent=2) + "\n", encoding="utf-8")
    print(f"{TIMINGS.relative_to(ROOT)}: {len(merged)} chapters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
