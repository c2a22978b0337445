"""Shankar & Sarawagi 2018, table 4: few-shot learning over one space of more than four thousand labels.

The label space and the order in which its images come are told in `lib/tasks/online_images.py`; the 256 numbers of the
embedding, the images and the order are the same for all rows, so that methods differ in their memory and in how this
trains the embedding. The paper compares with Kaiser et al.'s own network and training. Each run also scores the other
memory on its embedding, which tells the two apart.

LMN here is equation 3 alone. It is trained as Kaiser et al. train theirs: a memory of all training labels goes along,
the loss of an image is -log s_ty, through h_t, and then the image is written.

In the order `passes` 1-shot learning asks for one cell a label, which both memories have in any size: they answer alike
on one embedding. The paper's 1-shot accuracies do depend on the size, so its memories must have held more by then; it
does not say what. The order `mixed` fills them more.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lib import ledger
from lib.baselines import kaiser
from lib.baselines.convnet import ConvNet, ConvNetConfig
from lib.baselines.maml_fewshot import FewShotMAML, FewShotMAMLConfig
from lib.config import to_dict
from lib.data import load_characters
from lib.data.store import Characters
from lib.experiments import lmn_image_tables as tables
from lib.experiments import omniglot, runs
from lib.experiments.base import Experiment, RunOptions
from lib.experiments.lmn_omniglot import COSTS
from lib.experiments.lmn_table1 import PAPER
from lib.memory import labelled_scan
from lib.memory.labelled import updated
from lib.methods.lmn import LMNConfig
from lib.tasks.online_images import FewShotConfig, FewShotLabels, LabelledImages, Stream
from lib.tasks.online_tasks import EmbeddingTask
from lib.training import TrainingConfig, pick_device

NAME = "lmn.table4"
EVALUATION_SEED = 0  # the same test streams for every method and seed
ORDERS = ("passes", "mixed")
CELLS = (2, 3, 5)  # of a label
EMBEDDED_AT_ONCE = 256  # images


@dataclass(frozen=True)
class KaiserConfig:
    """The memory of Kaiser et al. 2017."""

    cells: int = 2
    """Slots for each label of the space."""
    margin: float = 0.1
    """α of its loss (Kaiser et al.: 0.1)."""


@dataclass(frozen=True)
class FewShotRowConfig:
    """One row: what finds labels again, the embedding, its training and the label space."""

    memory: LMNConfig | KaiserConfig | FewShotMAMLConfig
    training: TrainingConfig
    network: ConvNetConfig = field(default_factory=lambda: ConvNetConfig(labels=0, width=256))
    """The embedding (Kaiser et al.: 256 numbers)."""
    labels: FewShotConfig = field(default_factory=FewShotConfig)
    training_cells: int = 2
    """Cells or slots of a training label while the embedding is trained, whatever the row's number of cells."""
    repetitions: int = 1
    """Orders of the test stream."""


KINDS = {LMNConfig: "lmn", KaiserConfig: "kaiser", FewShotMAMLConfig: "maml"}


class LMNEmbedding(nn.Module):
    """A network of images that learns by -log s_ty; the memory of the training labels is kept with its weights."""

    def __init__(self, network: ConvNetConfig, labels: int, config: LMNConfig):
        super().__init__()
        self.network, self.config = ConvNet(network), config
        self.register_buffer("vectors", torch.zeros(labels, config.cells, self.network.hidden_size))
        self.register_buffer("weights", torch.zeros(labels, config.cells))
        self.register_buffer("count", torch.zeros(labels, dtype=torch.int64))

    def embed(self, xs: Float[Tensor, "batch 784"]) -> Float[Tensor, "batch width"]:
        """h_t of images."""
        return self.network.embed(xs)

    def forward(
        self, xs: Float[Tensor, "batch 784"], ys: Int[Tensor, " batch"], unroll: Any = None
    ) -> Float[Tensor, "batch two"]:
        """-log s_ty of each image whose label is in memory, 0 of the others, and 1 where its label was found; in
        training the images are then written, so their labels must differ. `unroll` is for learners with several forms.
        """
        config, hs = self.config, self.embed(xs)
        # A write makes new tensors, so that the gradient finds the old ones.
        vectors, weights, count = self.vectors, self.weights, self.count
        products = labelled_scan.products_of(vectors)
        found = labelled_scan.evidence(hs, vectors, products, weights, count, config.sharpness, config.strength)
        own = found.gather(0, ys.unsqueeze(0)).squeeze(0)
        known = count[ys] > 0
        loss = torch.where(known, found.logsumexp(0) - own, 0.0) if bool(known.any()) else 0.0 * hs.sum(1)
        best_other = found.detach().scatter(0, ys.unsqueeze(0), -torch.inf).amax(0)
        right = own.detach() > best_other
        if self.training:
            self._write(hs.detach(), ys, ~(own.detach() - best_other >= config.margin), ~right & known)
        return torch.stack([loss, right.to(loss)], dim=1)

    def _write(self, hs: Tensor, ys: Tensor, with_loss: Tensor, wrong: Tensor) -> None:
        ys, count = ys[with_loss], self.count[ys[with_loss]].clamp(min=1)
        vectors, weights, replaced = updated(
            hs[with_loss], self.vectors[ys], self.weights[ys], count, wrong[with_loss], self.config.decay, 1.0
        )
        self.vectors = self.vectors.index_copy(0, ys, vectors)
        self.weights = self.weights.index_copy(0, ys, weights)
        self.count = self.count.index_copy(0, ys, torch.maximum(count, replaced + 1))


