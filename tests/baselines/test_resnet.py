"""The residual network: what its parts do to a picture."""

import pytest
import torch
import torch.nn.functional as F

from lib.baselines.resnet import Block, ResNet, ResNetConfig


def test_a_block_is_a_relu_of_its_path_and_the_way_around_it():
    torch.manual_seed(0)
    block = Block(3, 5, 2).double().eval()
    for module in block.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                torch.nn.init.normal_(tensor)
    xs = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    first, norm1, _, second, norm2 = block.path
    projected, norm3 = block.around

    def normed(values, norm):
        shape = (1, -1, 1, 1)
        scaled = (values - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + norm.eps).sqrt()
        return scaled * norm.weight.view(shape) + norm.bias.view(shape)

    inner = normed(F.conv2d(xs, first.weight, stride=2, padding=1), norm1).clamp(min=0)
    path = normed(F.conv2d(inner, second.weight, padding=1), norm2)
    around = normed(F.conv2d(xs[:, :, ::2, ::2], projected.weight), norm3)
    torch.testing.assert_close(block(xs), (path + around).clamp(min=0))


def test_a_block_whose_path_says_nothing_lets_the_picture_through():
    block = Block(4, 4, 1).eval()
    torch.nn.init.zeros_(block.path[-1].weight)
    xs = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(block(xs), xs.clamp(min=0))


@pytest.mark.parametrize(("pooled", "stride", "side"), [(True, 2, 16), (False, 2, 32), (False, 1, 64)])
def test_each_stage_but_the_first_halves_the_picture(pooled, stride, side):
    network = ResNet(ResNetConfig(7, 3, (4, 6), 2, stride, pooled)).eval()
    seen = []
    for layer in network.embed:
        if isinstance(layer, Block):
            layer.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[1:])))
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 7)
    assert seen == [(4, side, side)] * 2 + [(6, side // 2, side // 2)] * 2
    assert network.embed(torch.zeros(2, 3, 64, 64)).shape == (2, 6)
