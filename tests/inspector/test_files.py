"""Packed arrays and whole modules, apart from any kind of trace."""

import numpy as np
import pytest

from lib.inspector import files

STORED = {"a": "uint8", "b": "int16"}
HEADER = ("test", 1)


def test_packed_arrays_come_back_at_their_scale():
    arrays = {"a": np.array([[3, 255]]), "b": np.array([-1.5, 0.0, 0.75])}
    content = {"format": "test", "version": 1} | files.packed(arrays, STORED, {"b": None})
    again = files.unpacked(content, HEADER, STORED, {"b": None}, {"a", "b"})
    np.testing.assert_array_equal(again["a"], arrays["a"])
    np.testing.assert_allclose(again["b"], arrays["b"], atol=1.5 / 2**15)
    halves = files.packed({"b": np.array([0.5, 2.0])}, STORED, {"b": 0.5})
    assert halves["arrays"]["b"]["scale"] == 0.5


def test_a_number_too_large_for_its_kind_is_refused():
    with pytest.raises(ValueError, match="a has 256, and uint8 is too small for it"):
        files.packed({"a": np.array([256])}, STORED, {})


def test_arrays_of_zeros_and_of_nothing_have_a_scale():
    packed = files.packed({"b": np.zeros((0, 2))}, STORED, {"b": None})["arrays"]["b"]
    assert packed["scale"] == 1.0 and packed["data"] == ""


@pytest.mark.parametrize("name", ["addressing.js", "inspector.js", "labelled.js"])
def test_a_whole_module_needs_no_other(name):
    module = files.whole_module(name)
    assert "./page.js" not in module and "</script" not in module
    assert module.count("const node = ") == 1 and "export const node" not in module


def test_a_module_that_does_not_ask_for_the_shared_one_is_refused():
    with pytest.raises(ValueError, match=r"page.js must import page.js once, not 0 times"):
        files.whole_module("page.js")
