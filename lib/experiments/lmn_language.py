"""Shankar & Sarawagi 2018, table 5: language models with a memory, on WikiText-2 and text8.

All rows of a corpus share one LSTM, which is trained once: the neural cache, LMN with a constant weight of the memory
(LMN-fixed) and LMN adapt it while they read the test text, and leave its weights as they are. A method's settings are
chosen on validation text, as many tried for either method; LMN takes those of LMN-fixed, and its combiner is trained on
training text.

A text is read as some streams side by side, each with a memory of its own, that goes on from one block to the next.
What the paper leaves open is told in the configs' fields. Its pointer sentinel LSTM (Merity et al. 2016) is shown, not
run.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from lib import ledger
from lib.baselines.language import LanguageModel, LanguageModelConfig
from lib.baselines.neural_cache import CacheConfig, NeuralCache
from lib.config import added, to_dict
from lib.experiments import lmn_language_tables as tables
from lib.experiments import runs
from lib.experiments.base import Experiment, RunOptions
from lib.experiments.language import Text, lstm_run
from lib.experiments.lmn_language_tables import CORPORA, METHODS, NAME
from lib.experiments.lmn_sequence_tables import ALWAYS
from lib.experiments.lmn_table1 import PAPER
from lib.methods.lmn import LMN, LMNConfig, LMNState
from lib.tasks.language import LanguageTask, TextBlocks, side_by_side
from lib.training import TrainingConfig, train

READ = 100  # words of a block when a text is read to be scored; no result depends on it
# What is tried was laid out around what did best on the first 3 000 words of the validation text of text8's stand-in.
CACHE_TRIALS = tuple(
    {"share": share, "sharpness": sharpness} for sharpness in (0.3, 0.6) for share in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
)
LMN_START = {"theta": 0.3, "sharpness": 7.0, "strength": 1.0, "margin": 1.0, "evict": "oldest"}
LMN_TRIALS = (
    {},
    {"sharpness": 10.0},
    {"sharpness": 5.0},
    {"strength": 0.75},
    {"strength": 1.25},
    {"margin": 0.0},
    {"margin": 3.0},
    {"evict": "least"},
    {"theta": 0.2},
    {"theta": 0.4},
    {"theta": 0.1},
    {"sharpness": 14.0},
)


@dataclass(frozen=True)
class LanguageConfig:
    """One row of table 5 on one corpus; the defaults are the paper profile's for WikiText-2."""

    method: Literal["lstm", "cache", "lmn-fixed", "lmn-always", "lmn"]
    """What reads the test text; `lmn-always` is LMN-fixed with its chosen settings, but each word is written."""
    corpus: Literal["wikitext-2", "text8"] = "wikitext-2"
    """Which text; its number of words replaces the model's."""
    source: Literal["auto", "stand-in"] = "auto"
    """`stand-in`: made-up text, whatever is at hand."""
    memory: int = 100
    """Steps that the cache looks back, and cells of LMN's memory (paper: 100 for WikiText-2, 2000 for text8)."""
    model: LanguageModelConfig = field(default_factory=LanguageModelConfig)
    """The LSTM (paper: as in Grave, Joulin & Usunier 2016)."""
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            updates=139_000,
            batch_size=20,
            learning_rate=1e-3,
            clip=1.0,
            log_every=500,
            validate_every=3_500,
            validation_batches=450,
            checkpoint_every=500,
            optimizer="adam",
            wipe_memory=False,
            rate_falls_from=0.5,
        )
    )
    """Of the LSTM: 40 times through WikiText-2 (paper: plain gradient descent, nothing else is said)."""
    block: int = 30
    """Words through which the gradient passes when the LSTM is trained (Grave et al.: 30)."""
    tuning_words: int = 100_000
    """Words of validation text, from its first on, on which the settings are chosen."""
    trials: int = 12
    """Settings that are tried there, of either method."""
    streams: int = 1
    """Into how many streams the text is cut to be scored; each has the whole `memory` (paper: silent, presumably 1)."""
    tuning_streams: int = added(1)
    """Into how many streams that text is cut. Long ones: a memory may do well while it fills and then stand still, as
    LMN's does if `evict` is `least` and frequent words have gathered all the weight."""
    combiner: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            updates=1_000,
            batch_size=8,
            learning_rate=3e-3,
            clip=1.0,
            log_every=50,
            validate_every=1_000,
            validation_batches=1,
            optimizer="adam",
            wipe_memory=False,
            rate_falls_from=0.5,
        )
    )
    """Of LMN's combiner; the rows of a minibatch are streams that go on, with their memories (paper: silent). It is not
    resumed, so that `checkpoint_every` has no effect."""
    combiner_block: int = 60
    """Words through which the gradient passes when the combiner is trained (paper: silent)."""


VARIANTS = tuple(f"{corpus}-{method}" for corpus in CORPORA for method in METHODS)


