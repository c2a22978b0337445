"""Tasks and learners small enough to train within a test."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from lib.methods.flmn import FLMN, FLMNConfig
from lib.methods.mann import MANN, MANNConfig
from lib.tasks.classification import InstanceTally
from lib.tasks.episodes import Episodes
from lib.tasks.labels import OneHot
from lib.tasks.seeds import generator
from lib.training import TrainingConfig

TINY = MANNConfig(features=4, classes=2, hidden=8, slots=8, width=4, reads=2)
SHORT = TrainingConfig(
    updates=12,
    batch_size=3,
    learning_rate=1e-3,
    log_every=2,
    validate_every=6,
    validation_batches=2,
    checkpoint_every=4,
)


def tiny_mann(seed: int = 0, config: MANNConfig | FLMNConfig = TINY) -> MANN | FLMN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FLMN(config) if isinstance(config, FLMNConfig) else MANN(config)


@dataclass(frozen=True)
class TwoPictures:
    """Two unlike pictures that never change; which of them is called 0 and which 1 is drawn anew for each episode."""

    stream: str
    dtype: torch.dtype = torch.float32
    length: int = 10

    def batch(self, index: int, size: int) -> Episodes:
        random = generator(0, self.stream, index)
        shown = torch.randint(2, (size, self.length), generator=random)
        swapped = torch.randint(2, (size, 1), generator=random)
        pictures = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]], dtype=self.dtype)
        labels = shown ^ swapped
        return Episodes(pictures[shown], labels, torch.cat([swapped, 1 - swapped], dim=1), labels)


class TinyTask:
    """What `train` asks of a task."""

    def __init__(self, dtype: torch.dtype = torch.float32, length: int = 10):
        self.train, self.validation = (TwoPictures(stream, dtype, length) for stream in ("train", "validation"))
        self.device = torch.device("cpu")

    def loss(self, logits, batch):
        return F.cross_entropy(logits.flatten(0, 1), batch.ys.flatten())

    def tally(self):
        return InstanceTally.of(OneHot(2), self.device)


def weights_of(learner: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in learner.parameters()]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