def make_learner(config: FewShotRowConfig, labels: int) -> nn.Module:
    """What is trained on so many labels, with fresh weights from PyTorch's global generator."""
    memory = config.memory
    if isinstance(memory, KaiserConfig):
        return kaiser.KaiserEmbedding(config.network, labels, config.training_cells, memory.margin)
    if isinstance(memory, FewShotMAMLConfig):
        return FewShotMAML(config.network, memory)
    return LMNEmbedding(config.network, labels, replace(memory, cells=config.training_cells))


def _row(memory: LMNConfig | KaiserConfig | FewShotMAMLConfig, batch_size: int = 64) -> FewShotRowConfig:
    training = TrainingConfig(
        updates=20_000,
        batch_size=batch_size,
        learning_rate=1e-3,
        optimizer="adam",
        rate_falls_from=0.5,
        log_every=100,
        checkpoint_every=500,
        validate_every=5_000,
        validation_batches=5,
    )
    return FewShotRowConfig(memory, training)


LMN_SETTINGS = LMNConfig(margin=5.0, sharpness=20.0, strength=0.0, theta=1.0)
CONFIGS = {
    **{f"kaiser-{cells}cell": _row(KaiserConfig(cells)) for cells in CELLS},
    **{f"lmn-{cells}cell": _row(replace(LMN_SETTINGS, cells=cells)) for cells in CELLS},
    "maml": _row(FewShotMAMLConfig(), batch_size=128),
}


