"""The widget «content addressing by hand», and the numbers that its JavaScript must give.

They are in tests/browser/addressing.json; `python tests/inspector/test_addressing.py` writes it anew from `lib.memory`.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.inspector.addressing import KEY, MEMORY, STYLE, AddressingWidget, default_usage, look_up
from lib.memory import addressing, lrua

FIXTURE = Path(__file__).parents[1] / "browser" / "addressing.json"


def cases() -> dict:
    """Looks and writes by `lib.memory` in float64, over memories that are ordinary, empty, tiny, large or tied."""
    rng = np.random.default_rng(0)
    memories = [
        (np.array(MEMORY), np.array(KEY), None, 0.99),
        (np.zeros((3, 2)), np.array([1.0, 0.0]), None, 0.9),
        (rng.normal(size=(6, 2)), np.zeros(2), np.array([0.3, 0.1, 0.1, 2.0, 0.1, 0.4]), 0.5),
        (1e-4 * rng.normal(size=(4, 2)), 1e-4 * rng.normal(size=2), None, 0.0),
        (30 * rng.normal(size=(12, 2)), rng.normal(size=2), rng.uniform(size=12), 1.0),
        (np.array([[2.0, -1.0]]), np.array([-2.0, 1.0]), None, 0.99),
    ]
    found = []
    for memory, key, usage, decay in memories:
        for sharpness in (0.0, 1.0, 6.5, 20.0):
            widget = AddressingWidget(memory, key=key, usage=usage, sharpness=sharpness, decay=decay)
            start = {name: getattr(widget, name) for name in ("memory", "usage", "key", "sharpness", "decay")}
            similarity, weights, read = (values.tolist() for values in look_up(memory, key, sharpness))
            looked = {"similarity": similarity, "weights": weights, "read": read}
            found.append({"start": start, "look": looked, "write": written(start), "words": widget.summary()})
    return {"epsilon": addressing.EPSILON, "cases": found}


def written(start: dict) -> dict:
    """One step of LRUA with one head whose gate is 0, from the functions that MANN uses."""
    memory, usage, key = (torch.tensor(start[name], dtype=torch.float64) for name in ("memory", "usage", "key"))
    least_used = lrua.least_used_slots(usage.unsqueeze(0), 1)
    no_weights, closed = torch.zeros_like(least_used), least_used.new_zeros(1, 1, 1)
    write_weights = lrua.write_weights(closed, no_weights, least_used)
    after = lrua.write(memory.unsqueeze(0), least_used, write_weights, key.view(1, 1, 2))
    similarity = addressing.cosine_similarity(key.view(1, 1, 2), after)
    read_weights = torch.softmax(start["sharpness"] * similarity, dim=-1)
    usage = lrua.update_usage(usage.unsqueeze(0), read_weights, write_weights, start["decay"])
    return {"slot": int(least_used.argmax()), "memory": after[0].tolist(), "usage": usage[0].tolist()}


def assert_close(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_close(one[name], other[name])
    elif isinstance(one, str):
        assert one == other
    else:
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_the_numbers_of_the_browser_test_are_those_of_lib():
    committed, now = json.loads(FIXTURE.read_text(encoding="utf-8")), cases()
    assert committed["epsilon"] == now["epsilon"]
    for one, other in zip(committed["cases"], now["cases"], strict=True):
        assert_close(one, other)


def test_sharpness_one_is_what_mann_reads():
    slots = torch.tensor(MEMORY, dtype=torch.float64).unsqueeze(0)
    weights = addressing.content_weights(torch.tensor(KEY, dtype=torch.float64).view(1, 1, 2), slots)
    np.testing.assert_array_equal(look_up(MEMORY, KEY, 1.0)[1], weights[0, 0].numpy())


def test_the_default_slots_were_filled_one_after_the_other_and_the_empty_one_is_written_next():
    usage = default_usage(np.array(MEMORY), decay=0.5)
    assert usage.tolist() == [0.0625, 0.125, 0.25, 0.5, 1.0, 0.0]
    assert AddressingWidget(decay=0.5).usage == usage.tolist()


def test_words_say_what_is_read():
    widget = AddressingWidget([[3.0, 4.0], [0.0, 2.0], [-1.0, 0.0]], key=[1.0, 0.0])
    assert widget.summary() == (
        "Slot 0 is most like the key: cosine 0.600, weight 0.571. The read vector is (1.60, 2.91)."
    )
    assert "cosine 0.000" in AddressingWidget([[0.0, 1.0], [-1e-9, 0.0]], key=[1.0, 0.0]).summary()
    assert "like no slot: all 6 are read alike, weight 0.167 each" in AddressingWidget(key=[0.0, 0.0]).summary()


@pytest.mark.parametrize(
    "wrong",
    [
        {"memory": [1.0, 2.0]},
        {"memory": [[1.0, 2.0, 3.0]]},
        {"memory": np.zeros((0, 2))},
        {"memory": np.zeros((13, 2))},
        {"memory": [[np.inf, 0.0]]},
        {"key": [1.0]},
        {"key": [np.nan, 0.0]},
        {"sharpness": -0.1},
        {"sharpness": 20.5},
        {"usage": [1.0, 2.0]},
        {"usage": [0.0, 0.0, 0.0, 0.0, 0.0, -1.0]},
        {"decay": 1.1},
    ],
)
def test_what_it_cannot_show_is_refused(wrong):
    with pytest.raises(ValueError, match="expected|must be"):
        AddressingWidget(**wrong)


def test_the_page_holds_all_it_needs_and_asks_no_server():
    widget = AddressingWidget(key=[0.0, -1.5], sharpness=3.0)
    data, _ = widget._repr_mimebundle_()
    page = data["text/html"]
    state = json.loads(re.search(r'class="ca-start">(.*?)</script>', page, re.S).group(1))
    assert state["key"] == [0.0, -1.5] and state["sharpness"] == 3.0 and len(state["memory"]) == len(MEMORY)
    assert STYLE.read_text(encoding="utf-8") in page and "mountAll();" in page
    addresses = [a for a in re.findall(r"https?://[^\s\"')]+", page) if not a.startswith("http://www.w3.org/")]
    assert addresses == []
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == widget.model_id
    assert data["text/plain"] == widget.summary() and widget.summary() in page


def test_the_page_shows_what_the_traits_say_now():
    widget = AddressingWidget()
    with widget.hold_sync():
        widget.memory, widget.usage = [[1.0, 0.0], [0.0, 1.0]], [0.0, 1.0]
    assert '"memory": [[1.0, 0.0], [0.0, 1.0]]' in widget.static_html()


if __name__ == "__main__":
    FIXTURE.write_text(json.dumps(cases(), indent=1) + "\n", encoding="utf-8")
