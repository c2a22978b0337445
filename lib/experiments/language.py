"""The LSTM of a corpus, which is trained once and then read with in several ways: with a cache, LMN, MbPA."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from lib.baselines.language import LanguageModel, LanguageModelConfig
from lib.data.text import Corpus, load_corpus
from lib.experiments import runs
from lib.experiments.base import RunOptions
from lib.tasks.language import LanguageTask, TextBlocks
from lib.training import TrainingConfig, pick_device


@dataclass(frozen=True)
class Pretraining:
    """All that the LSTM's training depends on, the same for all rows of a corpus."""

    corpus: str
    source: str
    model: LanguageModelConfig
    training: TrainingConfig
    block: int


@dataclass(frozen=True, eq=False)
class Text:
    """A corpus on a device."""

    train: Int[Tensor, " train"]
    validation: Int[Tensor, " validation"]
    test: Int[Tensor, " test"]

    @classmethod
    def of(cls, corpus: Corpus, device: torch.device) -> "Text":
        """The three parts of a corpus."""
        parts = (torch.from_numpy(part.copy()).long() for part in (corpus.train, corpus.validation, corpus.test))
        return cls(*(part.to(device) for part in parts))


def lstm_run(
    experiment: str,
    variant: str,
    profile: str,
    seed: int,
    options: RunOptions,
    config: Any,
    test: Callable[[LanguageModel, Text, runs.Run], dict[str, Any]],
) -> runs.Run:
    """A variant's run, ready to be done: training of its corpus's LSTM, unless that is done, then the variant's test.

    config: says `corpus`, `source`, `model`, `training` and `block`, which is what the LSTM's training depends on.
    test: gets the LSTM, the text and the run, and returns the record's metrics.
    """
    corpus = load_corpus(config.corpus, config.source)
    text = Text.of(corpus, pick_device(options.device))
    words = len(corpus.words)
    model = replace(config.model, words=words, cutoffs=tuple(c for c in config.model.cutoffs if c < words))
    same = Pretraining(config.corpus, config.source, config.model, config.training, config.block)
    run = runs.Run(
        experiment=experiment,
        variant=variant,
        profile=profile,
        seed=seed,
        options=options,
        config=config,
        data={"name": corpus.name, "sha256": corpus.digest, "is_standin": corpus.is_standin},
        task=LanguageTask(TextBlocks(text.train, config.block), TextBlocks(text.validation, config.block)),
        build=lambda: LanguageModel(model, seed),
        test=lambda learner: test(learner, text, run),
        trained_as=(f"{config.corpus}-lstm", same),
    )
    return run