def config_of(variant: str, profile: str) -> LanguageConfig:
    """The config of a variant such as `wikitext-2-cache`."""
    corpus, method = next((c, variant.removeprefix(f"{c}-")) for c in CORPORA if variant.startswith(f"{c}-"))
    paper = LanguageConfig(method, corpus)
    # Without the adaptive softmax, nine tenths of the time would be spent on the scores of 33 278 words.
    small = {"embedding": 200, "hidden": 200, "dropout": 0.2, "cutoffs": (2_000, 10_000), "narrower": 2.0}
    if corpus == "text8":
        large = replace(paper.model, words=44_000, dropout=0.25, cutoffs=(2_000, 10_000))
        paper = replace(paper, memory=2_000, model=large, training=replace(paper.training, updates=300_000))
    if profile == "paper":
        return paper
    if profile == "short":
        training = replace(paper.training, learning_rate=2e-3, log_every=250, checkpoint_every=250)
        training = replace(training, validate_every=1_500, validation_batches=50, rate_falls_from=0.4)
        return replace(
            paper,
            model=replace(paper.model, **small),
            training=replace(training, updates=12_000 if corpus == "wikitext-2" else 4_000),
            tuning_words=10_000 if corpus == "wikitext-2" else 8_000,
            streams=10 if corpus == "wikitext-2" else 1,
            combiner=replace(
                paper.combiner,
                updates=200,
                batch_size=8 if corpus == "wikitext-2" else 4,
                log_every=10,
                validate_every=200,
                checkpoint_every=10,
            ),
        )
    few = {"log_every": 5, "validate_every": 10, "validation_batches": 1, "checkpoint_every": 5}
    return replace(
        paper,
        source="stand-in",
        memory=50,
        model=replace(paper.model, **small | {"embedding": 20, "hidden": 20, "cutoffs": (200,)}),
        training=replace(paper.training, learning_rate=1e-2, updates=40, **few),
        tuning_words=400,
        trials=2,
        tuning_streams=10,
        streams=10,
        combiner=replace(paper.combiner, updates=5, **few | {"validate_every": 5}),
        combiner_block=10,
    )


def config(variant: str, profile: str) -> dict[str, Any]:
    """What determines a run besides seed and data."""
    return to_dict(config_of(variant, profile))


class TextLMN(LMN):
    """LMN on a text that is read block by block: memory and combiner go on, the gradient ends at a block's border."""

    def episode(
        self, xs: Int[Tensor, "batch time"], ys: Int[Tensor, "batch time"], carried: Any = None, unroll: Any = None
    ) -> tuple[Float[Tensor, "batch time"], Any]:
        """A block of each stream: log-likelihood of what came true, in nats, and what to go on with. `unroll` is
        ignored."""
        if carried is None:
            self.begin(len(xs))
        else:
            self.memory, self.state = carried
        with torch.no_grad():
            hidden, network_state = self.network.hidden(xs, self.state.network)
        log_likelihoods = []
        for now, y in zip(hidden.unbind(1), ys.unbind(1), strict=True):
            step = self._step(now, network_state)
            log_likelihoods.append(self._log_likelihood(step, y))
            self._reveal(step, y)
        return torch.stack(log_likelihoods, 1), (self.memory, self.state)

    def carry_over(self, carried: tuple[Any, LMNState]) -> tuple[Any, LMNState]:
        """What the next block goes on with."""
        memory, state = carried
        return memory, state._replace(mu=state.mu.detach())


@torch.no_grad()
def mean_loss(learner: Any, tokens: Int[Tensor, " words"], streams: int, progress: str = "") -> float:
    """Mean negative log-likelihood of a text's words, in nats, read from a fresh start as so many streams.

    learner: has `episode`, which gives the log-likelihoods of a block. progress: what the bar says; none if empty.
    """
    xs, ys = side_by_side(tokens, streams)
    learner.eval()
    carried, total = None, torch.zeros((), dtype=torch.float64, device=tokens.device)
    blocks = list(zip(xs.split(READ, 1), ys.split(READ, 1), strict=True))
    for x, y in tqdm(blocks, desc=progress, disable=not progress, leave=False, unit="block", dynamic_ncols=True):
        log_likelihood, carried = learner.episode(x, y, carried)
        total -= log_likelihood.double().sum()
    return total.item() / xs.numel()


