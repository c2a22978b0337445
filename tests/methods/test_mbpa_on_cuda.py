"""MbPA on a GPU says what it says on the CPU."""

import copy

import pytest
import torch
from torch import nn

from lib.baselines.language import LanguageModel, LanguageModelConfig
from lib.memory.episodic import EpisodicMemory, ExactIndex, distances_to, nearest
from lib.methods import mbpa, mbpa_fit
from lib.methods.mbpa import MbPAConfig
from lib.methods.mbpa_likely import fitted_at
from lib.methods.mbpa_text import TextMbPA, TextMbPAConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
DEVICES = ("cpu", "cuda")


def filled(device: str, kind: torch.dtype = torch.float64) -> EpisodicMemory:
    """A memory that was overwritten in part."""
    torch.manual_seed(0)
    keys, labels = torch.randn(300, 8).to(kind), torch.randint(5, (300,))
    memory = EpisodicMemory(200, 8, like=torch.zeros((), dtype=kind, device=device))
    memory.append(keys.to(device), labels.to(device))
    return memory


# In float32 RMSprop from a mean square of 0 and Adam divide what may be rounding by itself: there they are left out.
KINDS = {torch.float64: {}, torch.float32: {"atol": 1e-4, "rtol": 1e-4}}


DESCENTS = ("adapted_by_loop", "adapted_by_dual", "adapted_by_first_dual", "adapted_by_vmap", "adapted_by_batch")


@pytest.mark.parametrize(
    ("way", "optimizer", "kind"),
    [
        *((way, "sgd", kind) for way in DESCENTS for kind in KINDS),
        ("adapted_by_vmap", "adam", torch.float64),
        ("adapted_by_batch", "rmsprop", torch.float64),
    ],
)
def test_a_fit(way, optimizer, kind):
    torch.manual_seed(1)
    network, queries = nn.Linear(8, 5), torch.randn(7, 8).to(kind)
    if way == "adapted_by_first_dual":
        network = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5))
    fit, found = MbPAConfig(neighbours=6, steps=3, rate=0.1, prior=0.2, optimizer=optimizer), []
    for device in DEVICES:
        own = copy.deepcopy(network).to(device, kind)
        context = filled(device, kind).context(queries.to(device), 6, 1e-3)
        fitted = getattr(mbpa, way)(own, queries.to(device), context, fit)
        assert fitted.outputs.device.type == device and fitted.moved.min() > 0
        found.append([each.detach().cpu() for each in fitted])
    torch.testing.assert_close(*found, **KINDS[kind])


@pytest.mark.parametrize("way", ["adapted_by_dual", "adapted_by_first_dual", "adapted_by_batch", "adapted_by_vmap"])
def test_a_query_at_a_time(monkeypatch, way):
    torch.manual_seed(4)
    network = nn.Linear(8, 5)
    if way == "adapted_by_first_dual":
        network = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5))
    network, queries = network.to("cuda", torch.float64), torch.randn(7, 8).to("cuda", torch.float64)
    context, fit = filled("cuda").context(queries, 6, 1e-3), MbPAConfig(neighbours=6, steps=3, rate=0.1)
    whole = getattr(mbpa, way)(network, queries, context, fit)
    monkeypatch.setattr(mbpa_fit, "WEIGHTS_AT_ONCE_ON_GPU", 1)
    torch.testing.assert_close(getattr(mbpa, way)(network, queries, context, fit), whole)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asked", [1, 3, 100])
@pytest.mark.parametrize("at_once", [1, 640, 4096, 2**24])
def test_a_search_in_merged_blocks(at_once, asked, kind):
    """Blocks of the keys, of the queries, and none: the nearest are those that the CPU finds at once, up to ties."""
    torch.manual_seed(5)
    keys, queries = torch.randn(1000, 8).to(kind), torch.randn(asked, 8).to(kind)
    expected = nearest(queries, keys, 9)
    keys, queries = keys.cuda(), queries.cuda()
    positions = ExactIndex(at_once).candidates(queries, keys, 9, keys.square().sum(1))
    assert positions.is_cuda and positions.shape == (asked, 9)
    found = distances_to(queries, keys, positions).sort(1).values.cpu()
    torch.testing.assert_close(found, expected.distances, **KINDS[kind])


def test_the_learner_in_float32(monkeypatch):
    """What it says of many queries, some at a time."""
    torch.manual_seed(6)
    xs, ys, found = torch.randn(60, 8), torch.randint(5, (60,)), []
    output = nn.Linear(8, 5)
    monkeypatch.setattr(mbpa, "KEYS_AT_ONCE", 500)
    for device in DEVICES:
        own = copy.deepcopy(output).to(device)
        config = MbPAConfig(neighbours=6, steps=3, rate=0.3)
        learner = mbpa.MbPA(nn.Identity(), own, config, width=8, capacity=40, labels=5)
        learner.begin()
        learner.observe(xs.to(device), ys.to(device))
        found.append(learner.predict(xs.to(device)).cpu())
    torch.testing.assert_close(*found, **KINDS[torch.float32])


def test_a_text():
    torch.manual_seed(2)
    model = LanguageModel(LanguageModelConfig(words=20, embedding=6, hidden=7, tied=True)).double().eval()
    text, found = torch.randint(20, (2, 61)), []
    for device in DEVICES:
        model = model.to(device)
        learner = TextMbPA(model, model.softmax, TextMbPAConfig(MbPAConfig(neighbours=4), size=30, share=0.3))
        found.append(learner.episode(text[:, :-1].to(device), text[:, 1:].to(device))[0].cpu())
    torch.testing.assert_close(*found)


def test_a_sweep():
    torch.manual_seed(3)
    layer, hidden, words = nn.Linear(6, 20).double(), torch.randn(50, 6).double(), torch.randint(20, (50,))
    at, found = torch.arange(5, 50, 3), []
    for device in DEVICES:
        layer = layer.to(device)
        parts = (hidden.to(device), words.to(device), at.to(device))
        found.append(fitted_at(layer, *parts, 20, MbPAConfig(neighbours=4), [0.1, 1.0], [1, 3], 20).cpu())
    torch.testing.assert_close(*found)
