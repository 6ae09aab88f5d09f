"""MDCT and reshape: the formula, reconstruction, energy, lengths, gradients."""

import math

import pytest
import torch
from scipy.fft import dct

from speechbrain_flowmac.lobes.mdct import MDCT, kbd_window, sine_window
from speechbrain_flowmac.lobes.reshape import Reshape

WINDOWS = {"sine": sine_window, "kbd": kbd_window}
HOPS = [1, 2, 3, 8, 15, 64, 512]
TOLERANCES = {torch.float32: 1e-6, torch.float64: 1e-12}


def noise(seed, *shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    # uniform: errors are absolute, of signals within full scale
    return 2 * torch.rand(*shape, generator=generator, dtype=dtype) - 1


@pytest.fixture(params=WINDOWS)
def window(request):
    return WINDOWS[request.param]


def frames_of(signal, hop):
    """[T] to frames [F, 2 N], with N zeros before and at least N after."""
    rest = -len(signal) % hop
    padded = torch.nn.functional.pad(signal, (hop, hop + rest))
    starts = range(0, len(padded) - hop, hop)
    return torch.stack([padded[s : s + 2 * hop] for s in starts])


def direct(signal, hop, window):
    """The formula, term by term in float64."""
    n = torch.arange(2 * hop, dtype=torch.float64)[:, None]
    k = torch.arange(hop, dtype=torch.float64)
    basis = torch.cos(math.pi / hop * (n + hop / 2 + 0.5) * (k + 0.5))
    frames = frames_of(signal, hop) * window(2 * hop)
    return math.sqrt(2 / hop) * frames @ basis


@pytest.mark.parametrize("hop", HOPS)
def test_coefficients_are_those_of_the_formula(hop, window):
    signal = noise(0, 5 * hop + hop // 2)
    found = MDCT(hop, window).to_tokens(signal[None])[0]
    expected = direct(signal, hop, window)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("hop", [2, 8, 64, 512])
def test_coefficients_are_a_dct_iv_of_folded_frames(hop, window):
    """(-c_r - d, a - b_r), of the quarters a, b, c, d of a frame."""
    signal = noise(0, 4 * hop)
    a, b, c, d = (frames_of(signal, hop) * window(2 * hop)).chunk(4, dim=1)
    folded = torch.cat([-c.flip(1) - d, a - b.flip(1)], dim=1)
    expected = torch.from_numpy(dct(folded.numpy(), type=4, norm="ortho"))
    found = MDCT(hop, window).to_tokens(signal[None])[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("hop", HOPS)
@pytest.mark.parametrize("extra", [0, 1, -1])
def test_signals_are_reconstructed(dtype, hop, extra, window):
    mdct = MDCT(hop, window)
    signal = noise(1, 3, max(6 * hop + extra, 1), dtype=dtype)
    tokens = mdct.to_tokens(signal)
    assert tokens.dtype == dtype
    assert tokens.shape == (3, mdct.num_tokens(signal.shape[1]), hop)
    again = mdct.from_tokens(tokens, signal.shape[1])
    assert again.shape == signal.shape and again.dtype == dtype
    assert (again - signal).abs().max() < TOLERANCES[dtype]


@pytest.mark.parametrize("samples", [0, 1, 7, 8, 9, 24])
def test_energy_is_kept(samples, window):
    signal = noise(2, 2, samples)
    tokens = MDCT(8, window).to_tokens(signal)
    torch.testing.assert_close(
        tokens.square().sum((1, 2)), signal.square().sum(1)
    )


def test_it_is_a_projection_of_all_tokens():
    """No redundancy inside: frames come back where no end cuts them."""
    mdct = MDCT(8)
    tokens = noise(3, 2, 9, 8)
    tokens[:, [0, -1]] = 0
    tokens[:, 1] = tokens[:, -2] = 0
    again = mdct.to_tokens(mdct.from_tokens(tokens))
    torch.testing.assert_close(again, tokens)


def test_items_and_what_follows_them_do_not_matter(window):
    mdct = MDCT(16, window)
    long = noise(4, 1, 100)
    short = noise(5, 1, 37)
    batch = torch.cat([long, torch.nn.functional.pad(short, (0, 63))])
    tokens = mdct.to_tokens(batch)
    frames = mdct.num_tokens(37)
    torch.testing.assert_close(tokens[:1], mdct.to_tokens(long))
    torch.testing.assert_close(tokens[1:, :frames], mdct.to_tokens(short))
    assert not tokens[1, frames:].any()
    assert mdct.num_tokens(torch.tensor([100, 37])).tolist() == [8, 4]


def test_gradients_are_right(window):
    mdct = MDCT(4, window)
    signal = noise(6, 2, 10).requires_grad_()
    assert torch.autograd.gradcheck(mdct.to_tokens, signal)
    tokens = noise(7, 2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(mdct.from_tokens, tokens)


def test_casts_of_the_module_round_nothing():
    signal = noise(8, 1, 100)
    expected = MDCT(16).to_tokens(signal)
    assert torch.equal(MDCT(16).half().to_tokens(signal), expected)
    assert not MDCT(16).state_dict()
    low = signal.to(torch.bfloat16)
    assert torch.equal(MDCT(16).to_tokens(low), MDCT(16).to_tokens(low.float()))


def test_a_tone_stays_near_its_bin():
    hop, k = 64, 20
    n = torch.arange(64 * hop, dtype=torch.float64)
    tone = torch.sin(math.pi / hop * (k + 0.5) * n)[None]
    spread = []
    for window in (sine_window, kbd_window):
        power = MDCT(hop, window).to_tokens(tone)[0, 4:-4].square().mean(0)
        assert power[k - 2 : k + 3].sum() / power.sum() > 0.99
        far = (torch.arange(hop) - k).abs() > 10
        spread.append(power[far].sum() / power.sum())
    # what the Kaiser-Bessel window is for
    assert spread[1] < 0.01 * spread[0]


@pytest.mark.parametrize(
    "window, message",
    [
        (lambda length: torch.ones(length).double(), "off by 1"),
        (lambda length: sine_window(length - 1), "16 samples, found shape"),
        (lambda length: torch.full((length,), math.nan).double(), "off by nan"),
    ],
)
def test_windows_that_do_not_reconstruct_are_refused(window, message):
    with pytest.raises(ValueError, match=message):
        MDCT(8, window)


def test_what_does_not_fit_is_refused():
    mdct = MDCT(8)
    with pytest.raises(ValueError, match="at least 1, found 0"):
        MDCT(0)
    with pytest.raises(ValueError, match=r"found shape \[1, 3, 7\]"):
        mdct.from_tokens(torch.zeros(1, 3, 7))
    with pytest.raises(ValueError, match=r"found shape \[1, 0, 8\]"):
        mdct.from_tokens(torch.zeros(1, 0, 8))
    with pytest.raises(ValueError, match="up to 16 samples.*=17"):
        mdct.from_tokens(torch.zeros(1, 3, 8), 17)


# Reshape

PATTERNS = {
    "frames": dict(pattern="b (n m) -> b n m", m=8),
    "squares": dict(pattern="b (h p w q) -> b (h w) (p q)", p=4, w=2, q=4),
}


@pytest.mark.parametrize("options", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("samples", [0, 1, 31, 32, 33, 64])
def test_patches_come_back_exactly(options, samples):
    reshape = Reshape(**options)
    signal = noise(0, 3, samples)
    tokens = reshape.to_tokens(signal)
    assert tokens.shape[1] == reshape.num_tokens(samples)
    assert torch.equal(reshape.from_tokens(tokens, samples), signal)
    torch.testing.assert_close(
        tokens.square().sum((1, 2)), signal.square().sum(1)
    )


def test_squares_are_squares_of_the_picture():
    reshape = Reshape(**PATTERNS["squares"])
    picture = noise(1, 8, 8)
    tokens = reshape.to_tokens(picture.flatten()[None])[0]
    assert torch.equal(tokens[0], picture[:4, :4].flatten())
    assert torch.equal(tokens[1], picture[:4, 4:].flatten())
    assert torch.equal(tokens[3], picture[4:, 4:].flatten())


def test_patches_that_do_not_fit_are_refused():
    reshape = Reshape(**PATTERNS["frames"])
    with pytest.raises(ValueError, match="hold 16 samples, found .*17"):
        reshape.from_tokens(torch.zeros(1, 2, 8), 17)
    with pytest.raises(Exception, match="Could not infer"):
        Reshape("b (n m k) -> b n (m k)", k=2)
