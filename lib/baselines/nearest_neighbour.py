"""The nearest-neighbour baseline of Santoro et al. 2016: section 4.2, table 2 and supplement 9.1.2.

All images of an episode are kept with their labels; an image takes the label of the nearest kept one, by Euclidean
distance between pixels or between the features that an encoder makes of them. Before anything is kept, the answer is a
random one of the episode's classes. No class but the first to come can then be answered before it was seen, so the
accuracy on first instances is 1/n² for n classes: 4% for 5, 0.4% for 15.

Reading notes. A string label is as good here as the class that bears it. Equal distances: the image seen first is
nearer. For several neighbours, equal votes: the class of the smaller number, as in scikit-learn; numbers are shuffled,
so this favours no character.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from lib.tasks.classification import COUNTED_INSTANCES
from lib.tasks.episodes import EpisodeSampler, instance_numbers
from lib.tasks.seeds import generator


@torch.no_grad()
def knn_accuracy(
    sampler: EpisodeSampler,
    batches: int,
    *,
    encode: Callable[[Tensor], Tensor] | None = None,
    neighbours: int = 1,
    seed: int = 0,
    batch_size: int = 16,
    progress: bool = False,
) -> dict[str, list]:
    """Accuracy by instance on the first `batches` batches of a sampler: nothing is carried between episodes.

    encode: from images (batch, time, 400) to features (batch, time, any); None compares pixels. neighbours: how many
    vote (the paper's best: 1). seed: of the first guesses.

    Returns `accuracy` (0 to 1; None where nothing was counted), `hits` and `counts` for the 1st to the 10th image of a
    class, as `InstanceTally.summary` does; there is no loss, for there are no probabilities.
    """
    classes = sampler.config.classes
    hits, counts = (np.zeros(COUNTED_INSTANCES, np.int64) for _ in range(2))
    for index in tqdm(range(batches), disable=not progress, desc="nearest neighbours", leave=False):
        batch = sampler.batch(index, batch_size)
        features = encode(batch.xs) if encode else batch.xs
        guesses = torch.randint(classes, (batch_size,), generator=generator(seed, "first guess", index))
        members = batch.members.cpu()
        answers = nearest_labels(features.cpu(), members, guesses, classes, neighbours)
        numbers = instance_numbers(members, classes)
        counts += _count(numbers)
        hits += _count(numbers[answers == members])
    accuracy = [h / c if c else None for h, c in zip(hits.tolist(), counts.tolist(), strict=True)]
    return {"accuracy": accuracy, "hits": hits.tolist(), "counts": counts.tolist()}


def nearest_labels(
    features: Float[Tensor, "batch time features"],
    labels: Int[Tensor, "batch time"],
    guesses: Int[Tensor, " batch"],
    classes: int,
    neighbours: int = 1,
) -> Int[Tensor, "batch time"]:
    """The answer at every step: the label that most of the `neighbours` nearest earlier images bear, of all if fewer.

    labels: 0 to classes - 1. guesses: the answers at the first step. Raises ValueError if `neighbours` is not positive.
    """
    from sklearn.metrics import pairwise_distances  # takes a second, and is needed here alone

    if neighbours < 1:
        raise ValueError(f"at least one nearest neighbour must be asked, not {neighbours}; choose 1 for the paper's")
    one_hot = np.eye(classes, dtype=np.int64)[labels.numpy()]
    # All distances of an episode at once; what has not come yet is infinitely far, and has no vote.
    past = np.tri(features.shape[1], k=-1, dtype=bool)
    answers = labels.clone()
    for episode, points in enumerate(features.double().numpy()):
        distances = np.where(past, pairwise_distances(points), np.inf)
        nearest = distances.argsort(axis=1, kind="stable")[:, :neighbours]
        votes = one_hot[episode][nearest] * np.take_along_axis(past, nearest, axis=1)[..., None]
        answers[episode] = torch.from_numpy(votes.sum(axis=1).argmax(axis=1))
    answers[:, 0] = guesses
    return answers


def _count(numbers: Int[Tensor, "*any"]) -> np.ndarray:
    """How many are 1, 2, ... 10."""
    return np.bincount(numbers.flatten().numpy(), minlength=COUNTED_INSTANCES + 1)[1 : COUNTED_INSTANCES + 1]
