"""ConvNeXt trunk: receptive field, padding, conditioning."""

import pytest
import torch

from speechbrain_flowmac.lobes.convnext import (
    ConvNeXt,
    ConvNeXtBlock,
    DepthwiseConv,
)


def noise(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
@pytest.mark.parametrize("frames", [1, 2, 20])
def test_depthwise_convolution_is_the_one_of_torch(kernel_size, frames):
    conv = DepthwiseConv(6, kernel_size).double()
    expected = torch.nn.Conv1d(
        6, 6, kernel_size, padding=kernel_size // 2, groups=6
    ).double()
    expected.weight.data = conv.conv.weight.data.squeeze(2)
    expected.bias.data = conv.conv.bias.data
    x = noise(0, 3, frames, 6)
    torch.testing.assert_close(conv(x), expected(x.mT).mT)


@pytest.mark.parametrize("kernel_size", [2, 4])
def test_even_kernels_are_refused(kernel_size):
    with pytest.raises(ValueError, match=f"odd, found {kernel_size}"):
        ConvNeXt(4, 1, kernel_size=kernel_size)


@pytest.mark.parametrize("layers, kernel_size", [(1, 7), (3, 5), (2, 1)])
def test_receptive_field_is_exact(layers, kernel_size):
    trunk = ConvNeXt(6, layers, kernel_size=kernel_size).double()
    reach = trunk.receptive_field
    assert reach == layers * (kernel_size // 2)
    middle = 20
    x = noise(0, 1, 41, 6)
    expected = trunk(x)[:, middle]

    def changed(*frames):
        other = x.clone()
        other[:, list(frames)] += noise(1, 1, len(frames), 6)
        return (trunk(other)[:, middle] - expected).abs().max().item()

    outside = [n for n in range(41) if abs(n - middle) > reach]
    assert changed(*outside) < 1e-12
    assert changed(middle - reach) > 1e-7
    assert changed(middle + reach) > 1e-7


@pytest.mark.parametrize("condition_dim", [None, 5])
def test_padding_changes_no_valid_frame(condition_dim):
    trunk = ConvNeXt(6, 2, condition_dim=condition_dim).double()
    for parameter in trunk.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    lengths = [1, 4, 11]
    x = 1e3 * noise(0, 3, 11, 6)
    mask = torch.arange(11) < torch.tensor(lengths)[:, None]
    condition = None if condition_dim is None else noise(1, 3, condition_dim)
    batch = trunk(x, mask, condition)
    for i, length in enumerate(lengths):
        vector = None if condition is None else condition[i : i + 1]
        single = trunk(x[i : i + 1, :length], None, vector)
        torch.testing.assert_close(batch[i : i + 1, :length], single)


def test_condition_starts_without_effect_and_learns():
    block = ConvNeXtBlock(6, 12, condition_dim=4).double()
    x, condition = noise(0, 2, 5, 6), noise(1, 2, 1, 4)
    y = block(x, condition=condition)
    torch.testing.assert_close(y, block(x, condition=-condition))
    y.square().sum().backward()
    assert block.condition.weight.grad.abs().sum() > 0


def test_scale_of_zero_leaves_the_input():
    block = ConvNeXtBlock(6, 12, layer_scale=0.0).double()
    x = noise(0, 2, 5, 6)
    assert torch.equal(block(x), x)


def test_gradients_reach_all_parameters():
    trunk = ConvNeXt(6, 2).double()
    trunk(noise(0, 2, 9, 6)).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in trunk.parameters())
