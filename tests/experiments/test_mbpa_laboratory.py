"""What the laboratory of MbPA shows: networks trained in seconds, and what is committed of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib import ledger
from lib.data import load_characters
from lib.data.text import load_corpus, make_text
from lib.experiments import RunOptions
from lib.experiments import mbpa_laboratory as laboratory
from lib.inspector.episodic import EpisodicTrace
from lib.inspector.episodic_text import TextTrace
from lib.methods.mbpa import MbPAConfig

FEW = laboratory.CharactersConfig(known=3, new=2, drawings=12, remembered=3, width=8, updates=40)


@pytest.fixture(scope="module")
def glyphs():
    return load_characters("glyphs")


def test_a_network_knows_its_half_and_the_memory_holds_all(glyphs):
    trace = laboratory.characters_trace(0, FEW, glyphs)
    assert trace.values.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    assert trace.truth.tolist() == [0, 1, 2, 3, 4] and trace.known == (0, 1, 2)
    assert trace.images.shape == (15, 20, 20) and trace.images.max() > 200
    before = np.stack([trace.fit(query, MbPAConfig(steps=0)).p[0] for query in range(5)])
    assert (before[:3].argmax(1) == [0, 1, 2]).all(), "it has learnt what it knows"
    again = laboratory.characters_trace(0, FEW, glyphs)
    np.testing.assert_array_equal(again.keys, trace.keys)
    assert again.names == trace.names != laboratory.characters_trace(1, FEW, glyphs).names


def test_what_is_new_has_the_weights_that_it_was_drawn_with(glyphs):
    bank = laboratory.ImageBank(glyphs.images([0, 1, 2, 3, 4]))
    _, trained = laboratory.trained_on_half(FEW, bank, 0)
    _, fresh = laboratory.trained_on_half(replace(FEW, updates=0), bank, 0)
    assert torch.equal(trained.weight[3:], fresh.weight[3:]) and torch.equal(trained.bias[3:], fresh.bias[3:])
    assert not torch.equal(trained.weight[:3], fresh.weight[:3])


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("Greek/character03", "Greek 3"),
        ("Japanese_(katakana)/character35", "Japanese 35"),
        ("Old_Church_Slavonic_(Cyrillic)/character36", "Old Church Slavonic 36"),
        ("Greek U+03B1", "Greek U+03B1"),
    ],
)
def test_names_are_short(name, short):
    assert laboratory.short_name(name) == short


def test_a_text_is_read_and_asked_at_even_places_and_at_the_ends():
    config = laboratory.TextConfig(words=300, training_words=8_000, read=400, memory=150, asked=5, neighbours=(4, 16))
    model = replace(config.model, embedding=8, hidden=12)
    short = {"updates": 20, "log_every": 20, "validate_every": 20, "validation_batches": 1, "checkpoint_every": 20}
    config = replace(config, model=model, training=replace(config.training, **short))
    model, tokens, names = laboratory.small_language_model(config, make_text("wikitext-2"), 0)
    assert len(names) == 300 and tokens.max() < 300 and not model.training
    trace = laboratory.language_trace(model, tokens, names, config, "made up.")
    assert 5 <= len(trace.why) <= 9 and sum("equal" in why for why in trace.why) >= 3
    gains = {why.split(" ")[0]: gain for why, gain in zip(trace.why, trace.gains()[:, trace.start], strict=True)}
    assert gains["Gained"] > gains["One"] > gains["Lost"]
    assert (trace.arrays["held"] == 150).all() and trace.note.startswith("made up. Over all 199 words from word 201 on")
    known = np.concatenate([trace.arrays[name].flatten() for name in ("seen", "truth", "shown", "before", "followed")])
    assert set(trace.names) == set(known.tolist()) - {-1}


def test_the_language_model_of_table_2_is_trained_once(tmp_path):
    options = RunOptions(device="cpu", runs=tmp_path, progress=False)
    model, tokens, names = laboratory.language_model_of_table2("smoke", 0, options)
    again, _, _ = laboratory.language_model_of_table2("smoke", 0, options)
    assert len(names) == model.config.words > tokens.max() and not model.training
    assert [path.parent.name for path in tmp_path.rglob("checkpoint.safetensors")] == ["wikitext-2-lstm-smoke-0"]
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    config = replace(laboratory.TextConfig(), read=200, memory=50, neighbours=(4, 16))
    trace = laboratory.language_trace(model, tokens, names, config, "made up.")
    assert trace.names[int(trace.arrays["truth"][0])] == names[int(tokens[101])]


def test_the_toy_is_that_of_the_records():
    found = laboratory.regressions()
    for variant, regression in found.items():
        record = ledger.best_record("mbpa.figure2", variant)
        assert regression.config == MbPAConfig(**record.metrics["setting"]["mbpa"])
        grid, answers = record.metrics["grid"], record.metrics["answers"]
        for i in range(0, len(grid), 40):
            said = regression.answers(grid[i])
            assert said.network == pytest.approx(answers["network"][i], abs=0.02)
            assert said.fitted == pytest.approx(answers["mbpa"][i], abs=0.02)


def test_committed_traces_say_what_they_are():
    images = EpisodicTrace.load(laboratory.TRACES / "images.json")
    text = TextTrace.load(laboratory.TRACES / "text.json")
    assert "omniglot" in images.note and "wikitext-2" in text.note
    assert images.known == tuple(range(10)) and len(images.names) == 20
    right = images.right()
    assert right[-1, 10:].sum() > right[0, 10:].sum() == 0, "new classes are named by the memory alone"
    sizes = [path.stat().st_size for path in laboratory.TRACES.iterdir()]
    assert sum(sizes) < 300_000
    corpus = load_corpus("wikitext-2", "auto")
    if not corpus.is_standin:
        words = [text.names[word] for word in text.arrays["seen"][0] if word >= 0 and text.names[word] != "<unk>"]
        assert set(words) <= set(corpus.words)
