"""Interventions do what they say, and nothing else."""

import numpy as np
import pytest
import torch

from lib.baselines.lstm import LSTM, LSTMConfig
from lib.inspector.laboratory import (
    EraseSlot,
    FreezeSlot,
    Laboratory,
    SwapLabelRows,
    SwapLabels,
    compare,
    intervene,
)
from lib.inspector.trace import record
from lib.inspector.viewer import WIDGET
from lib.methods.flmn import FLMN, FLMNConfig
from lib.methods.mann import MANN, MANNConfig


def run(toy, episode, *interventions):
    return intervene(toy, *episode, interventions, label_delay=0)


def test_no_intervention_is_a_plain_record(toy, episode, toy_trace):
    trace = run(toy, episode)
    for name, array in toy_trace.arrays().items():
        np.testing.assert_array_equal(trace.arrays()[name], array, err_msg=name)


def test_erase_changes_one_row_at_its_step(toy, episode, toy_trace):
    erased = run(toy, episode, EraseSlot(slot=2, step=6))
    np.testing.assert_array_equal(erased.memory[:6], toy_trace.memory[:6])
    others = np.arange(16) != 2
    np.testing.assert_array_equal(erased.memory[6, others], toy_trace.memory[6, others])
    assert toy_trace.memory[6, 2].any() and not erased.memory[6:, 2].any()


def test_erasing_all_that_is_known_of_a_class_makes_it_unknown(toy, episode, toy_trace):
    t = int(np.flatnonzero(toy_trace.instance == 2)[0])
    slots = [t2 for t2 in range(t) if toy_trace.labels[t2] == toy_trace.labels[t]]  # step t2 wrote to slot t2
    erased = run(toy, episode, *(EraseSlot(slot, t) for slot in slots))
    assert toy_trace.right[t] and not erased.right[t]
    assert t in compare(toy_trace, erased).changed


def test_freeze_keeps_the_row_and_no_other(toy, episode, toy_trace):
    frozen = run(toy, episode, FreezeSlot(slot=5, step=3))
    np.testing.assert_array_equal(frozen.memory[:5], toy_trace.memory[:5])
    assert toy_trace.memory[5, 5].any() and not frozen.memory[3:, 5].any()
    others = np.arange(16) != 5
    np.testing.assert_array_equal(frozen.memory[5, others], toy_trace.memory[5, others])
    full = run(toy, episode, FreezeSlot(slot=0, step=1))
    assert (full.memory[:, 0] == toy_trace.memory[0, 0]).all() and full.memory[0, 0].any()


def test_swap_tells_the_other_label_from_its_step_on(toy, episode, toy_trace):
    _, ys = episode
    swapped = run(toy, episode, SwapLabels(0, 2, step=4))
    expected = ys[0].numpy().copy()
    expected[4:] = np.array([2, 1, 0])[expected[4:]]
    np.testing.assert_array_equal(swapped.labels, expected)
    assert (swapped.labels != toy_trace.labels).sum() > 2
    np.testing.assert_array_equal(swapped.instance, toy_trace.instance)
    np.testing.assert_array_equal(swapped.memory[3], toy_trace.memory[3])
    np.testing.assert_array_equal(swapped.memory[4:, 4, 16:].argmax(-1), np.full(8, expected[4]))
    np.testing.assert_array_equal(ys, episode[1])


def test_interventions_add_up(toy, episode):
    both = run(toy, episode, EraseSlot(1, 3), FreezeSlot(1, 3), SwapLabels(0, 1, 0), SwapLabels(0, 1, 0))
    assert not both.memory[3:, 1].any()
    np.testing.assert_array_equal(both.labels, episode[1][0])


def test_the_state_itself_is_left_alone(toy, episode):
    toy.begin(1)
    toy.observe(episode[0][:1, 0], episode[1][:1, 0])
    kept = toy.state.memory.clone()
    EraseSlot(0, 1).before(1, toy.state)
    FreezeSlot(0, 0).after(1, toy.state._replace(memory=kept + 1), toy.state)
    assert kept.any() and torch.equal(toy.state.memory, kept)


@pytest.mark.parametrize(
    ("intervention", "message"),
    [
        (EraseSlot(16, 0), "there is no slot 16: the memory has 16 slots, 0 to 15"),
        (FreezeSlot(-1, 0), "there is no slot -1"),
        (EraseSlot(0, 12), "there is no step 12: the episode has 12 steps, 0 to 11"),
        (SwapLabels(0, 1, -1), "there is no step -1"),
        (SwapLabels(0, 3, 0), "there is no label 3: the learner has labels 0 to 2"),
    ],
)
def test_what_does_not_exist_is_refused(toy, episode, intervention, message):
    with pytest.raises(ValueError, match=message):
        run(toy, episode, intervention)


