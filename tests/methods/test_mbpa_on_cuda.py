"""MbPA on a GPU says what it says on the CPU."""

import pytest
import torch
from torch import nn

from lib.baselines.language import LanguageModel, LanguageModelConfig
from lib.memory.episodic import EpisodicMemory
from lib.methods import mbpa
from lib.methods.mbpa import MbPAConfig
from lib.methods.mbpa_likely import fitted_at
from lib.methods.mbpa_text import TextMbPA, TextMbPAConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
DEVICES = ("cpu", "cuda")


def filled(device: str) -> EpisodicMemory:
    """A memory that was overwritten in part."""
    torch.manual_seed(0)
    keys, labels = torch.randn(300, 8).double(), torch.randint(5, (300,))
    memory = EpisodicMemory(200, 8, like=torch.zeros((), dtype=torch.float64, device=device))
    memory.append(keys.to(device), labels.to(device))
    return memory


@pytest.mark.parametrize(
    ("way", "optimizer"),
    [
        ("adapted_by_loop", "sgd"),
        ("adapted_by_dual", "sgd"),
        ("adapted_by_vmap", "adam"),
        ("adapted_by_batch", "rmsprop"),
    ],
)
def test_a_fit(way, optimizer):
    torch.manual_seed(1)
    layer, queries = nn.Linear(8, 5).double(), torch.randn(7, 8).double()
    fit, found = MbPAConfig(neighbours=6, steps=3, rate=0.1, prior=0.2, optimizer=optimizer), []
    for device in DEVICES:
        memory, own = filled(device), layer.to(device)
        context = memory.context(queries.to(device), 6, 1e-3)
        found.append(getattr(mbpa, way)(own, queries.to(device), context, fit).outputs.detach().cpu())
        layer = own.cpu()
    torch.testing.assert_close(*found)


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
