"""The memory of Kaiser, Nachum, Roy & Bengio 2017, «Learning to remember rare events»: keys, values and ages.

| here | there | section 2 |
| --- | --- | --- |
| `keys`, `values` | K, V: unit vectors, and the label of each, -1 for an empty slot | |
| `touched` | A: a slot's age is the number of writes since it was touched | |
| `similarities` | q · K[n]; the nearest slot's value is the answer | |
| `memory_loss` | loss(q, v, M) = [q · K[n_b] - q · K[n_p] + α]_+ | «Memory loss» |
| `written` | the update: a mean of key and query where the answer was right, else the oldest slot | «Memory update» |

Reading notes. The loss takes the nearest slot with the right label and the nearest one with another, among the 256
nearest slots; where none of these has the right label, any slot with it may be taken. The nearest with it is taken
here, so that the number 256 does not matter. Of slots of one age the first is written; the paper takes a random one.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lib.baselines.convnet import ConvNet, ConvNetConfig

BLOCK = 64  # steps whose similarities are computed in one product


class KaiserMemory(NamedTuple):
    """Some slots, the labels they stand for, and when each was last touched."""

    keys: Float[Tensor, "slots width"]
    values: Int[Tensor, " slots"]
    touched: Int[Tensor, " slots"]
    """0 for an empty slot, else the number of the write, from 1."""


def empty_memory(slots: int, width: int, like: Tensor) -> KaiserMemory:
    """A memory that was never written."""
    whole = {"dtype": torch.int64, "device": like.device}
    return KaiserMemory(like.new_zeros(slots, width), torch.full((slots,), -1, **whole), torch.zeros(slots, **whole))


def similarities(queries: Float[Tensor, "queries width"], memory: KaiserMemory) -> Float[Tensor, "queries slots"]:
    """q · K[n], the cosine of each slot; -inf for an empty one. queries: of length 1."""
    return (queries @ memory.keys.T).masked_fill(memory.values < 0, -torch.inf)


def answers(
    similar: Float[Tensor, "queries slots"], memory: KaiserMemory
) -> tuple[Int[Tensor, " queries"], Int[Tensor, " queries"]]:
    """The nearest slot of each query and its label, -1 where the memory is empty."""
    nearest = similar.argmax(1)
    return nearest, memory.values[nearest]


def memory_loss(
    similar: Float[Tensor, "queries slots"], memory: KaiserMemory, ys: Int[Tensor, " queries"], margin: float
) -> Float[Tensor, " queries"]:
    """[q · K[n_b] - q · K[n_p] + α]_+ of each query; 0 where no slot has its label, or none another one."""
    own = memory.values == ys.unsqueeze(1)
    right = similar.masked_fill(~own, -torch.inf).amax(1)
    wrong = similar.masked_fill(own, -torch.inf).amax(1)
    both = torch.isfinite(right) & torch.isfinite(wrong)
    return F.relu(torch.where(both, wrong, 0.0) - torch.where(both, right, 0.0) + margin) * both


@torch.no_grad()
def written(
    memory: KaiserMemory,
    queries: Float[Tensor, "queries width"],
    ys: Int[Tensor, " queries"],
    nearest: Int[Tensor, " queries"],
    right: Bool[Tensor, " queries"],
) -> KaiserMemory:
    """The memory after a write of some queries of different labels at once.

    Where the nearest slot's label was right, its key becomes the mean of itself and the query; the other queries go to
    the oldest slots, one each. nearest, right: of each query.
    """
    keys, values, touched = (part.clone() for part in memory)
    now = touched.max() + 1
    slots = nearest[right]
    keys[slots] = F.normalize(keys[slots] + queries[right], dim=1)
    touched[slots] = now
    oldest = torch.sort(touched, stable=True).indices[: int((~right).sum())]
    keys[oldest], values[oldest], touched[oldest] = queries[~right], ys[~right], now
    return KaiserMemory(keys, values, touched)


@torch.no_grad()
def answer_online(hidden: Float[Tensor, "time width"], ys: Int[Tensor, " time"], slots: int) -> Bool[Tensor, " time"]:
    """Whether the label of each step was found before it was revealed, by a memory that is empty at first.

    hidden: h_t of each step, of any length. The same as a step at a time with the functions above, but the similarities
    of 64 steps come from one product, and those of a slot that is written meanwhile are computed anew.
    """
    queries = F.normalize(hidden, dim=1)
    keys, values, touched = empty_memory(slots, hidden.shape[1], hidden)
    right = torch.zeros(len(ys), dtype=torch.bool, device=ys.device)
    now = 0
    for start in range(0, len(ys), BLOCK):
        ahead = queries[start : start + BLOCK]
        similar = similarities(ahead, KaiserMemory(keys, values, touched))
        for i, y in enumerate(ys[start : start + BLOCK].tolist()):
            now += 1
            slot = int(similar[i].argmax())
            found = int(values[slot]) == y
            right[start + i] = found
            if found:
                keys[slot] = F.normalize(keys[slot] + ahead[i], dim=0)
            else:
                slot = int(touched.argmin())
                keys[slot], values[slot] = ahead[i], y
            touched[slot] = now
            similar[i + 1 :, slot] = ahead[i + 1 :] @ keys[slot]
    return right


class KaiserEmbedding(nn.Module):
    """A network of images that learns by the memory loss; its memory of the training labels is kept with its weights.

    labels: of the training; cells: slots for each of them.
    """

    def __init__(self, network: ConvNetConfig, labels: int, cells: int, margin: float = 0.1):
        super().__init__()
        self.network, self.margin = ConvNet(network), margin
        memory = empty_memory(cells * labels, self.network.hidden_size, torch.zeros(()))
        for name, part in memory._asdict().items():
            self.register_buffer(name, part)

    def embed(self, xs: Float[Tensor, "batch 784"]) -> Float[Tensor, "batch width"]:
        """h_t of images."""
        return self.network.embed(xs)

    def forward(
        self, xs: Float[Tensor, "batch 784"], ys: Int[Tensor, " batch"], unroll: Any = None
    ) -> Float[Tensor, "batch two"]:
        """The loss of each image, and 1 where its label was found; in training the images are then written, so their
        labels must differ. `unroll` is for learners that have several forms."""
        memory = KaiserMemory(self.keys, self.values, self.touched)
        queries = F.normalize(self.embed(xs), dim=1)
        similar = similarities(queries, memory)
        loss = memory_loss(similar, memory, ys, self.margin)
        nearest, found = answers(similar, memory)
        right = found == ys
        if self.training:
            self.keys, self.values, self.touched = written(memory, queries, ys, nearest, right)
        return torch.stack([loss, right.to(loss)], dim=1)