def test_a_learner_without_memory_can_only_swap_labels():
    torch.manual_seed(0)
    learner, xs, ys = (
        LSTM(LSTMConfig(features=25, classes=2, hidden=8)),
        torch.rand(1, 4, 25),
        torch.tensor([[0, 1, 0, 1]]),
    )
    with pytest.raises(ValueError, match="no memory"):
        intervene(learner, xs, ys, [EraseSlot(0, 0)])
    np.testing.assert_array_equal(intervene(learner, xs, ys, [SwapLabels(0, 1, 2)]).labels, [0, 1, 1, 0])
    assert Laboratory(learner, xs, ys, [SwapLabels(0, 1, 2)]).before.slots == 0


def test_mann_feels_an_erased_slot():
    torch.manual_seed(0)
    learner = MANN(MANNConfig(features=25, classes=3, hidden=12, slots=10, width=6, reads=2))
    random = torch.Generator().manual_seed(1)
    xs, ys = torch.rand(1, 9, 25, generator=random), torch.randint(0, 3, (1, 9), generator=random)
    plain, erased = record(learner, xs, ys), intervene(learner, xs, ys, [EraseSlot(0, 4)])
    np.testing.assert_array_equal(plain.probabilities[:4], erased.probabilities[:4])
    assert np.abs(plain.probabilities[4] - erased.probabilities[4]).max() > 1e-6


@pytest.fixture
def split():
    """An FLMN and an episode."""
    torch.manual_seed(0)
    learner = FLMN(FLMNConfig(features=25, classes=3, hidden=12, slots=10, width=6))
    random = torch.Generator().manual_seed(1)
    return learner, torch.rand(1, 9, 25, generator=random), torch.randint(0, 3, (1, 9), generator=random)


def test_a_trace_of_flmn_has_both_memories(split):
    learner, xs, ys = split
    trace = record(learner, xs, ys)
    assert trace.memory.shape == trace.label_memory.shape == (9, 10, 6)
    assert trace.label_delay == 0
    again = type(trace).from_json(trace.to_json())
    np.testing.assert_allclose(again.label_memory, trace.label_memory, atol=np.abs(trace.label_memory).max() / 30_000)
    learner.begin(1)
    for t in range(9):
        learner.observe(xs[:, t], ys[:, t])
        np.testing.assert_array_equal(trace.memory[t], learner.state.feature_memory[0])
        np.testing.assert_array_equal(trace.label_memory[t], learner.state.label_memory[0])


def test_swapped_label_rows_leave_the_features_and_change_what_is_read(split):
    plain, swapped = record(*split), intervene(*split, [SwapLabelRows(1, 3, 6)])
    np.testing.assert_array_equal(plain.probabilities[:6], swapped.probabilities[:6])
    np.testing.assert_array_equal(plain.memory[6], swapped.memory[6])
    np.testing.assert_array_equal(plain.label_memory[5], swapped.label_memory[5])
    written = plain.label_memory[6] - plain.label_memory[5]  # by the step itself, after the exchange
    expected = plain.label_memory[5].copy()
    expected[[1, 3]] = expected[[3, 1]]
    np.testing.assert_allclose(swapped.label_memory[6], expected + written, atol=1e-6)
    assert np.abs(plain.probabilities[6] - swapped.probabilities[6]).max() > 1e-7


def test_an_erased_or_frozen_slot_of_flmn_is_so_in_both_memories(split):
    plain, erased = record(*split), intervene(*split, [EraseSlot(2, 7)])
    for name in ("memory", "label_memory"):
        before, after = getattr(plain, name), getattr(erased, name)
        assert np.abs(after[7, 2]).max() < 0.5 * np.abs(before[7, 2]).max()
    frozen = intervene(*split, [FreezeSlot(2, 2)])
    for name in ("memory", "label_memory"):
        assert (getattr(frozen, name)[2:, 2] == getattr(plain, name)[1, 2]).all()


def test_only_a_memory_of_labels_has_label_rows(toy, episode, split):
    with pytest.raises(ValueError, match="no labels in slots of their own"):
        run(toy, episode, SwapLabelRows(0, 1, 2))
    with pytest.raises(ValueError, match="there is no slot 10"):
        intervene(*split, [SwapLabelRows(1, 10, 2)])


