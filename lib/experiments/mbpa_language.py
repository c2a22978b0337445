"""Sprechmann et al. 2018, table 2 and figure 8: language models that look back, on Penn Treebank and WikiText-2.

All rows of a corpus share one LSTM, which is trained once: with the neural cache, with MbPA, with both, and as it goes
on learning (dynamic evaluation). Settings are chosen on validation text, see `mbpa_language_sweep.py`; or they are the
one that appendix B calls optimal, and nothing is chosen.

The paper's LSTM is Melis, Dyer & Blunsom's (2017), whose softmax shares its vectors with the embedding: with 1194 units
and embeddings of 268 only so are there «roughly 10M parameters» for 10 000 words. So what the softmax layer takes, and
what the memory stores as its keys, is the LSTM's output projected to the embedding's length.
"""

import time
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from tqdm import tqdm

from lib import ledger, report
from lib.baselines.dynamic_evaluation import DynamicConfig, DynamicEvaluation
from lib.baselines.language import LanguageModel, LanguageModelConfig
from lib.config import added, to_dict
from lib.experiments import mbpa_language_tables as tables
from lib.experiments import runs
from lib.experiments.base import Experiment, RunOptions
from lib.experiments.curves import PROFILES_SHOWN
from lib.experiments.language import Text, lstm_run
from lib.experiments.mbpa_language_figure8 import figure8
from lib.experiments.mbpa_language_sweep import (
    ROWS,
    Setting,
    Sweep,
    SweepConfig,
    Words,
    add_leads,
    behind_best,
    exactness,
    log_likelihood,
    perplexity_of,
    reach,
    row_of,
    table2,
)
from lib.experiments.mbpa_language_tables import CORPORA, FIGURE8, NAME
from lib.experiments.mbpa_tables import PAPER
from lib.methods.mbpa import MbPAConfig
from lib.methods.mbpa_text import Parts, TextMbPA, TextMbPAConfig
from lib.training import TrainingConfig
from lib.training.checkpoint import load_checkpoint
from lib.training.loop import make_optimizer

VARIANTS = (
    "ptb",
    "wikitext-2",
    "ptb-appendix-b",
    "wikitext-2-appendix-b",
    "ptb-dynamic",
    "wikitext-2-dynamic",
)
AT_ONCE = 10_000  # words of a text that MbPA reads as one block


@dataclass(frozen=True)
class DynamicTest:
    """Dynamic evaluation: what is tried, and on how many words from a text's first on; the default is all of them."""

    fit: DynamicConfig = field(default_factory=DynamicConfig)
    """How the network goes on learning (paper: Adam as training left it, windows of 5)."""
    rates: tuple[float, ...] = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
    """Learning rates to choose from (paper: silent)."""
    tuning_words: int = 10_000_000
    test_words: int = 10_000_000


@dataclass(frozen=True)
class StatedTest:
    """The setting that appendix B calls optimal, on a text's words from the first on; the default is all of them."""

    learner: TextMbPAConfig = field(
        default_factory=lambda: TextMbPAConfig(
            MbPAConfig(neighbours=256, steps=1, rate=0.15), size=5_000, share=0.1, cache_share=0.15, cache_sharpness=0.1
        )
    )
    """Memory, fit, cache and mixture (paper: all but the cache's θ, for which it has the value that our sweep of the
    short profile chose on the validation text of either corpus)."""
    test_words: int = 10_000_000


