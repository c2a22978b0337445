"""The fast scan of the labelled memory against LMN itself, with θ = 1 and a network that gives back what it sees."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lib.memory import labelled_scan
from lib.memory.labelled import LabelledMemory
from lib.methods.lmn import LMN, LMNConfig
from tests.cases import normal, random_cases, seeds


class Seen(nn.Module):
    """h_t is the input itself; no label is scored higher than another."""

    def __init__(self, width, labels):
        super().__init__()
        self.hidden_size, self.labels = width, labels
        self.unused = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def hidden(self, xs, state=None):
        return xs, None

    def scores(self, hs):
        return hs.new_zeros(*hs.shape[:-1], self.labels)


def stream(seed, labels=7, steps=100, width=5):
    random = torch.Generator().manual_seed(seed)
    ys = torch.randint(labels, (steps,), generator=random)
    return torch.tensor(normal(seed, labels, width))[ys] + 0.8 * torch.tensor(normal(seed + 1, steps, width)), ys


@random_cases(15)
@given(seeds, st.integers(1, 3), st.sampled_from([0.5, 3.0, 1e9]), st.sampled_from([0.0, 1.0]))
def test_the_scan_answers_as_lmn_with_the_memory_alone(seed, cells, margin, strength):
    hidden, ys = stream(seed)
    config = LMNConfig(cells=cells, margin=margin, sharpness=6.0, strength=strength, theta=1.0)
    with torch.no_grad():
        scored = LMN(Seen(5, 7), config)(hidden.unsqueeze(0), ys.unsqueeze(0))
    found = labelled_scan.answer_online(
        hidden, ys, 7, cells=cells, margin=margin, decay=0.99, sharpness=6.0, strength=strength
    )
    assert found.tolist() == (scored.rank[0] == 1).tolist()
    assert 20 < found.sum() < 95  # some are right and some are not


@random_cases(10)
@given(seeds, st.integers(1, 3))
def test_the_evidence_is_that_of_equation_3_before_it_is_normalised(seed, cells):
    hidden, ys = stream(seed, steps=30)
    memory = LabelledMemory(1, 7, 5, cells, like=hidden)
    yes = torch.ones(1, dtype=torch.bool)
    for h, y in zip(hidden, ys, strict=True):
        memory.write(h.unsqueeze(0), y.unsqueeze(0), yes, yes, 0.99)
    n, queries = memory.rows, torch.tensor(normal(seed + 2, 4, 5), requires_grad=True)
    vectors = memory.vectors[0, :n]
    arguments = (vectors, labelled_scan.products_of(vectors), memory.weights[0, :n], memory.count[0, :n], 6.0, 0.5)
    found = labelled_scan.evidence(queries, *arguments)
    for q in range(4):
        expected = memory.scores(queries[q : q + 1], 6.0, 0.5)[0]
        torch.testing.assert_close(found[:, q].softmax(0), expected)
        (gradient,) = torch.autograd.grad(expected[0].log(), queries, retain_graph=True)
        (own,) = torch.autograd.grad(found[:, q].log_softmax(0)[0], queries, retain_graph=True)
        torch.testing.assert_close(own, gradient)


def test_a_label_that_was_never_written_has_no_evidence():
    zeros = torch.zeros(2, 2, 3)
    count = torch.tensor([0, 1])
    vectors = torch.ones(2, 2, 3)
    found = labelled_scan.evidence(
        torch.ones(4, 3), vectors, labelled_scan.products_of(vectors), zeros[:, :, 0] + 1, count, 5.0, 1.0
    )
    assert (found[0] == -torch.inf).all()
    assert found[1].tolist() == pytest.approx([5.0] * 4)
