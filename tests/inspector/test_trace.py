"""A trace says what the learner did, and survives the disk."""

import base64
import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch

from lib.baselines.lstm import LSTM, LSTMConfig
from lib.inspector.files import TraceError
from lib.inspector.trace import Trace, record
from lib.methods.mann import MANN, MANNConfig


def big_trace() -> Trace:
    """The sizes of the paper's Omniglot runs, with four reads."""
    random = np.random.default_rng(0)
    steps, slots, heads = 50, 128, 4
    return Trace(
        title="big",
        note="",
        images=random.integers(0, 256, (steps, 20, 20), dtype=np.uint8),
        labels=random.integers(0, 5, steps),
        probabilities=random.dirichlet(np.ones(5), steps).astype(np.float32),
        instance=np.ones(steps, dtype=np.int64),
        memory=random.normal(size=(steps, slots, 40)).astype(np.float32),
        read_weights=random.dirichlet(np.ones(slots), (steps, heads)).astype(np.float32),
        write_weights=random.dirichlet(np.ones(slots), (steps, heads)).astype(np.float32),
        usage=random.random((steps, slots)).astype(np.float32),
        least_used=random.random((steps, slots)) < 0.03,
    )


def test_a_saved_trace_comes_back(tmp_path):
    trace = big_trace()
    path = trace.save(tmp_path / "new folder" / "trace.json")
    assert path.stat().st_size < 1.5e6
    loaded = Trace.load(path)
    assert (loaded.title, loaded.note, loaded.label_delay) == (trace.title, trace.note, trace.label_delay)
    assert loaded.arrays().keys() == trace.arrays().keys()
    for name, array in trace.arrays().items():
        again = loaded.arrays()[name]
        if array.dtype.kind == "f":
            steps = 32767 if name == "memory" else 65535
            assert np.abs(again - array).max() <= 0.51 * np.abs(array).max() / steps, name
            assert again.dtype == np.float32
        else:
            np.testing.assert_array_equal(again, array, err_msg=name)
    assert list(path.parent.iterdir()) == [path], "no temporary file stays"


def test_saving_what_was_loaded_changes_nothing(tmp_path, toy_trace):
    once = Trace.load(toy_trace.save(tmp_path / "once.json"))
    twice = Trace.load(once.save(tmp_path / "twice.json"))
    for name, array in once.arrays().items():
        np.testing.assert_array_equal(twice.arrays()[name], array, err_msg=name)