def in_profile(paper: FewShotRowConfig, profile: str) -> FewShotRowConfig:
    """A config of the paper profile, cut down to another."""
    if profile == "paper":
        return paper
    if profile == "short":
        updates = 1_600 if isinstance(paper.memory, FewShotMAMLConfig) else 3_000
        return replace(paper, training=replace(paper.training, updates=updates, validate_every=updates // 2))
    few = {"updates": 20, "batch_size": 16, "log_every": 10, "checkpoint_every": 10, "validate_every": 20}
    labels = replace(paper.labels, test_characters=200, mixed=5)
    return replace(paper, training=replace(paper.training, **few, validation_batches=1), labels=labels)


def memories(config: FewShotRowConfig) -> dict[str, Callable]:
    """By name, what answers (hidden, ys, labels) online: the row's own, and the other memory for comparison."""
    memory = config.memory
    lmn = memory if isinstance(memory, LMNConfig) else replace(LMN_SETTINGS, cells=memory.cells)
    labelled = partial(
        labelled_scan.answer_online,
        cells=lmn.cells,
        margin=lmn.margin,
        decay=lmn.decay,
        sharpness=lmn.sharpness,
        strength=lmn.strength,
    )
    return {"kaiser": lambda hs, ys, labels: kaiser.answer_online(hs, ys, lmn.cells * labels), "lmn": labelled}


@torch.no_grad()
def scores(
    labels: FewShotLabels, learner: nn.Module, answers: dict[str, Callable], part: str, order: str, repetitions: int
) -> dict[str, dict[str, Any]]:
    """Of each memory: accuracy of k-shot learning, k = 1, 2, 3, on the (k+1)-th drawing of each label; with counts."""
    learner.eval()
    count = labels.count[part]
    hits = {name: [] for name in answers}
    for repetition in range(repetitions):
        stream = labels.stream(part, order, EVALUATION_SEED + repetition)
        at_once = zip(stream.ys.split(EMBEDDED_AT_ONCE), stream.drawings.split(EMBEDDED_AT_ONCE), strict=True)
        hidden = torch.cat([learner.embed(labels.draw(part, *some)) for some in at_once])
        for name, answer in answers.items():
            right = answer(hidden, stream.ys, count)
            hits[name].append([int(right[stream.occurrence == k + 1].sum()) for k in range(1, labels.config.passes)])
    return {name: _summary(each, count) for name, each in hits.items()}


def maml_scores(labels: FewShotLabels, learner: FewShotMAML, part: str, repetitions: int) -> dict[str, Any]:
    """As `scores`, of MAML, which is shown k passes at once and then asked for the next one."""
    learner.eval()
    count, hits = labels.count[part], []
    for repetition in range(repetitions):
        stream = labels.stream(part, "passes", EVALUATION_SEED + repetition)

        def images(chosen: Bool[Tensor, " time"], stream: Stream = stream) -> tuple[Tensor, Tensor]:
            return labels.draw(part, stream.ys[chosen], stream.drawings[chosen]), stream.ys[chosen]

        hits.append([])
        for k in range(1, labels.config.passes):
            shown, asked = images(stream.occurrence <= k), images(stream.occurrence == k + 1)
            hits[-1].append(int(learner.answer(shown, asked, count).sum()))
    return _summary(hits, count)


def _summary(hits: list[list[int]], count: int) -> dict[str, Any]:
    """hits: of each repetition, by k; count: how many could be right."""
    total = [sum(each) for each in zip(*hits, strict=True)]
    return {
        "accuracy": [each / (len(hits) * count) for each in total],
        "hits": total,
        "counts": [len(hits) * count] * len(total),
        "by_repetition": [[each / count for each in own] for own in hits],
    }


def test_scores(config: FewShotRowConfig, labels: FewShotLabels, learner: nn.Module) -> dict[str, Any]:
    """The row's accuracies on the test labels, pass by pass; and of each memory in both orders, and on validation."""
    if isinstance(learner, FewShotMAML):
        found = {
            name: {"maml": maml_scores(labels, learner, part, config.repetitions)}
            for name, part in (("passes", "test"), ("validation", "validation"))
        }
    else:
        answers = memories(config)
        found = {order: scores(labels, learner, answers, "test", order, config.repetitions) for order in ORDERS}
        found["validation"] = scores(labels, learner, answers, "validation", "passes", config.repetitions)
    by_memory = {name: {test: scored[name] for test, scored in found.items()} for name in found["passes"]}
    own = by_memory[KINDS[type(config.memory)]]["passes"]
    return own | {"labels": labels.count["test"], "by_memory": by_memory}


def build_task(config: FewShotRowConfig, labels: FewShotLabels, seed: int) -> EmbeddingTask:
    """Images of the training labels."""
    times = config.labels.passes if isinstance(config.memory, FewShotMAMLConfig) else 1

    def images(seed: int, stream: str) -> LabelledImages:
        return labels.images(times, seed=seed, stream=stream)

    return EmbeddingTask(images(seed, "train"), images(EVALUATION_SEED, "validation"))


@dataclass(frozen=True)
class EmbeddingConfig:
    """All that the training of an embedding depends on."""

    memory: LMNConfig | KaiserConfig | FewShotMAMLConfig
    """With as many cells as in training."""
    training: TrainingConfig
    network: ConvNetConfig
    labels: FewShotConfig


def trained_as(config: FewShotRowConfig) -> tuple[str, EmbeddingConfig]:
    """The name and config under which the embedding of all rows of a memory is trained."""
    memory = config.memory
    if not isinstance(memory, FewShotMAMLConfig):
        memory = replace(memory, cells=config.training_cells)
    return f"{KINDS[type(memory)]}-embedding", EmbeddingConfig(memory, config.training, config.network, config.labels)


def run(variant: str, profile: str, seed: int, options: RunOptions) -> ledger.Record | None:
    """Train an embedding if its memory's is not trained yet; test and record."""
    config, characters = in_profile(CONFIGS[variant], profile), load_characters()
    labels = FewShotLabels(config.labels, characters, pick_device(options.device))
    embedding = runs.Run(
        experiment=NAME,
        variant=variant,
        profile=profile,
        seed=seed,
        options=replace(options, unroll="plain"),
        config=config,
        data={"name": characters.name, "sha256": characters.digest, "is_standin": characters.is_standin},
        task=build_task(config, labels, seed),
        build=lambda: make_learner(config, labels.train_labels),
        test=lambda learner: test_scores(config, labels, learner),
        trained_as=trained_as(config),
    )
    return runs.run_alone(embedding)


def verify(record: ledger.Record, device: str) -> tuple[bool | None, str]:
    """Test committed weights again, see `omniglot.verify_weights`."""
    config, characters = in_profile(CONFIGS[record.variant], record.profile), load_characters()
    labels = FewShotLabels(config.labels, characters, pick_device(device))

    def test(learner: nn.Module, _: Characters) -> dict[str, Any]:
        return test_scores(config, labels, learner)

    return omniglot.verify_weights(record, config, lambda: make_learner(config, labels.train_labels), test, device)


EXPERIMENTS = (
    Experiment(
        name=NAME,
        paper=PAPER,
        title="Few-shot learning over 4492 rotated characters in one label space",
        variants=tuple(CONFIGS),
        run=run,
        config=lambda variant, profile: to_dict(in_profile(CONFIGS[variant], profile)),
        table=tables.table4,
        costs=COSTS,
        wanted=tuple((variant, seed) for seed in range(3) for variant in CONFIGS),
        verify=verify,
    ),
)
