"""Episodes that grow: when, by how much, and that each batch is a function of its number."""

import torch

from lib.tasks.curriculum import CurriculumConfig, CurriculumSampler
from lib.tasks.episodes import EpisodeConfig
from lib.tasks.images import ImageBank
from tests.tasks.drawings import strokes


def test_there_is_one_class_more_after_every_so_many_updates():
    bank = ImageBank(strokes(8, 20))
    sampler = CurriculumSampler(
        bank, CurriculumConfig(first=2, every=3), EpisodeConfig(strings=True), seed=0, stream="s"
    )
    classes = [sampler.batch(n, 2).characters.shape[1] for n in range(1, 8)]
    assert classes == [2, 2, 2, 3, 3, 3, 4]
    assert sampler.batch(7, 2).xs.shape == (2, 40, 400)


def test_a_batch_is_a_function_of_its_number():
    bank = ImageBank(strokes(8, 20))
    sampler = CurriculumSampler(
        bank, CurriculumConfig(first=2, every=1), EpisodeConfig(strings=True), seed=0, stream="s"
    )
    first, again = sampler.batch(3, 2), sampler.batch(3, 2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert first.ys.max() > first.members.max()  # strings, not places


def test_the_papers_curriculum_ends_where_the_paper_says():
    """15 classes at first, 25 at the 100 000th episode, tests from 50 to 100 in steps of 5 (section 4.2.2)."""
    curriculum = CurriculumConfig()
    like = EpisodeConfig(strings=True)
    assert (curriculum.episodes(0, like).classes, curriculum.episodes(0, like).length) == (15, 150)
    assert curriculum.episodes(99_999, like).classes == 24
    assert curriculum.episodes(100_000, like).classes == 25
    assert curriculum.tests == tuple(range(50, 101, 5))