@dataclass(frozen=True)
class LanguageConfig:
    """What is done with one corpus; the defaults are the paper profile's for Penn Treebank."""

    corpus: Literal["ptb", "wikitext-2"] = "ptb"
    source: Literal["auto", "stand-in"] = "auto"
    """`stand-in`: made-up text, whatever is at hand."""
    model: LanguageModelConfig = field(
        default_factory=lambda: LanguageModelConfig(words=10_000, embedding=268, hidden=1_194, dropout=0.6, tied=True)
    )
    """The LSTM (paper: these sizes; «the regularisation techniques described in Melis et al.»)."""
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            updates=60_000,
            batch_size=20,
            learning_rate=1e-3,
            clip=1.0,
            log_every=250,
            validate_every=2_500,
            validation_batches=100,
            checkpoint_every=250,
            optimizer="adam",
            wipe_memory=False,
            rate_falls_from=0.4,
        )
    )
    """Of the LSTM: 45 times through Penn Treebank (paper: Adam, else silent)."""
    block: int = 35
    """Words through which the gradient passes (paper: silent)."""
    sweep: SweepConfig | None = field(default_factory=SweepConfig)
    """Cache and MbPA; None where they are not run."""
    dynamic: DynamicTest | None = None
    """Dynamic evaluation; None where it is not run."""
    stated: StatedTest | None = added(None)
    """The paper's setting of MbPA; None where it is not run."""


def config_of(variant: str, profile: str) -> LanguageConfig:
    """The config of a variant such as `ptb`, `ptb-appendix-b` or `wikitext-2-dynamic`."""
    corpus = variant.removesuffix("-dynamic").removesuffix("-appendix-b")
    paper = LanguageConfig(corpus)
    if variant == f"{corpus}-dynamic":
        paper = replace(paper, sweep=None, dynamic=DynamicTest())
    elif variant == f"{corpus}-appendix-b":
        paper = replace(paper, sweep=None, stated=StatedTest())
    if corpus == "wikitext-2":
        model = replace(paper.model, words=33_278, embedding=241, hidden=1_853)
        paper = replace(paper, model=model, training=replace(paper.training, updates=90_000))
    if profile == "paper":
        return paper
    if profile == "short":
        smaller = {"embedding": 200, "hidden": 400, "dropout": 0.4}
        updates = 16_000
        if corpus == "wikitext-2":
            smaller, updates = {"embedding": 120, "hidden": 400, "dropout": 0.3}, 8_000
        training = replace(paper.training, updates=updates, learning_rate=2e-3, validate_every=2_000)
        less = replace(paper, model=replace(paper.model, **smaller), training=training)
        if less.dynamic:
            return replace(less, dynamic=replace(less.dynamic, tuning_words=20_000, test_words=20_000))
        if less.stated:
            return less
        every = {"tuning_every": 200, "test_every": 10} if corpus == "ptb" else {"tuning_every": 600, "test_every": 30}
        return replace(less, sweep=replace(less.sweep, likely=768, **every))
    few = {"log_every": 5, "validate_every": 10, "validation_batches": 1, "checkpoint_every": 5}
    if paper.dynamic:
        paper = replace(paper, dynamic=DynamicTest(rates=(1e-3, 1e-2), tuning_words=200, test_words=400))
    elif paper.stated:
        learner = paper.stated.learner
        learner = replace(learner, fit=replace(learner.fit, neighbours=16), size=500)
        paper = replace(paper, stated=StatedTest(learner, test_words=400))
    else:
        small = SweepConfig(
            sizes=(50, 500),
            neighbours=(8, 16),
            steps=(1, 3),
            rates=(0.1, 1.0),
            priors=(0.1,),
            sharpnesses=(0.3, 1.0),
            wider_neighbours=(4,),
            likely=200,
            tuning_every=100,
            test_every=50,
        )
        paper = replace(paper, sweep=small)
    return replace(
        paper,
        source="stand-in",
        model=replace(paper.model, embedding=10, hidden=20, dropout=0.2),
        training=replace(paper.training, learning_rate=1e-2, updates=40, **few),
    )


def config(variant: str, profile: str) -> dict[str, Any]:
    """What determines a run besides seed and data."""
    return to_dict(config_of(variant, profile))


def pretraining(variant: str, profile: str, seed: int, options: RunOptions) -> runs.Run:
    """A corpus's run, ready to be done: training of the LSTM, then the tests."""

    def test(model: LanguageModel, text: Text, run: runs.Run) -> dict[str, Any]:
        model.eval()
        if run.config.dynamic:
            return dynamic_metrics(model, text, run.config, run)
        if run.config.stated:
            return stated_metrics(model, text, run.config.stated, run.options.progress)
        return metrics(model, text, run.config.sweep, run)

    return lstm_run(NAME, variant, profile, seed, options, config_of(variant, profile), test)


