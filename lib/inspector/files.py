"""Files of the inspectors: traces as JSON with their arrays packed into it, and pages that need nothing but themselves.

An array is kept as whole numbers, little-endian, in base64. A signed or 16-bit integer of a real-valued array is
multiplied by the array's own scale. Each kind of trace says how its arrays are stored; what a file says is not trusted.
"""

import base64
import binascii
import hashlib
import html
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lib.atomic import write_atomically

SHARED = Path(__file__).parent / "page.js"
T = TypeVar("T")


class TraceError(RuntimeError):
    """A trace or its page cannot be read or written; the message names it and says what to do."""


def packed(
    arrays: Mapping[str, np.ndarray], stored: Mapping[str, str], scales: Mapping[str, float | None]
) -> dict[str, Any]:
    """Arrays as `arrays` of a JSON object, with the `sha256` of all of them.

    stored: how each is kept, such as int16; scales: of those that are real, None for one that fits the largest number.
    Raises ValueError for a number that is too large for how it is kept.
    """
    entries, digest = {}, hashlib.sha256()
    for name, array in arrays.items():
        kind = np.dtype(stored[name]).newbyteorder("<")
        entry: dict[str, Any] = {"dtype": stored[name], "shape": list(array.shape)}
        if name in scales:
            entry["scale"] = scales[name] or float(np.abs(array).max(initial=0)) / np.iinfo(kind).max or 1.0
            array = np.rint(array / entry["scale"])
        if array.max(initial=0) > np.iinfo(kind).max:
            raise ValueError(f"{name} has {int(array.max())}, and {stored[name]} is too small for it")
        data = array.astype(kind).tobytes()
        digest.update(data)
        entries[name] = entry | {"data": base64.b64encode(data).decode()}
    return {"sha256": digest.hexdigest(), "arrays": entries}


def unpacked(
    content: Any,
    header: tuple[str, int],
    stored: Mapping[str, str],
    scales: Mapping[str, float | None],
    needed: set[str],
) -> dict[str, np.ndarray]:
    """The arrays of a JSON object that `packed` made: float32 where they have a scale, else as they are stored.

    header: the `format` and `version` that it must have. Raises ValueError if it is another or a damaged one.
    """
    if not isinstance(content, dict) or content.get("format") != header[0]:
        raise ValueError(f'there is no "format": "{header[0]}" in it')
    if content.get("version") != header[1]:
        raise ValueError(f"its version is {content.get('version')}, this code reads version {header[1]}")
    arrays, digest = {}, hashlib.sha256()
    try:
        for name, entry in content["arrays"].items():
            data = base64.b64decode(entry["data"], validate=True)
            digest.update(data)
            array = np.frombuffer(data, np.dtype(stored[name]).newbyteorder("<")).reshape(entry["shape"])
            arrays[name] = (array * entry["scale"]).astype(np.float32) if name in scales else array
    except (KeyError, TypeError, AttributeError, binascii.Error, ValueError) as error:
        raise ValueError(f"its arrays are damaged ({type(error).__name__}: {error})") from error
    if missing := needed - arrays.keys():
        raise ValueError(f"it has no array {', '.join(sorted(missing))}")
    if digest.hexdigest() != content.get("sha256"):
        raise ValueError(f"sha256 of its arrays is {digest.hexdigest()}, it should be {content.get('sha256')}")
    return arrays


def save_trace(path: str | Path, content: dict[str, Any]) -> Path:
    """Write a trace as one JSON file, whole or not at all. Raises TraceError."""
    return _save(path, json.dumps(content, indent=1), "trace")


def load_trace(path: str | Path, from_json: Callable[[Any], T]) -> T:
    """Read a trace that `save_trace` wrote. Raises TraceError if the file is missing, damaged or something else."""
    try:
        return from_json(json.loads(Path(path).read_bytes()))
    except OSError as error:
        raise TraceError(f"The trace {path} cannot be read: {error.strerror}. Record it anew.") from error
    except ValueError as error:
        raise TraceError(f"{path} is not a sound trace: {error}. Restore the file or record it anew.") from error


def whole_module(name: str) -> str:
    """A module of this folder that needs no other: `page.js` is put in the place of its import."""
    text = (SHARED.parent / name).read_text(encoding="utf-8")
    shared = re.sub(r"^export ", "", SHARED.read_text(encoding="utf-8"), flags=re.MULTILINE)
    whole, imports = re.subn(r"^import \{[^}]*\} from \"./page.js\";\n", lambda _: shared, text, flags=re.MULTILINE)
    if imports != 1:
        raise ValueError(f"{name} must import page.js once, not {imports} times")
    return whole


def static_html(prefix: str, module: str, style: Path, summary: str, start: dict[str, Any]) -> str:
    """HTML to put into a page: what to show, style and module are in it, and it asks no server for anything.

    prefix: of the classes by which the module finds its place and its start; module: whole, as of `whole_module`;
    summary: for where no JavaScript runs.
    """
    content = json.dumps(start).replace("<", "\\u003c")
    return (
        f"<style>{style.read_text(encoding='utf-8')}</style>\n"
        f'<div class="{prefix}-place"><p>{html.escape(summary)} Drawn here where JavaScript runs.</p></div>\n'
        f'<script type="application/json" class="{prefix}-start">{content}</script>\n'
        f'<script type="module">\n{module}\nmountAll();\n</script>'
    )


def save_page(path: str | Path, title: str, body: str) -> Path:
    """Write one page that works from a file, with no network. Raises TraceError if it cannot be written."""
    page = (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title>\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        "<style>:root { color-scheme: light dark; } body { max-width: 1200px; margin: 0 auto; padding: 12px; "
        "font-family: system-ui, sans-serif; }</style></head>\n"
        f"<body><main>\n{body}\n</main></body>\n</html>\n"
    )
    return _save(path, page, "page")


def _save(path: str | Path, text: str, what: str) -> Path:
    path = Path(path)
    try:
        write_atomically(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise TraceError(f"The {what} {path} cannot be written: {error.strerror or error}.") from error
    return path
