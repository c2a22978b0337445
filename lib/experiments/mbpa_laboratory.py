"""What the laboratory of MbPA shows: a small network of characters, a language model's memory, the toy of figure 2.

    python -m lib.experiments.mbpa_laboratory images        writes data/traces/mbpa.laboratory/images.json
    python -m lib.experiments.mbpa_laboratory text          .../text.json, by a small LSTM that is trained in minutes
    python -m lib.experiments.mbpa_laboratory text --profile short      by the LSTM of table 2, trained if it is not yet

The characters are class-incremental learning made small: a network learns half of twenty characters, and then a memory
holds a few drawings of all of them. Nothing here is a table of the paper, and nothing is recorded in the ledger.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from jaxtyping import Float, Int
from torch import Tensor, nn

from lib import ledger
from lib.baselines.language import LanguageModel, LanguageModelConfig
from lib.data import load_characters
from lib.data.store import Characters
from lib.data.text import UNKNOWN, Corpus, load_corpus
from lib.experiments import mbpa_language, mbpa_tables, mbpa_toy, runs
from lib.experiments.base import RunOptions
from lib.inspector.episodic import EpisodicTrace, episodic_trace
from lib.inspector.episodic_text import TextTrace, text_trace
from lib.inspector.local_fit import Regression
from lib.memory.episodic import EpisodicMemory
from lib.methods.mbpa import MbPAConfig
from lib.methods.mbpa_text import TextMbPA, TextMbPAConfig
from lib.tasks.images import SIZE, ImageBank
from lib.tasks.language import LanguageTask, TextBlocks
from lib.tasks.seeds import generator
from lib.training import TrainingConfig, train

TRACES = ledger.ROOT / "data" / "traces" / "mbpa.laboratory"


@dataclass(frozen=True)
class CharactersConfig:
    """The network of characters and its memory."""

    known: int = 10
    """Classes that the network learns."""
    new: int = 10
    """Classes that are in memory alone."""
    drawings: int = 12
    """Of each known class, to learn it from; twenty people have drawn each character."""
    remembered: int = 6
    """Drawings of every class in memory, by people whose drawings of known classes the network has learnt from."""
    width: int = 32
    """Of the keys."""
    updates: int = 300
    """Of the network, by Adam on minibatches of 64, each drawing rotated and shifted a little."""
    learning_rate: float = 3e-3
    fit: MbPAConfig = MbPAConfig(neighbours=20, steps=5, rate=0.2)
    """What is shown first."""


class Embedding(nn.Sequential):
    """f_γ: two convolutions and a layer of tanh units."""

    def __init__(self, width: int):
        halving = nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()
        super().__init__(*halving, nn.Flatten(), nn.Linear(32 * (SIZE // 4) ** 2, width), nn.Tanh())

    def forward(self, images: Float[Tensor, "n 400"]) -> Float[Tensor, "n width"]:
        """Keys of flat images of 20 x 20 pixels."""
        return super().forward(images.view(-1, 1, SIZE, SIZE))


def trained_on_half(config: CharactersConfig, bank: ImageBank, seed: int) -> tuple[Embedding, nn.Linear]:
    """f_γ and g_θ, which have learnt the bank's first classes. The weights of the other classes are as they were drawn:
    in training, the softmax is over the known classes alone."""
    classes = config.known + config.new
    embed, output = runs.fresh(lambda: nn.ModuleList([Embedding(config.width), nn.Linear(config.width, classes)]), seed)
    optimizer = torch.optim.Adam([*embed.parameters(), *output.parameters()], lr=config.learning_rate)
    for update in range(config.updates):
        random = generator(seed, "laboratory training", update)
        labels = torch.randint(config.known, (64,), generator=random)
        drawings = torch.randint(config.drawings, (64,), generator=random)
        angles = (2 * torch.rand(64, generator=random) - 1) * 0.2
        shifts = (2 * torch.rand(64, 2, generator=random) - 1) * 10
        images = bank.draw(labels, drawings, angles=angles, shifts=shifts)
        loss = F.cross_entropy(output(embed(images))[:, : config.known], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return embed, output


@torch.no_grad()
def characters_trace(
    seed: int = 0, config: CharactersConfig | None = None, characters: Characters | None = None
) -> EpisodicTrace:
    """Train, fill the memory, and ask about one drawing of each class, the first by a person whom neither the network
    nor the memory has seen. Takes some seconds."""
    config, characters = config or CharactersConfig(), characters or load_characters()
    count = config.known + config.new
    chosen = torch.randperm(len(characters), generator=generator(seed, "laboratory characters", 0))[:count].tolist()
    bank = ImageBank(characters.images(chosen))
    with torch.enable_grad():
        embed, output = trained_on_half(config, bank, seed)
    classes = torch.arange(count)
    values, drawings = classes.repeat_interleave(config.remembered), torch.arange(config.remembered).repeat(count)
    held = bank.draw(values, drawings)
    memory = EpisodicMemory(len(values), config.width, like=held)
    memory.append(embed(held), values)
    asked = bank.draw(classes, torch.full_like(classes, config.drawings))

    def pixels(images: Tensor) -> np.ndarray:
        return (255 * images).round().byte().view(-1, SIZE, SIZE).numpy()

    return episodic_trace(
        memory.keys,
        memory.values,
        pixels(held),
        output,
        embed(asked),
        classes,
        pixels(asked),
        names=[short_name(characters.class_names[index]) for index in chosen],
        config=config.fit,
        known=range(config.known),
        title="MbPA on characters, half of them new",
        note=(
            f"Data: {characters.name}. The network was trained on {config.known} characters; {config.remembered} "
            f"drawings of each of {count} are in memory. Every query is by another person. Seed {seed}."
        ),
    )


def short_name(name: str) -> str:
    """«Greek 3» for `Greek/character03`, without what is in parentheses."""
    alphabet, _, character = name.partition("/character")
    return f"{alphabet.partition('_(')[0].replace('_', ' ')} {int(character)}" if character else name


def regressions(seed: int = 0) -> dict[str, Regression]:
    """The toy of `mbpa.figure2`, both changes of the function, each with the setting that its record chose for MbPA.

    The networks are trained anew, in some seconds. Without a record, with the defaults of T and α there.
    """
    found = {}
    grid = torch.linspace(-mbpa_toy.EDGE, mbpa_toy.EDGE, mbpa_toy.GRID)
    for variant, config in mbpa_toy.CONFIGS.items():
        record = ledger.best_record(mbpa_tables.FIGURE2, variant)
        chosen = record.metrics["setting"]["mbpa"] if record else {"neighbours": 4, "steps": 20, "rate": 0.03}
        truth = torch.stack([grid, mbpa_toy.after(grid, config)]).numpy()
        network, memory = mbpa_toy.trained_network(config, seed), mbpa_toy.make_memory(config, seed)
        found[variant] = Regression(network, memory, truth, MbPAConfig(**chosen))
    return found


@dataclass(frozen=True)
class TextConfig:
    """A language model that is trained in minutes, and where it is asked. The words that came least often in training
    are one, <unk>."""

    words: int = 6_000
    """Words, the most frequent of the text."""
    training_words: int = 500_000
    """Of the text, from its first on."""
    model: LanguageModelConfig = LanguageModelConfig(embedding=100, hidden=200, dropout=0.2, tied=True)
    """Its `words` are replaced by those of the text."""
    training: TrainingConfig = TrainingConfig(
        updates=1_500,
        batch_size=20,
        learning_rate=5e-3,
        clip=1.0,
        log_every=250,
        validate_every=1_500,
        validation_batches=20,
        checkpoint_every=1_500,
        optimizer="adam",
        wipe_memory=False,
        rate_falls_from=0.4,
    )
    block: int = 35
    read: int = 4_000
    """Words of validation text that are read, of which the memory keeps the last 2000."""
    asked: int = 10
    """Places at equal distances in the second half of them; to these come the two whose word the fit made more
    probable by most bits, and the two whose word lost most."""
    memory: int = 2_000
    neighbours: tuple[int, ...] = (8, 64, 256)
    steps: tuple[int, ...] = (1, 5, 10)
    """T to choose from (paper: 1), of gradient descent; table 2 chose from 1 to 10, too."""
    rates: tuple[float, ...] = (0.05, 0.15, 0.5)
    """α to choose from (paper: 0.15)."""


def small_language_model(
    config: TextConfig, corpus: Corpus, seed: int
) -> tuple[LanguageModel, Int[Tensor, " words"], tuple[str, ...]]:
    """Trained in some minutes; the validation text and the names of its words, as the model knows them."""
    count = min(config.words, len(corpus.words))
    unknown = corpus.words.index(UNKNOWN) if UNKNOWN in corpus.words[:count] else count - 1

    def known(tokens: np.ndarray) -> Tensor:
        return torch.from_numpy(np.where(tokens < count, tokens, unknown).astype(np.int64))

    text = known(corpus.train[: config.training_words]), known(corpus.validation)
    task = LanguageTask(*(TextBlocks(part, config.block) for part in text))
    model = runs.fresh(lambda: LanguageModel(replace(config.model, words=count), seed), seed)
    with tempfile.TemporaryDirectory() as folder:
        train(model, task, config.training, folder=Path(folder), unroll="plain")
    return model.eval(), text[1], corpus.words[:count]


def language_model_of_table2(
    profile: str, seed: int, options: RunOptions
) -> tuple[LanguageModel, Int[Tensor, " words"], tuple[str, ...]]:
    """The LSTM of `mbpa.table2` for WikiText-2, trained if it is not yet, with what `small_language_model` gives."""
    run = mbpa_language.pretraining("wikitext-2", profile, seed, replace(options, unroll="plain"))
    folder = run.in_progress.parent
    train(run.learner, run.task, run.config.training, folder=folder, identity=run.identity, **run.training_options())
    return run.learner.eval(), run.task.validation.tokens, load_corpus("wikitext-2", run.config.source).words


def language_trace(
    model: LanguageModel, tokens: Int[Tensor, " words"], names: Sequence[str], config: TextConfig, note: str
) -> TextTrace:
    """Read a text with its last words in memory, and ask at some places."""
    fit = MbPAConfig(neighbours=config.neighbours[-1], steps=config.steps[0], rate=config.rates[1])
    mbpa = TextMbPA(model, model.softmax, TextMbPAConfig(fit, size=config.memory))
    tokens = tokens[: config.read]
    parts, _ = mbpa.parts(tokens[None, :-1], tokens[None, 1:])
    bits = (parts.fitted - parts.network)[0].cpu() / np.log(2)
    first = config.read // 2
    even = torch.linspace(first, len(tokens) - 2, config.asked).long().tolist()
    order = first + bits[first:].argsort(descending=True)
    reasons = dict.fromkeys(order[:2].tolist(), "Gained most of all words")
    reasons |= dict.fromkeys(order[-2:].tolist(), "Lost most of all words")
    positions = sorted({*even, *reasons})
    everywhere = bits[first:].mean().item()
    return text_trace(
        mbpa,
        tokens,
        positions,
        names=names,
        neighbours=config.neighbours,
        steps=config.steps,
        rates=config.rates,
        why=[f"{reasons.get(t, 'One of some at equal distances')}: word {t + 1}" for t in positions],
        title="MbPA on a text",
        note=(
            f"{note} Over all {len(tokens) - 1 - first} words from word {first + 1} on, a fit with "
            f"K = {fit.neighbours}, T = {fit.steps}, α = {fit.rate:g} changes the likelihood by {everywhere:+.3f} bits "
            "a word."
        ),
    )


@dataclass(frozen=True)
class Images:
    """The trace of the characters."""

    seed: int = 0

    def record(self) -> Path:
        """Train and write."""
        return characters_trace(self.seed).save(TRACES / "images.json")


@dataclass(frozen=True)
class Text:
    """The trace of WikiText-2 (its text is under CC BY-SA)."""

    profile: Literal["small", "short", "paper"] = "small"
    """Which language model: a small one, or that of table 2 at a profile."""
    seed: int = 0
    runs: Path = ledger.ROOT / "runs"
    """Where table 2's is, or is trained."""
    minutes: float | None = None
    """Stop training table 2's after so many minutes, and record what it is by then."""

    def record(self) -> Path:
        """Train and write."""
        corpus, config = load_corpus("wikitext-2"), TextConfig()
        if self.profile == "small":
            model, tokens, names = small_language_model(config, corpus, self.seed)
            trained = f"on {min(config.training_words, len(corpus.train))} words, {config.training.updates} updates"
        else:
            options = RunOptions(runs=self.runs, minutes=self.minutes)
            model, tokens, names = language_model_of_table2(self.profile, self.seed, options)
            trained = f"for table 2, {self.profile} profile"
        note = (
            f"Validation text of {corpus.name}; an LSTM of {model.config.hidden} units and {len(names)} words, trained "
            f"{trained}, seed {self.seed}."
        )
        return language_trace(model, tokens, names, config, note).save(TRACES / "text.json")


if __name__ == "__main__":
    Recording = Annotated[Images, tyro.conf.subcommand("images")] | Annotated[Text, tyro.conf.subcommand("text")]
    print(tyro.cli(Recording, description=__doc__).record())
