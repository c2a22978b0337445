"""What a slot stands for, held to networks whose habits are known."""

from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F

from lib.inspector.preference import preference, reads

SLOTS, STEPS = 40, 30


class State(NamedTuple):
    step: int
    stored: torch.Tensor  # (B, N): the class that each slot is of, -1 for none
    read_weights: torch.Tensor
    least_used: torch.Tensor


class Habit:
    """Writes slot after slot, and gives slots of the class that it sees `factor` times as much weight as the others.

    `delay` 1: a slot is of the class whose label was told at its write.
    """

    config = SimpleNamespace(slots=SLOTS)

    def __init__(self, *factors: float, delay: int):
        self.factors, self.delay = factors, delay

    def prepare(self, xs, ys):
        told = F.pad(ys[:, :-1], (1, 0), value=-1)
        none = torch.zeros(len(xs), len(self.factors), SLOTS)
        return torch.stack([ys, told], -1), State(0, torch.full((len(xs), SLOTS), -1), none, self.mark(0, len(xs)))

    def mark(self, step: int, batch: int) -> torch.Tensor:
        return F.one_hot(torch.tensor(step % SLOTS), SLOTS).float().expand(batch, 1, SLOTS)

    def step(self, seen, state):
        stored = state.stored.clone()
        stored[:, state.step % SLOTS] = seen[:, self.delay]
        own = stored == seen[:, :1]
        weights = torch.stack([own * (factor - 1.0) + 1.0 for factor in self.factors], dim=1)
        weights = weights / weights.sum(-1, keepdim=True)
        return None, State(state.step + 1, stored, weights, self.mark(state.step + 1, len(seen)))


@pytest.fixture
def episodes():
    random = torch.Generator().manual_seed(0)
    return torch.zeros(60, STEPS, 4), torch.randint(0, 5, (60, STEPS), generator=random)


@pytest.mark.parametrize("delay", [0, 1])
def test_a_habit_is_found_head_by_head_and_with_its_sign(episodes, delay):
    more, less = preference(Habit(2.0, 0.5, delay=delay), *episodes, delay)
    assert more.mean > 10 * more.error > 0
    assert less.mean < -10 * less.error < 0
    for other in (0, 1, 2):
        if other != delay:
            assert all(abs(mean) < 0.1 for mean, _ in preference(Habit(2.0, 0.5, delay=delay), *episodes, other))


def test_one_who_reads_all_alike_has_no_preference(episodes):
    ((mean, error),) = preference(Habit(1.0, delay=0), *episodes, 0)
    assert abs(mean) < 1e-5
    assert error < 1e-5


def test_the_error_is_that_of_episodes_and_not_of_their_steps():
    random = torch.Generator().manual_seed(1)
    xs, ys = torch.zeros(60, STEPS, 4), torch.randint(0, 5, (60, STEPS), generator=random)
    habits = 0.5 + torch.rand(60, 1, generator=random)  # one for each episode, the same at all of its steps
    ((_, error),) = preference(Habit(habits, delay=0), xs, ys, 0)
    alone = [
        preference(Habit(habit, delay=0), xs[:2], of_one.expand(2, -1), 0)[0].mean
        for habit, of_one in zip(habits, ys, strict=True)
    ]
    assert error == pytest.approx(2 * torch.tensor(alone).std().item() / 60**0.5, rel=0.1)


def test_who_wrote_a_slot_last_before_this_step(episodes):
    shares, writers = reads(Habit(1.0, delay=0), *episodes)
    torch.testing.assert_close(shares, torch.ones(60, STEPS, 1, SLOTS))
    for t in (0, 7, STEPS - 1):
        expected = torch.full((SLOTS,), -1)
        expected[:t] = torch.arange(t)
        assert torch.equal(writers[0, t], expected)
