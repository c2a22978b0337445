"""What a notebook cell and a page get of a trace; how it looks and works is tested in a browser."""

import base64
import json
import re

import numpy as np
import pytest

from lib.inspector.files import TraceError
from lib.inspector.trace import Trace
from lib.inspector.viewer import MODULE, WIDGET, Inspector


def embedded(page: str) -> dict:
    """The trace, step and slot in a static page."""
    found = re.findall(r'<script type="application/json" class="mi-start">(.*?)</script>', page, re.DOTALL)
    assert len(found) == 1
    return json.loads(found[0])


def test_a_cell_offers_the_widget_the_page_and_a_line_of_text(toy_trace):
    inspector = Inspector(toy_trace, step=4, slot=2)
    data, _ = inspector._repr_mimebundle_()
    assert data[WIDGET]["model_id"] == inspector.model_id
    assert (
        data["text/plain"]
        == "Memory inspector: Toy. 12 steps, a memory of 16 slots, 9 of 12 answers right. made for a test"
    )
    content = embedded(data["text/html"])
    assert (content["step"], content["slot"]) == (4, 2)
    again = Trace.from_json(content["trace"])
    for name in ("images", "memory"):
        np.testing.assert_array_equal(again.arrays()[name], Trace.from_json(toy_trace.to_json()).arrays()[name])


def test_a_page_asks_no_server_for_anything(tmp_path, toy_trace):
    page = Inspector.save_html(toy_trace, tmp_path / "page.html").read_text()
    addresses = set(re.findall(r"""(?:https?:)?//[\w.-]+\.[a-z]{2,}[^\s"'`)]*""", page))
    assert addresses <= {"http://www.w3.org/2000/svg"}, "only the name of the SVG name space"
    assert not re.search(r"\bimport\s|\bimport\(|\bfetch\(|XMLHttpRequest|@import|url\(|\bsrc=", page)


def test_text_of_a_trace_cannot_break_out_of_the_page(toy_trace):
    rude = Trace(**(vars(toy_trace) | {"title": "</script><script>alert(1)</script>", "note": "<!-- & <b>"}))
    page = Inspector.static_html(rude)
    assert "<script>alert" not in page and "<b>" not in page
    assert embedded(page)["trace"]["title"] == rude.title


def test_the_module_can_stand_in_a_page():
    module = MODULE
    assert "</script" not in module and "<!--" not in module
    assert re.search(r"^export default \{ render: renderer\(", module, re.MULTILINE)
    assert re.search(r"^export function mount\(el, payload,", module, re.MULTILINE)


def test_the_widget_is_given_the_trace_as_it_is_stored(toy_trace):
    inspector = Inspector(toy_trace)
    state = inspector.get_state(["trace", "step", "slot", "_esm", "_css"])
    assert state["trace"] == toy_trace.to_json() and (state["step"], state["slot"]) == (0, None)
    assert state["_esm"] == MODULE and ".mi-strip" in state["_css"]
    memory = state["trace"]["arrays"]["memory"]
    stored = np.frombuffer(base64.b64decode(memory["data"]), "<i2").reshape(memory["shape"]) * memory["scale"]
    np.testing.assert_allclose(stored, toy_trace.memory, atol=memory["scale"])


def test_steps_and_slots_that_do_not_exist_are_refused(tmp_path, toy_trace):
    for wrong in ({"slot": 16}, {"slot": -1}):
        with pytest.raises(ValueError, match="the memory has 16 slots, 0 to 15"):
            Inspector(toy_trace, **wrong)
        with pytest.raises(ValueError, match="no slot"):
            Inspector.static_html(toy_trace, **wrong)
    with pytest.raises(ValueError, match="there is no step 12: the trace has 12 steps, 0 to 11"):
        Inspector(toy_trace, step=12)
    inspector = Inspector(toy_trace, step=3)
    with pytest.raises(ValueError, match="no slot 99"):
        inspector.slot = 99
    with pytest.raises(ValueError, match="no step -1"):
        inspector.step = -1
    assert (inspector.step, inspector.slot) == (3, None)


def cut(trace: Trace, steps: int, slots: int) -> Trace:
    """The first steps and slots of a trace."""
    arrays = {name: array[:steps] for name, array in trace.arrays().items()}
    arrays |= {"memory": arrays["memory"][:, :slots], "usage": arrays["usage"][:, :slots]}
    arrays |= {name: arrays[name][..., :slots] for name in ("read_weights", "write_weights", "least_used")}
    return Trace(**(vars(trace) | arrays))


def test_show_takes_another_trace_and_stays_where_it_can(toy_trace):
    inspector = Inspector(toy_trace, step=11, slot=7)
    inspector.show(cut(toy_trace, 5, 8))
    assert inspector.trace == cut(toy_trace, 5, 8).to_json() and (inspector.step, inspector.slot) == (4, 7)
    assert "5 steps, a memory of 8 slots" in inspector._repr_mimebundle_()[0]["text/plain"]
    inspector.show(cut(toy_trace, 2, 4))
    assert (inspector.step, inspector.slot) == (1, None)


def test_a_page_that_cannot_be_written(tmp_path, toy_trace):
    (tmp_path / "file").write_text("")
    with pytest.raises(TraceError, match="page.html cannot be written"):
        Inspector.save_html(toy_trace, tmp_path / "file" / "page.html")
