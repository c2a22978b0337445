"""Measured times: the latest of each chapter, profile and kind of machine."""

from tools.timings import merge


def run(seconds: float, kind: str = "cpu", profile: str = "smoke") -> dict:
    machine = {"kind": kind, "description": "2 cores, some processor", "torch": "2.13.0"}
    return {"seconds": seconds, "date": "2026-01-01", "profile": profile, "machine": machine}


def test_merge():
    committed = merge({}, {"book/b": run(1.0), "book/a": run(2.0)})
    assert list(committed) == ["book/a", "book/b"]
    merged = merge(committed, {"book/a": run(0.5, kind="gpu"), "book/b": run(3.0)})
    assert merged["book/a"]["smoke"]["cpu"]["seconds"] == 2.0
    assert merged["book/a"]["smoke"]["gpu"]["seconds"] == 0.5
    assert merged["book/b"]["smoke"]["cpu"]["seconds"] == 3.0
    assert committed["book/b"]["smoke"]["cpu"]["seconds"] == 1.0, "the argument is left as it was"
