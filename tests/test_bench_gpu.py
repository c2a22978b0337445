"""The benchmark of training on a GPU, with what of it runs on a CPU."""

import re

from lib.bench_gpu import bench_on_gpu, ways_on_gpu
from lib.experiments.omniglot import OmniglotConfig
from lib.methods.mann import MANNConfig
from lib.tasks.episodes import EpisodeSampler
from lib.tasks.images import ImageBank
from lib.training import TrainingConfig
from lib.training.loop import UNROLLS
from tests.tasks.drawings import strokes
from tests.training.drawn import EPISODES


def test_the_table_has_a_row_for_each_way_with_the_episodes_of_all_its_seeds():
    learner = MANNConfig(classes=3, hidden=8, slots=8, width=4, reads=2)
    config = OmniglotConfig(learner, training=TrainingConfig(batch_size=2))
    sampler = EpisodeSampler(ImageBank(strokes(8, 4)), EPISODES, seed=0, stream="bench")
    table = bench_on_gpu(config, sampler, 3, {"plain": (1, 2)}, updates=2)
    title, one, two = table.splitlines()
    assert "batch 2, median of 3 times 2" in title
    assert "step by step, 2 seeds at once" in two
    for seeds, row in ((1, one), (2, two)):
        rate = float(re.search(r"([\d.]+) episodes/s", row)[1])
        milliseconds = float(re.search(r"([\d.]+) ms", row)[1])
        minutes = float(re.search(r"([\d.]+) minutes for 100000 updates", row)[1])
        assert abs(rate - seeds * 2 / (milliseconds / 1000)) < 0.01 * rate + 0.1
        assert abs(minutes - milliseconds * 100 / 60) < 0.01 * minutes + 0.1
    assert "ratio   1.00" in one


def test_the_ways_compared_on_a_gpu_are_known_ones():
    assert set(ways_on_gpu(True)) < set(UNROLLS)
    assert set(ways_on_gpu(True)) - set(ways_on_gpu(False)) == {"compiled", "compiled-graph"}
    assert ways_on_gpu(False)["graph"] == (1, 8)