def test_the_laboratory_of_flmn_has_a_control_for_it(split):
    laboratory = Laboratory(*split, [SwapLabelRows(1, 3, 6)])
    assert laboratory.inspector.slot == 1
    names = [child.description for line in laboratory.widget.children[:3] for child in line.children]
    assert "Swap their label rows" in names
    line = laboratory.widget.children[1]
    other, swap = line.children
    other.value = 4
    laboratory.widget.children[0].children[1].value = 2
    swap.click()
    assert laboratory.interventions[-1] == SwapLabelRows(2, 4, laboratory.widget.children[0].children[0].value)


def test_compare(toy, episode, toy_trace):
    swapped = run(toy, episode, SwapLabels(0, 2, step=4))
    result = compare(toy_trace, swapped)
    assert result.changed and all(t > 4 for t in result.changed), "the first swapped label is told after step 4"
    assert result.before == toy_trace.accuracy_by_instance() and result.after == swapped.accuracy_by_instance()
    with pytest.raises(ValueError, match="12 steps, the other 3"):
        compare(toy_trace, intervene(toy, episode[0][:, :3], episode[1][:, :3], []))


@pytest.fixture
def laboratory(toy, episode):
    return Laboratory(toy, *episode, [SwapLabels(0, 2, 4)], title="Toy", label_delay=0)


def controls(laboratory):
    """The controls by what is written on them."""
    first, second = laboratory.widget.children[:2]
    return {control.description: control for control in (*first.children, *second.children)}


def test_the_controls_run_the_episode_again(laboratory, toy, episode):
    on = controls(laboratory)
    on["Undo the last"].click()
    assert laboratory.interventions == () and laboratory.comparison.changed == ()
    on["slot"].value, on["from step"].value = 2, 6
    on["Erase slot"].click()
    on["Freeze slot"].click()
    assert laboratory.interventions == (EraseSlot(2, 6), FreezeSlot(2, 6))
    expected = run(toy, episode, *laboratory.interventions)
    np.testing.assert_array_equal(laboratory.after.probabilities, expected.probabilities)
    assert laboratory.inspector.trace == laboratory.after.to_json()
    np.testing.assert_array_equal(laboratory.after.answers_before, laboratory.before.answers)
    on["label"].value, on["and label"].value = 1, 2
    on["Swap labels"].click()
    assert laboratory.interventions[-1] == SwapLabels(1, 2, 6)
    report = laboratory.widget.children[3].value
    assert "Slot 2 is erased before t = 6; slot 2 is frozen from t = 6 on; labels 1 and 2 are swapped" in report


def test_it_opens_where_something_happens(toy, episode):
    erased = Laboratory(toy, *episode, [EraseSlot(0, 3), EraseSlot(1, 3), EraseSlot(2, 3)], label_delay=0)
    assert (erased.inspector.step, erased.inspector.slot) == (erased.comparison.changed[0], 0)
    idle = Laboratory(toy, *episode, label_delay=0)
    assert (idle.inspector.step, idle.inspector.slot) == (0, None)


def test_picking_in_the_inspector_fills_in_the_controls(laboratory):
    laboratory.inspector.slot, laboratory.inspector.step = 7, 3
    on = controls(laboratory)
    assert (on["slot"].value, on["from step"].value) == (7, 3)
    laboratory.inspector.slot = None
    assert on["slot"].value == 7


def test_an_error_is_shown_and_nothing_is_run(laboratory):
    before = laboratory.interventions
    laboratory._try([EraseSlot(99, 0)])
    assert "there is no slot 99" in laboratory.widget.children[2].value
    assert laboratory.interventions == before


def test_without_a_kernel_the_result_is_shown(laboratory):
    data, _ = laboratory._repr_mimebundle_()
    assert data[WIDGET]["model_id"] == laboratory.widget.model_id
    page, result = data["text/html"], laboratory.comparison
    assert "need a live notebook" in page and "Labels 0 and 2 are swapped from t = 4 on" in page
    assert len(result.changed) > 0
    differ = page.split("Answers that differ")[1].split("</table>")[0]
    assert differ.count("<th scope='row'>") == len(result.changed)
    for t in result.changed:
        answers = f"<td>{laboratory.before.answers[t]}</td><td>{laboratory.after.answers[t]}</td>"
        assert f"<th scope='row'>{t}</th>{answers}<td>{laboratory.after.labels[t]}</td>" in differ
    assert f"{laboratory.before.right.sum()} of 12 without, {laboratory.after.right.sum()} with" in page
    assert str(result.changed)[1:-1].strip(",") in data["text/plain"]