def tune(
    start: dict[str, Any], trials: Sequence[dict[str, Any]], loss: Callable[[dict[str, Any]], float]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Try one change after the other, each of the best setting so far, and keep it if it does better.

    Returns the best setting, and each that was tried with its validation perplexity.
    """
    best, least, tried = start, math.inf, []
    for change in trials:
        setting = best | change
        found = loss(setting)
        tried.append({"setting": setting, "validation_perplexity": math.exp(found)})
        if found < least:
            best, least = setting, found
    return best, tried


@dataclass(frozen=True, eq=False)
class Reading:
    """What a trained LSTM and the memories beside it are tested with."""

    config: LanguageConfig
    text: Text
    seed: int
    progress: bool
    tuned_before: Callable[[], ledger.Record | None] = lambda: None
    """The record of LMN-fixed on the same LSTM, whose settings are then not chosen anew."""

    def cache(self, model: LanguageModel, setting: dict[str, Any]) -> NeuralCache:
        """The neural cache in a setting."""
        return NeuralCache(model, CacheConfig(self.config.memory, **setting))

    def lmn(self, model: LanguageModel, setting: dict[str, Any]) -> TextLMN:
        """LMN in a setting; without `theta`, with a combiner."""
        build = LMNConfig(budget=self.config.memory, **setting)
        return runs.fresh(lambda: TextLMN(model, build), self.seed).to(self.text.test.device)

    def tuned(self, start: dict, trials: Sequence[dict], build: Callable[[dict], Any]) -> tuple[dict, list[dict]]:
        """`tune` on the first words of the validation text."""
        tokens, streams = self.text.validation[: self.config.tuning_words], self.config.tuning_streams
        progress = "tuning" if self.progress else ""
        trials = trials[: self.config.trials]
        return tune(start, trials, lambda setting: mean_loss(build(setting), tokens, streams, progress))

    def metrics(self, model: LanguageModel) -> dict[str, Any]:
        """Test perplexity of the config's method, with what was tried to get there."""
        found: dict[str, Any] = {}
        learner: Any = model
        method, started = self.config.method, time.monotonic()
        if method == "cache":
            setting, tried = self.tuned({}, CACHE_TRIALS, lambda setting: self.cache(model, setting))
            learner, found = self.cache(model, setting), {"setting": setting, "tuning": tried}
        elif method != "lstm":
            record = None if method == "lmn-fixed" else self.tuned_before()
            if record:
                setting, tried = record.metrics["setting"], record.metrics["tuning"]
            else:
                setting, tried = self.tuned(LMN_START, LMN_TRIALS, lambda setting: self.lmn(model, setting))
            if method == "lmn":
                setting = {key: value for key, value in setting.items() if key != "theta"}
            elif method == "lmn-always":
                setting = setting | {"margin": ALWAYS}
            learner, found = self.lmn(model, setting), {"setting": setting, "tuning": tried}
            if method == "lmn":
                found["combiner"] = self.train_combiner(learner)
        tuned = time.monotonic()
        loss = mean_loss(learner, self.text.test, self.config.streams, "testing" if self.progress else "")
        words = side_by_side(self.text.test, self.config.streams)[0].numel()
        seconds = {"tuning": tuned - started, "test": time.monotonic() - tuned}
        return {"perplexity": math.exp(loss), "log_perplexity": loss, "words": words, "seconds": seconds, **found}

    def train_combiner(self, learner: TextLMN) -> dict[str, Any]:
        """Train LMN's combiner on the training text; returns its curve. It takes minutes, and is not resumed."""
        config = self.config
        blocks = TextBlocks(self.text.train, config.combiner_block)
        task = LanguageTask(blocks, TextBlocks(self.text.validation, config.combiner_block))
        result = train(learner, task, config.combiner, unroll="plain", progress=self.progress)
        return {"seconds": result.seconds, **runs.curve_of(result.log)}


def pretraining(variant: str, profile: str, seed: int, options: RunOptions) -> runs.Run:
    """A variant's run, ready to be done: training of the LSTM, then the variant's own test.

    `lib.training.train` with its learner, task and identity is what trains the LSTM of a corpus, profile and seed, once
    for all variants; see `pretrained`.
    """

    def test(model: LanguageModel, text: Text, run: runs.Run) -> dict[str, Any]:
        def tuned_before() -> ledger.Record | None:
            record = ledger.find_record(NAME, f"{run.config.corpus}-lmn-fixed", profile, seed)
            as_now = json.loads(json.dumps(to_dict(replace(run.config, method="lmn-fixed"))))
            return record if record and record.complete and (record.config, record.data) == (as_now, run.data) else None

        return Reading(run.config, text, seed, options.progress, tuned_before).metrics(model)

    return lstm_run(NAME, variant, profile, seed, options, config_of(variant, profile), test)


def pretrained(corpus: str, profile: str, seed: int, options: RunOptions) -> LanguageModel:
    """The LSTM of a corpus, trained as far as `options` allow, or as it lies in their folder of runs."""
    run = pretraining(f"{corpus}-lstm", profile, seed, replace(options, unroll="plain"))
    folder = run.in_progress.parent
    train(run.learner, run.task, run.config.training, folder=folder, identity=run.identity, **run.training_options())
    return run.learner


def run(variant: str, profile: str, seed: int, options: RunOptions) -> ledger.Record | None:
    """Train the LSTM unless that is done, test the variant's method, and record it."""
    options = replace(options, unroll="plain", keep_checkpoint=False)  # 37 MB of weights: not for a repository
    return runs.run_alone(pretraining(variant, profile, seed, options))


EXPERIMENTS = (
    Experiment(
        name=NAME,
        paper=PAPER,
        title="Language modelling with a memory of 100 (WikiText-2) and of 2000 (text8): perplexity",
        variants=VARIANTS,
        run=run,
        config=config,
        table=tables.table5,
        costs={
            "smoke": "under 20 s",
            "short": "20 to 60 min for WikiText-2's LSTM, which four rows share; 10 for the stand-in's; 10 a memory",
            "paper": "hours on a GPU",
        },
        wanted=tuple((variant, 0) for variant in VARIANTS),
    ),
)
