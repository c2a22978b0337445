"""A small learner with a memory, whose behaviour can be told beforehand, and one episode for it."""

from typing import NamedTuple

import pytest
import torch

from lib.inspector.trace import Trace, record

CLASSES, SLOTS, PIXELS = 3, 16, 16


class ToyState(NamedTuple):
    memory: torch.Tensor  # (B, N, D + C): an image and its label
    read_weights: torch.Tensor  # (B, 1, N)
    write_weights: torch.Tensor  # (B, 1, N)
    usage: torch.Tensor  # (B, N)
    least_used: torch.Tensor  # (B, 1, N)


class ToyLearner:
    """Keeps each image with its label in the least recently written slot; answers by the most similar image."""

    def __init__(self, features: int = PIXELS, classes: int = CLASSES, slots: int = SLOTS, sharpness: float = 20.0):
        self.features, self.classes, self.slots, self.sharpness = features, classes, slots, sharpness
        self.state: ToyState | None = None

    def begin(self, batch_size: int) -> None:
        weights = torch.zeros(batch_size, 1, self.slots)
        usage = torch.zeros(batch_size, self.slots)
        memory = torch.zeros(batch_size, self.slots, self.features + self.classes)
        self.state = ToyState(memory, weights, weights, usage, self._least_used(usage))

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        votes = self._read(x) @ self.state.memory[:, :, self.features :]
        return (votes[:, 0] + 0.01) / (votes[:, 0] + 0.01).sum(-1, keepdim=True)

    def observe(self, x: torch.Tensor, y: torch.Tensor) -> None:
        state, read = self.state, self._read(x)
        row = torch.cat([x, torch.nn.functional.one_hot(y, self.classes)], dim=-1)
        where = state.least_used.transpose(1, 2)
        memory = state.memory * (1 - where) + where * row.unsqueeze(1)
        usage = 0.9 * state.usage + state.least_used[:, 0] + 0.1 * read[:, 0]
        self.state = ToyState(memory, read, state.least_used, usage, self._least_used(usage))

    def _read(self, x: torch.Tensor) -> torch.Tensor:
        similarity = torch.cosine_similarity(x.unsqueeze(1), self.state.memory[:, :, : self.features], dim=-1)
        return torch.softmax(self.sharpness * similarity, dim=-1).unsqueeze(1)

    def _least_used(self, usage: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(usage.argmin(-1, keepdim=True), self.slots).float()


@pytest.fixture
def toy() -> ToyLearner:
    return ToyLearner()


@pytest.fixture(scope="session")
def episode() -> tuple[torch.Tensor, torch.Tensor]:
    """xs (2, 12, 16): noisy drawings of three patterns; ys (2, 12)."""
    random = torch.Generator().manual_seed(5)
    patterns = (torch.rand(CLASSES, PIXELS, generator=random) > 0.5).float()
    ys = torch.randint(0, CLASSES, (2, 12), generator=random)
    return (0.8 * patterns[ys] + 0.2 * torch.rand(2, 12, PIXELS, generator=random)), ys


@pytest.fixture
def toy_trace(toy, episode) -> Trace:
    return record(toy, *episode, title="Toy", note="made for a test", label_delay=0)
