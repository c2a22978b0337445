"""What a network does to its memory over an episode: a trace of it, and one viewer of the trace."""

from typing import Any

from lib.inspector.labelled import LabelledTrace, record_labelled
from lib.inspector.trace import Trace, record

LABORATORY = ("EraseSlot", "FreezeSlot", "Laboratory", "SwapLabelRows", "SwapLabels")
LABELLED = ("LabelledInspector", "LabelledLaboratory", "record_choices", "with_settings")

__all__ = ["Inspector", "LabelledTrace", "Trace", "record", "record_labelled", *LABORATORY, *LABELLED]


def __getattr__(name: str) -> Any:
    # The viewers need widgets, which a machine that only trains may lack.
    if name == "Inspector":
        from lib.inspector.viewer import Inspector

        return Inspector
    if name in LABORATORY:
        from lib.inspector import laboratory

        return getattr(laboratory, name)
    if name in LABELLED:
        from lib.inspector import labelled_viewer

        return getattr(labelled_viewer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