def metrics(model: LanguageModel, text: Text, config: SweepConfig, run: runs.Run) -> dict[str, Any]:
    """Table 2 and figure 8: of the paper's grid, and the table of a wider one, too."""
    folder, progress = run.in_progress.parent / "sweep", run.options.progress
    started = time.monotonic()

    def read(tokens: torch.Tensor, part: str, every: int) -> Words:
        identity = {"data": run.data, "part": part}
        return Words.read(model, tokens, every, config.likely, folder, identity, progress)

    sweep = Sweep(config, read(text.validation, "validation", config.tuning_every))
    for wider in (False, True):
        sweep.best("both", wider)  # so that the time of the tuning is told apart from that of the test
    tuned = time.monotonic()
    test = read(text.test, "test", config.test_every)
    rows, found = table2(sweep, test, wider=False)
    wider_rows, _ = table2(sweep, test, wider=True)
    best, papers = Setting(**rows["lstm-mbpa"]["setting"]), papers_setting(config)
    whole = replace(test, at=torch.arange(len(test.words), device=test.at.device))
    lstm, cache = whole.network(), log_likelihood(whole, Setting(**rows["lstm-cache"]["setting"]))
    return {
        "perplexity": rows["lstm-mbpa"]["perplexity"],
        "rows": rows,
        "wider": wider_rows,
        "words": {"validation": len(sweep.words.at), "test": len(test.at)},
        "whole": {"lstm": row_of(lstm, None, None), "lstm-cache": row_of(cache, lstm, None), "words": len(whole.at)},
        "figure8": figure8(found, test.words[test.at], model.labels),
        "tuning": sweep.tried(),
        "papers_setting": behind_best(sweep.words, best, papers),
        "exactness": exactness(test, best),
        "reach": reach(sweep.words, papers.size, papers.neighbours, papers.rate),
        "seconds": {"tuning": tuned - started, "test": time.monotonic() - tuned},
    }


def papers_setting(config: SweepConfig) -> Setting:
    """What the paper found best; where the grid has no such N or K, with its largest N and its smallest K."""
    found = Setting(**tables.PAPERS_BEST)
    size = found.size if found.size in config.sizes else max(config.sizes)
    neighbours = found.neighbours if found.neighbours in config.neighbours else min(config.neighbours)
    return replace(found, size=size, neighbours=neighbours)


def dynamic_metrics(model: LanguageModel, text: Text, config: LanguageConfig, run: runs.Run) -> dict[str, Any]:
    """Dynamic evaluation with the rate that is best on validation text, and the LSTM on the same words."""
    asked, started = config.dynamic, time.monotonic()
    optimizer = make_optimizer(model.requires_grad_(True), config.training)
    load_checkpoint(run.in_progress, model, optimizer)
    validation, test = text.validation[: asked.tuning_words + 1], text.test[: asked.test_words + 1]

    def read(tokens: torch.Tensor, rate: float | None) -> torch.Tensor:
        learner = model
        if rate is not None:
            learner = DynamicEvaluation(model, replace(asked.fit, rate=rate), optimizer.state_dict())
        with torch.no_grad():
            carried, found = None, []
            for x, y in zip(tokens[:-1].split(1_000), tokens[1:].split(1_000), strict=True):
                block, carried = learner.episode(x.unsqueeze(0), y.unsqueeze(0), carried)
                found.append(block[0])
        return torch.cat(found)

    tried = [{"rate": rate, "validation_perplexity": perplexity_of(read(validation, rate))} for rate in asked.rates]
    best = min(tried, key=lambda each: each["validation_perplexity"])
    tuned = time.monotonic()
    lstm, learning = read(test, None), read(test, best["rate"])
    row = row_of(learning, lstm, best["validation_perplexity"])
    row |= {
        "setting": {"rate": best["rate"]},
        "at_end": ["rate"] if best["rate"] in (min(asked.rates), max(asked.rates)) else [],
    }
    return {
        "perplexity": row["perplexity"],
        "rows": {"lstm": row_of(lstm, None, perplexity_of(read(validation, None))), "dynamic": row},
        "words": {"validation": len(validation) - 1, "test": len(test) - 1},
        "tuning": tried,
        "seconds": {"tuning": tuned - started, "test": time.monotonic() - tuned},
    }


