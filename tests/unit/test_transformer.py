"""Transformer trunk: rotary positions, window, masks."""

import pytest
import torch

from speechbrain_flowmac.lobes.transformer import (
    KeyValueCache,
    Transformer,
    TransformerBlock,
    attention_mask,
    rotary_tables,
    rotate,
)


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_trunk(window=None, num_layers=2):
    torch.manual_seed(0)
    return Transformer(16, num_layers, num_heads=2, window=window).eval()


def test_rotation_keeps_lengths_and_first_position():
    x = noise(0, 3, 50, 8)
    y = rotate(x, rotary_tables(50, 8, "cpu"))
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(y[:, 0], x[:, 0])


@pytest.mark.parametrize("shift", [1, 13, 200])
def test_products_depend_on_differences_of_positions(shift):
    q, k = noise(0, 8), noise(1, 8)
    tables = rotary_tables(300, 8, "cpu")
    queries = rotate(q.expand(300, 8), tables)
    keys = rotate(k.expand(300, 8), tables)
    products = queries @ keys.T
    torch.testing.assert_close(
        products[shift:, shift:],
        products[:-shift, :-shift],
        atol=1e-3,
        rtol=0,
    )
    assert (products[0] - products[0, 0]).abs().max() > 0.1


@pytest.mark.parametrize("start", [9, 400])
def test_only_relative_positions_matter(start):
    """A windowed trunk says the same about a part cut out of a signal."""
    trunk = make_trunk(window=3)
    reach = trunk.receptive_field
    x = noise(0, 1, start + 40, 16)
    whole, part = trunk(x)[:, start:], trunk(x[:, start:])
    torch.testing.assert_close(
        whole[:, reach:], part[:, reach:], atol=1e-4, rtol=0
    )
    assert (whole[:, 0] - part[:, 0]).abs().max() > 1e-3


@pytest.mark.parametrize("window, layers", [(1, 3), (4, 2)])
def test_receptive_field_is_exact(window, layers):
    trunk = make_trunk(window, layers).double()
    reach = trunk.receptive_field
    assert reach == window * layers
    x = noise(0, 1, 31, 16).double()
    expected = trunk(x)[:, 15]

    def changed(*frames):
        other = x.clone()
        other[:, list(frames)] += 1 + noise(1, 1, len(frames), 16)
        return (trunk(other)[:, 15] - expected).abs().max().item()

    assert changed(*(n for n in range(31) if abs(n - 15) > reach)) < 1e-12
    assert changed(15 - reach) > 1e-9
    assert changed(15 + reach) > 1e-9


def test_without_a_window_everything_is_seen():
    trunk = make_trunk()
    assert trunk.receptive_field is None
    x = noise(0, 1, 60, 16)
    other = x.clone()
    other[:, -1] += 10 * noise(1, 16)
    assert (trunk(x)[:, 0] - trunk(other)[:, 0]).abs().max() > 1e-4


@pytest.mark.parametrize("window", [None, 2])
def test_padding_changes_no_valid_frame(window):
    trunk = make_trunk(window)
    lengths = [1, 5, 12]
    x = 100 * noise(0, 3, 12, 16)
    mask = torch.arange(12) < torch.tensor(lengths)[:, None]
    batch = trunk(x, mask)
    for i, length in enumerate(lengths):
        single = trunk(x[i : i + 1, :length])
        torch.testing.assert_close(
            batch[i : i + 1, :length], single, atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("window", [None, 1])
def test_items_without_a_valid_frame_stay_finite(window):
    trunk = make_trunk(window)
    mask = torch.tensor([[False] * 9, [True] + [False] * 8])
    y = trunk(noise(0, 2, 9, 16), mask)
    y.sum().backward()
    assert y.isfinite().all()
    assert all(p.grad.isfinite().all() for p in trunk.parameters())


@pytest.mark.parametrize("frames", [1, 2, 3, 257])
def test_any_length_works(frames):
    y = make_trunk(window=4)(noise(0, 1, frames, 16))
    assert y.shape == (1, frames, 16) and y.isfinite().all()


def test_mask_of_padding_and_window_combine():
    mask = torch.tensor([[True, True, True, False]])
    allowed = attention_mask(4, mask, 1, "cpu")[0, 0].int().tolist()
    # the padded frame sees its neighbour and itself, and nothing else
    assert allowed == [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    assert attention_mask(4, None, None, "cpu") is None


@pytest.mark.parametrize("dim, num_heads", [(10, 3), (6, 2)])
def test_widths_that_do_not_fit_the_heads_are_refused(dim, num_heads):
    with pytest.raises(ValueError, match=f"{dim} / {num_heads}"):
        TransformerBlock(dim, num_heads, 16)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    trunk = Transformer(16, 1, 2, dropout=0.5)
    x = noise(0, 1, 8, 16)
    assert not torch.equal(trunk(x), trunk(x))
    trunk.eval()
    assert torch.equal(trunk(x), trunk(x))


def test_a_cache_gives_what_a_whole_causal_sequence_does():
    block, x = TransformerBlock(8, 2, 16), noise(0, 2, 7, 8)
    tables = rotary_tables(7, 4, "cpu")
    causal = torch.ones(7, 7, dtype=torch.bool).tril()[None, None]
    whole = block(x, tables, causal)
    cache, parts, first = KeyValueCache(), [], 0
    for size in (3, 1, 2, 1):
        part = slice(first, first + size)
        parts.append(
            block(
                x[:, part],
                [table[part] for table in tables],
                causal[:, :, part, : first + size],
                cache,
            )
        )
        first += size
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)
