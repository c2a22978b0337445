"""The made-up town and the memories that the laboratory of LMN compares."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.experiments.lmn_laboratory import (
    NEXT,
    PLACES,
    PointStreams,
    RecentMemory,
    labelled_memory,
    make_town,
    ranks,
    recall,
    steps_since,
    train_town,
)
from lib.methods.lmn import LMN, LMNConfig
from lib.tasks.streams import WholeStreams
from tests.cases import random_cases, seeds

LABELS, WIDTH = 4, 3


class NaiveRecent:
    """A list of cells, each a list of vector, label and the step of its last use; one stream."""

    def __init__(self, cells, merge):
        self.room, self.merge, self.cells, self.now = cells, merge, [], 0

    def predict(self, x):
        p = np.zeros(LABELS)
        for vector, label, _ in self.cells:
            p[label] = max(p[label], np.exp(5.0 * vector @ x / np.linalg.norm(x)))
        return p / p.sum() if self.cells else np.full(LABELS, 1 / LABELS)

    def observe(self, x, y):
        self.now += 2
        x = x / np.linalg.norm(x)
        nearest = max(self.cells, key=lambda cell: cell[0] @ x, default=None)
        if self.merge and nearest is not None and nearest[1] == y:
            mean = (nearest[0] + x) / 2
            nearest[0], nearest[2] = mean / np.linalg.norm(mean), self.now
            return
        if not self.merge and nearest is not None:
            nearest[2] = self.now - 1  # it was read, before the write
        if len(self.cells) == self.room:
            del self.cells[min(range(self.room), key=lambda i: self.cells[i][2])]
        self.cells.append([x, y, self.now])


@random_cases(12)
@given(seeds, st.integers(1, 6), st.booleans())
def test_recent_memory_is_a_list_of_cells_of_which_the_least_recently_used_goes(seed, cells, merge):
    rng = np.random.default_rng(seed)
    xs, ys = rng.normal(size=(2, 20, WIDTH)), rng.integers(LABELS, size=(2, 20))
    memory, naive = RecentMemory(LABELS, cells, merge), [NaiveRecent(cells, merge) for _ in range(2)]
    memory.begin(2)
    for t in range(20):
        found = memory.predict(torch.from_numpy(xs[:, t]))
        np.testing.assert_allclose(found, [each.predict(x) for each, x in zip(naive, xs[:, t], strict=True)], atol=1e-9)
        memory.observe(torch.from_numpy(xs[:, t]), torch.from_numpy(ys[:, t]))
        for each, x, y in zip(naive, xs[:, t], ys[:, t], strict=True):
            each.observe(x, y)


def test_points_have_one_rare_label_and_turn_as_told():
    still, turning = PointStreams(noise=0.0), PointStreams(noise=0.0, turn=float(np.pi))
    xs, ys, probes = still.draw(3, seed=1)
    assert xs.shape == (3, 300, 16) and ((ys == 0).sum(1) == 1).all() and (ys[:, 5] == 0).all()
    assert set(ys.flatten().tolist()) == set(range(12))
    torch.testing.assert_close(probes[:, 0], probes[:, -1])
    torch.testing.assert_close(xs[:, 5], probes[:, 5])
    again = turning.draw(3, seed=1)
    torch.testing.assert_close(again[2][:, -1], -again[2][:, 0])
    assert torch.equal(again[1], ys)
    assert not torch.equal(PointStreams().draw(3, seed=2)[0], PointStreams().draw(3, seed=1)[0])


def test_a_full_lru_memory_forgets_the_rare_label_and_a_labelled_one_does_not():
    points = PointStreams(noise=0.3, steps=60)
    labelled = recall(labelled_memory(points.width, points.labels), points, 20, seed=0)
    recent = recall(RecentMemory(points.labels, 12, merge=False), points, 20, seed=0)
    before, told, full = slice(1, points.once), points.once + 1, points.once + 8
    for found in (labelled, recent):
        assert not found.rare_right[:, before].any() and found.rare_right[:, told].all()
    assert labelled.rare_right[:, full:].mean() > 0.99
    assert recent.rare[:, :full][:, told:].all(), "there is room until twelve steps are written"
    assert recent.rare[:, full + 4 :].any(1).mean() < 0.5 and not recent.rare[:, full + 30 :].any()


def test_asking_about_the_rare_label_changes_nothing():
    points = PointStreams(steps=30)
    xs, ys, _ = points.draw(4, seed=3)
    for make in (
        lambda: labelled_memory(points.width, points.labels, cells=2),
        lambda: RecentMemory(points.labels, 12, merge=True),
    ):
        right = recall(make(), points, 4, seed=3).right
        np.testing.assert_array_equal(right[:, 1:], (ranks(make(), xs, ys) == 1)[:, 1:])  # at first all tie


def test_the_labelled_memory_is_an_lmn_that_knows_nothing_else():
    xs, ys, _ = PointStreams(steps=25).draw(3, seed=0)
    memory = labelled_memory(16, 12, cells=2, strength=0.5)
    assert isinstance(memory, LMN) and memory.config.theta == 1 and memory.config.strength == 0.5
    with torch.no_grad():
        np.testing.assert_array_equal(ranks(memory, xs, ys), memory(xs, ys).rank)


def test_steps_since():
    assert steps_since(np.array([[3, 1, 3, 3, 1], [2, 2, 2, 0, 2]])).tolist() == [[0, 0, 2, 1, 3], [0, 1, 1, 0, 2]]


def test_people_keep_to_the_pattern_and_to_places_of_their_own():
    town = make_town(0, visits=300)
    kinds = list(PLACES)
    kind_of = np.array([kinds.index(name.rsplit(" ", 1)[0]) for name in town.names])
    assert len(town.names) == len(set(town.names)) == sum(PLACES.values())
    for nexts in NEXT.values():
        assert sum(nexts.values()) == 10
    people = town.network + town.combiner + town.test
    assert len({person.tobytes() for person in people}) == len(people)
    for person in people[:10]:
        visited = kind_of[person]
        assert all(kinds[b] in NEXT[kinds[a]] for a, b in zip(visited, visited[1:], strict=False))
        for kind, own in (("home", 1), ("work", 1), ("café", 2)):
            counts = np.sort(np.bincount(person[visited == kinds.index(kind)]))[::-1]
            assert counts[:own].sum() / counts.sum() > 0.8
    assert all((a == b).all() for a, b in zip(make_town(0, visits=300).test, town.test, strict=True))
    assert not all((a == b).all() for a, b in zip(make_town(1, visits=300).test, town.test, strict=True))


def test_what_is_trained_in_seconds_knows_the_town_and_gets_to_know_people():
    town = make_town(0)
    lmn = train_town(town, LMNConfig(units=8), seed=0)
    assert not lmn.training
    batch = WholeStreams(town.test).batch(0, len(town.test))
    with torch.no_grad():
        adapted, alone = (-learner(batch.xs, batch.ys).log_likelihood.mean() for learner in (lmn, lmn.network))
    assert alone < np.log(len(town.names)) - 0.3, "a guess among all places"
    assert adapted < alone - 0.5