def stated_metrics(model: LanguageModel, text: Text, asked: StatedTest, progress: bool) -> dict[str, Any]:
    """The rows of table 2 in the paper's setting: nothing is chosen, and so no validation text is read."""
    started, config = time.monotonic(), asked.learner
    tokens, learner = text.test[: asked.test_words + 1], TextMbPA(model, model.softmax, config)
    blocks = list(zip(tokens[:-1].split(AT_ONCE), tokens[1:].split(AT_ONCE), strict=True))
    past, read = None, []
    for x, y in tqdm(blocks, desc="the paper's setting", disable=not progress, leave=False, dynamic_ncols=True):
        block, past = learner.parts(x.unsqueeze(0), y.unsqueeze(0), past)
        read.append(block)
    parts = Parts(*(torch.cat(of, 1).double() for of in zip(*read, strict=True)))
    cache = {"sharpness": config.cache_sharpness, "cache_share": config.cache_share}
    fit = config.fit
    fitted = {"neighbours": fit.neighbours, "steps": fit.steps, "rate": fit.rate, "share": config.share}
    mixed = {"cache": cache, "mbpa": fitted, "both": cache | fitted}
    found, rows = {"lstm": parts.network[0]}, {"lstm": row_of(parts.network[0], None, None)}
    for row, mixes in ROWS.items():
        setting = Setting(config.size, **mixed[mixes])
        found[row] = parts.mixed(setting.share, setting.cache_share)[0]
        rows[row] = row_of(found[row], found["lstm"], None) | {"setting": to_dict(setting)}
    add_leads(rows, found)
    return {
        "perplexity": rows["lstm-mbpa"]["perplexity"],
        "rows": rows,
        "words": {"test": len(tokens) - 1},
        "seconds": {"test": time.monotonic() - started},
    }


def lstm_in_words() -> str:
    """A sentence, in Markdown, for each corpus: how large its LSTM is in the profiles that the tables show, and how it
    is trained, as the configs have it."""
    sentences = []
    for corpus, label in CORPORA.items():
        profiles = []
        for profile in PROFILES_SHOWN:
            config = config_of(corpus, profile)
            model, training = config.model, config.training
            profiles.append(
                f"in the {profile} profile {report.grouped(model.hidden)} units, an embedding of {model.embedding} "
                f"numbers, dropout of {model.dropout:g}, and {report.grouped(training.updates)} updates, each on "
                f"{training.batch_size} blocks of {config.block} words"
            )
        sentences.append(f"On {label} the LSTM has {'; '.join(profiles)}.")
    return " ".join(sentences)


def run(variant: str, profile: str, seed: int, options: RunOptions) -> ledger.Record | None:
    """Train the LSTM of the corpus unless that is done, sweep, test and record."""
    options = replace(options, unroll="plain", keep_checkpoint=False)  # 12 to 100 MB of weights: not for a repository
    return runs.run_alone(pretraining(variant, profile, seed, options))


COSTS = {
    "smoke": "under 20 s",
    "short": "an hour or more for the LSTM, half an hour or less for the rest",
    "paper": "hours on a GPU",
}
EXPERIMENTS = (
    Experiment(
        name=NAME,
        paper=PAPER,
        title="Language models with a cache, MbPA, both, or that go on learning: perplexity",
        variants=VARIANTS,
        run=run,
        config=config,
        table=tables.table2,
        costs=COSTS,
        wanted=tuple((variant, 0) for variant in VARIANTS),
    ),
    Experiment(
        name=FIGURE8,
        paper=PAPER,
        title="Which words MbPA helps, beside LSTM and cache: by how frequent they are in training",
        variants=("ptb", "wikitext-2"),
        run=None,
        config=config,
        table=tables.figure8,
        costs=COSTS,
        drawn_from={corpus: (NAME, corpus) for corpus in ("ptb", "wikitext-2")},
    ),
)
