"""What a network does to its memory over an episode: a trace of it, and one viewer of the trace."""

from typing import Any

from lib.inspector.trace import Trace, record

LABORATORY = ("EraseSlot", "FreezeSlot", "Laboratory", "SwapLabelRows", "SwapLabels")

__all__ = ["EraseSlot", "FreezeSlot", "Inspector", "Laboratory", "SwapLabelRows", "SwapLabels", "Trace", "record"]


def __getattr__(name: str) -> Any:
    # The viewers need widgets, which a machine that only trains may lack.
    if name == "Inspector":
        from lib.inspector.viewer import Inspector

        return Inspector
    if name in LABORATORY:
        from lib.inspector import laboratory

        return getattr(laboratory, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