def without(content: bytes, name: str) -> bytes:
    """A trace file that lacks an array, as if it had been made so."""
    trace = json.loads(content)
    del trace["arrays"][name]
    stored = (base64.b64decode(entry["data"]) for entry in trace["arrays"].values())
    return json.dumps(trace | {"sha256": hashlib.sha256(b"".join(stored)).hexdigest()}).encode()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"", "not a sound trace"),
        (lambda content: b"\x89PNG garbage", "not a sound trace"),
        (lambda content: content[: len(content) // 2], "not a sound trace"),
        (lambda content: b"[]", '"format": "memory-trace"'),
        (lambda content: b'{"format": "something else"}', '"format": "memory-trace"'),
        (lambda content: content.replace(b'"version": 1', b'"version": 2'), "version is 2, this code reads version 1"),
        (lambda content: content.replace(b'"labels": {', b'"label": {'), "its arrays are damaged (KeyError"),
        (lambda content: content.replace(b'"data": "', b'"data": "!'), "its arrays are damaged (Error"),
        (lambda content: without(content, "probabilities"), "it has no array probabilities"),
        (lambda content: content.replace(b'"dtype": "int16"', b'"dtype": "int8"'), None),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, toy_trace, damage, message):
    path = toy_trace.save(tmp_path / "trace.json")
    sound = Trace.load(path)
    path.write_bytes(damage(path.read_bytes()))
    if message is None:  # the types are fixed by the version: what an entry says of its own is not trusted
        np.testing.assert_array_equal(Trace.load(path).memory, sound.memory)
        return
    with pytest.raises(TraceError, match="trace.json") as error:
        Trace.load(path)
    assert message in str(error.value) and "Restore the file or record it anew" in str(error.value)


def test_one_changed_number_is_noticed(tmp_path, toy_trace):
    path = toy_trace.save(tmp_path / "trace.json")
    content = json.loads(path.read_bytes())
    data = content["arrays"]["images"]["data"]
    content["arrays"]["images"]["data"] = ("B" if data[0] == "A" else "A") + data[1:]
    path.write_text(json.dumps(content))
    with pytest.raises(TraceError, match="sha256"):
        Trace.load(path)


def test_files_that_cannot_be_read_or_written(tmp_path, toy_trace):
    with pytest.raises(TraceError, match="absent.json cannot be read"):
        Trace.load(tmp_path / "absent.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(TraceError, match="trace.json cannot be written"):
        toy_trace.save(tmp_path / "file" / "trace.json")


def test_the_trace_is_what_the_learner_did(toy, episode):
    xs, ys = episode
    trace = record(toy, xs, ys, index=1, title="t", note="n", label_delay=0)
    toy.begin(1)
    for t in range(ys.shape[1]):
        np.testing.assert_array_equal(trace.probabilities[t], toy.predict(xs[1:, t])[0])
        toy.observe(xs[1:, t], ys[1:, t])
        np.testing.assert_array_equal(trace.memory[t], toy.state.memory[0])
        np.testing.assert_array_equal(trace.read_weights[t], toy.state.read_weights[0])
        np.testing.assert_array_equal(trace.write_weights[t], toy.state.write_weights[0])
        np.testing.assert_array_equal(trace.usage[t], toy.state.usage[0])
        np.testing.assert_array_equal(trace.least_used[t], toy.state.least_used[0, 0] > 0)
        assert trace.instance[t] == (ys[1, : t + 1] == ys[1, t]).sum()
    np.testing.assert_array_equal(trace.labels, ys[1])
    np.testing.assert_allclose(trace.images.reshape(12, 16) / 255, xs[1], atol=0.5 / 255 + 1e-6)
    assert trace.right[trace.instance > 1].all(), "this learner knows what it has seen"


def test_mann_in_a_trace_predicts_as_in_a_batch():
    torch.manual_seed(0)
    learner = MANN(MANNConfig(features=25, classes=3, hidden=12, slots=10, width=6, reads=2)).train()
    random = torch.Generator().manual_seed(1)
    xs, ys = torch.rand(3, 9, 25, generator=random), torch.randint(0, 3, (3, 9), generator=random)
    trace = record(learner, xs, ys, index=2)
    with torch.no_grad():
        batched = torch.softmax(learner(xs, ys), -1)[2]
    np.testing.assert_allclose(trace.probabilities, batched, atol=1e-5)
    assert learner.training, "it is in training mode again"
    assert trace.memory.shape == (9, 10, 6) and trace.read_weights.shape == (9, 2, 10)
    assert trace.images.shape == (9, 5, 5)
    assert (trace.least_used.sum(1) == 2).all(), "each head chooses one slot"
    # A write of MANN goes to the slots that the step before chose.
    chosen = [trace.least_used[t - 1, slot] for slot in range(10) for t, _ in trace.written(slot) if t > 0]
    assert chosen and all(chosen)


def test_a_learner_without_memory():
    torch.manual_seed(0)
    trace = record(
        LSTM(LSTMConfig(features=25, classes=3, hidden=8)), torch.rand(1, 4, 25), torch.tensor([[0, 1, 2, 0]])
    )
    assert trace.slots == 0 and set(trace.arrays()) == {"images", "labels", "probabilities", "instance"}
    with pytest.raises(ValueError, match="no memory"):
        trace.written(0)


def test_written_lists_each_write_with_its_weight(toy_trace):
    assert toy_trace.written(0) == [(0, 1.0)] and toy_trace.written(3) == [(3, 1.0)]
    everything = sorted(t for slot in range(toy_trace.slots) for t, _ in toy_trace.written(slot))
    assert everything == list(range(toy_trace.steps)), "this learner writes once a step"
    for slot in (-1, toy_trace.slots):
        with pytest.raises(ValueError, match=f"there is no slot {slot}: the memory has 16 slots, 0 to 15"):
            toy_trace.written(slot)


def test_accuracy_by_instance_counts_by_hand(toy_trace):
    answers = np.array([0, 0, 1, 1, 1, 0])
    probabilities = np.eye(2, dtype=np.float32)[answers]
    labels, instance = np.array([0, 1, 1, 0, 1, 1]), np.array([1, 1, 2, 2, 3, 4])
    trace = Trace("", "", np.zeros((6, 2, 2), np.uint8), labels, probabilities, instance)
    assert trace.accuracy_by_instance(3) == {1: 0.5, 2: 0.5, 3: 1.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(3, np.int64)}, "is 12 in the others|is 3 in the others"),
        ({"usage": np.zeros((12, 15), np.float32)}, "usage has the shape"),
        ({"memory": np.zeros((12, 16), np.float32)}, "memory must have the axes"),
        ({"usage": np.full((12, 16), np.nan, np.float32)}, "usage has a number that is not finite, first at step 0"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(toy_trace, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(toy_trace, **change)


def test_wrong_episodes_are_refused(toy, episode):
    xs, ys = episode
    for bad in [(xs[0], ys[0]), (xs, ys[:, :5]), (xs[:, :0], ys[:, :0])]:
        with pytest.raises(ValueError, match=r"expected xs \(B, T, D\)"):
            record(toy, *bad)
    with pytest.raises(ValueError, match="no episode 2 in a batch of 2"):
        record(toy, xs, ys, index=2)
    with pytest.raises(ValueError, match="not images of 4 x 4"):
        record(toy, xs[:, :, :15], ys)


def test_the_telling_step_is_a_right_answer_that_reads_its_own_class():
    def weights(*slots):
        return np.eye(3, dtype=np.float32)[list(slots)][:, None]

    trace = Trace(
        title="",
        note="",
        images=np.zeros((4, 2, 2), np.uint8),
        labels=np.array([0, 1, 1, 0]),
        probabilities=np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.9, 0.1]], np.float32),
        instance=np.array([1, 1, 2, 2]),
        memory=np.zeros((4, 3, 1), np.float32),
        read_weights=weights(0, 0, 0, 0),  # step 2 reads what class 0 wrote, step 3 does so rightly
        write_weights=weights(0, 1, 2, 2),
        usage=np.zeros((4, 3), np.float32),
        least_used=np.zeros((4, 3), bool),
        label_delay=0,
    )
    assert trace.telling_step() == (3, 0)
    assert trace.telling_step(least=True) == (
        2,
        1,
    )  # of earlier slots step 2, of class 1, reads least what class 1 wrote
    assert dataclasses.replace(trace, read_weights=weights(0, 0, 1, 1)).telling_step(least=True) == (3, 0)
    late = dataclasses.replace(trace, label_delay=1, write_weights=weights(2, 0, 1, 1))
    assert late.telling_step() == (3, 0)  # slot 0 was written at step 1, when the label of step 0 was told
    assert dataclasses.replace(late, write_weights=weights(2, 1, 0, 2)).telling_step() == (0, None)  # told class 1
    assert dataclasses.replace(trace, labels=np.array([1, 0, 0, 1])).telling_step() == (
        0,
        None,
    )  # every answer is wrong
    assert dataclasses.replace(
        trace, memory=None, read_weights=None, write_weights=None, usage=None, least_used=None
    ).telling_step() == (0, None)
