"""The doors: what is let in, in what form, and what is refused how."""

import math
import re

import numpy as np
import pytest
import soundfile
import torch
from corpus import speech_like
from tiny_model import make_tiny_model

from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.admission import (
    MAX_MAGNITUDE,
    SignalError,
    TokenError,
    admit_lengths,
    admit_signals,
    admit_tokens,
)

HOP = 512
ENCODERS = ["encode_batch", "sig_to_tokens", "forward"]
DECODERS = ["decode_batch", "tokens_to_sig"]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    folder = make_tiny_model(tmp_path_factory.mktemp("model"))
    return FlowMACCodec.from_hparams(folder, run_opts={"device": "cpu"})


@pytest.fixture(scope="module")
def wavs():
    signals = [speech_like(0.5, seed) for seed in range(2)]
    return torch.as_tensor(np.stack(signals), dtype=torch.float32)


def encode(codec, name, *args):
    """Tokens by any of the calls that make them."""
    found = getattr(codec, name)(*args)
    return found[0] if isinstance(found, tuple) else found


def random_tokens(*shape, size=256, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, size, shape, generator=generator)


# signals


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_of_any_precision_are_signals(codec, wavs, name, dtype):
    given = wavs.to(dtype)
    tokens = encode(codec, name, given)
    assert torch.equal(tokens, encode(codec, name, given.float()))


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize(
    "dtype", [*INTEGERS, torch.bool, torch.complex64, torch.complex128]
)
def test_other_types_are_refused_with_how_to_scale(codec, name, dtype):
    wavs = torch.ones(1, 1000).to(dtype)
    with pytest.raises(SignalError, match="32768") as error:
        encode(codec, name, wavs)
    assert str(dtype) in str(error.value)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize(
    "given",
    [
        np.zeros((1, 100), np.float32),
        np.zeros((1, 100), np.int16),
        [[0.0] * 100],
        [torch.zeros(100)],
        "speech.wav",
        None,
    ],
    ids=lambda given: type(given).__name__,
)
def test_what_is_no_tensor_is_refused(codec, name, given):
    with pytest.raises(TypeError, match="torch.Tensor") as error:
        encode(codec, name, given)
    assert type(given).__name__ in str(error.value)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_channel_of_its_own_is_let_in(codec, wavs, name):
    expected = encode(codec, name, wavs)
    assert torch.equal(encode(codec, name, wavs.unsqueeze(1)), expected)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize(
    "shape",
    [(), (100,), (1, 2, 100), (1, 100, 1), (1, 1, 1, 100)]
    + [(0, 100), (1, 0), (0, 0), (0,), (0, 1, 100), (1, 1, 0)],
    ids=str,
)
def test_other_shapes_and_nothing_at_all_are_refused(codec, name, shape):
    with pytest.raises(SignalError, match=r"\[B, T\]") as error:
        encode(codec, name, torch.zeros(shape))
    squeezed = [shape[0], shape[2]] if shape[1:2] == (1,) else list(shape)
    text = str(error.value)
    assert f"found {list(shape)}" in text or f"found {squeezed}" in text


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize(
    "bad", [math.nan, math.inf, -math.inf, 1e20, -3e38, 1.01 * MAX_MAGNITUDE]
)
@pytest.mark.parametrize("item, position", [(0, 0), (1, 11999), (1, 700)])
def test_samples_that_are_no_sound_are_refused(
    codec, wavs, name, bad, item, position
):
    spoilt = wavs.clone()
    spoilt[item, position] = bad
    message = f"found {re.escape(f'{bad:g}')} at sample {position} of item "
    with pytest.raises(SignalError, match=message + str(item)):
        encode(codec, name, spoilt)


def test_numbers_beyond_float32_are_refused():
    wavs = torch.zeros(2, 9, dtype=torch.float64)
    wavs[1, 3] = 1e300
    with pytest.raises(SignalError, match="inf at sample 3 of item 1"):
        admit_signals(wavs)


def test_the_loudest_that_is_let_in_does_not_overflow(codec, wavs):
    loud = MAX_MAGNITUDE * wavs.sign()
    mel, *_ = codec.codec.analyse(loud)
    assert mel.isfinite().all()
    codec.encode_batch(loud)


@pytest.mark.parametrize("bad", [0.5, math.nan, math.inf, 1e30])
def test_what_lies_past_the_end_is_not_looked_at(codec, wavs, bad):
    lengths = torch.tensor([12000, 7000])
    spoilt = wavs.clone()
    spoilt[1, 7000:] = bad
    expected = codec.encode_batch(wavs, lengths)
    found = codec.encode_batch(spoilt, lengths)
    assert all(map(torch.equal, found, expected))


def test_files_have_the_same_door(codec, tmp_path):
    for bad in (math.nan, math.inf, -1e20):
        signal = np.zeros((300_000, 2), np.float32)
        signal[290_000, 1] = bad
        soundfile.write(tmp_path / "a.wav", signal, 48000, subtype="FLOAT")
        for mix in (True, False):
            with pytest.raises(SignalError, match="290000 of channel 1"):
                codec.compress(tmp_path / "a.wav", tmp_path / "out", mix=mix)
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_admission_changes_nothing_that_was_given(wavs):
    given = wavs.clone()
    given[1, 9000:] = math.nan
    kept = given.clone()
    admit_signals(given, torch.tensor([1.0, 0.5]))
    assert torch.equal(given.nan_to_num(7.0), kept.nan_to_num(7.0))


# lengths


@pytest.mark.parametrize("name", ENCODERS)
def test_signals_have_relative_or_exact_lengths(codec, wavs, name):
    exact = torch.tensor([12000, 6001])
    expected = encode(codec, name, wavs, exact)
    for lengths in (
        exact / 12000,
        exact.double() / 12000,
        exact.int(),
        exact.tolist(),
        (exact / 12000).tolist(),
        (exact / 12000).numpy(),
    ):
        assert torch.equal(encode(codec, name, wavs, lengths), expected)
    assert not expected[1, 12:].any() and expected[1, 11].any()


@pytest.mark.parametrize("name", DECODERS)
def test_tokens_have_relative_or_exact_lengths(codec, name):
    tokens, exact = random_tokens(2, 20, 8), torch.tensor([20, 7])
    decode = getattr(codec, name)
    expected = decode(tokens, exact)
    for lengths in (exact / 20, exact.int(), exact.tolist()):
        assert torch.equal(decode(tokens, lengths), expected)
    assert expected[1, : 7 * HOP].any() and not expected[1, 7 * HOP :].any()
    full = decode(tokens)
    for lengths in ([1.0, 1.0], [20, 20]):
        assert torch.equal(decode(tokens, torch.tensor(lengths)), full)
    assert torch.equal(full[0], expected[0])


BAD_LENGTHS = [
    ([1.0], "each of 2 items.*shape \\[1\\]"),
    ([1.0, 1.0, 1.0], "each of 2 items.*shape \\[3\\]"),
    ([[1.0, 1.0]], "each of 2 items.*shape \\[1, 2\\]"),
    (1.0, "each of 2 items.*shape \\[\\]"),
    ([], "each of 2 items.*shape \\[0\\]"),
    ([1.0, 0.0], r"\(0, 1\]"),
    ([1.0, -0.5], r"\(0, 1\]"),
    ([1.0, 1.5], r"\(0, 1\], found 1 to 1.5"),
    ([10.0, 5.0], r"\(0, 1\], found 5 to 10"),
    ([1.0, math.nan], r"\(0, 1\]"),
    ([10, 0], "1..10, found 0 to 10"),
    ([10, -1], "1..10, found -1 to 10"),
    ([11, 5], "1..10, found 5 to 11"),
    ([True, False], "found torch.bool"),
    ([1j, 1j], "found torch.complex"),
]


@pytest.mark.parametrize("lengths, message", BAD_LENGTHS, ids=str)
def test_other_lengths_are_refused_by_every_call(codec, lengths, message):
    lengths = torch.tensor(lengths)
    for name in ENCODERS:
        with pytest.raises(ValueError, match=message):
            encode(codec, name, torch.zeros(2, 10), lengths)
    for name in DECODERS:
        with pytest.raises(ValueError, match=message):
            getattr(codec, name)(random_tokens(2, 10, 8), lengths)
    with pytest.raises(ValueError, match=message):
        admit_lengths(lengths, 2, 10)


@pytest.mark.parametrize("delta", [-2, -1, 0, 1, 2])
def test_no_frame_is_lost_on_the_way_there_and_back(codec, delta):
    """Edges of frames; the lengths are those of the signal both times."""
    exact = torch.tensor([HOP * k + delta for k in (1, 2, 3, 7, 10, 13, 14)])
    wavs = torch.zeros(len(exact), int(exact.max()))
    for wav, length in zip(wavs, exact, strict=True):
        wav[:length] = torch.as_tensor(speech_like(1.0, 3))[:length]
    relative = exact / exact.max()
    tokens = codec.sig_to_tokens(wavs, relative)
    decoded = codec.tokens_to_sig(tokens, relative)
    _, frames = codec.encode_batch(wavs, exact)
    assert torch.equal(frames, -(-exact // HOP))
    for i, count in enumerate((frames * HOP).tolist()):
        alone = codec.decode_batch(tokens[i : i + 1, : frames[i]])[0]
        assert decoded[i, count - HOP : count].any()
        # the last window hears of a frame that may have been gained
        inside = slice(0, max(count - 8 * HOP, 0))
        torch.testing.assert_close(
            decoded[i, inside], alone[inside], atol=2e-4, rtol=1e-3
        )


# tokens


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_of_any_width_are_tokens(codec, name, dtype):
    tokens = random_tokens(1, 5, 8, size=128)
    decode = getattr(codec, name)
    assert torch.equal(decode(tokens.to(dtype)), decode(tokens))


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.float16, torch.float32, torch.complex64]
)
def test_tokens_of_other_types_are_refused(codec, name, dtype):
    with pytest.raises(TokenError, match=f"integer tokens.*{dtype}"):
        getattr(codec, name)(torch.zeros(1, 2, 8, dtype=dtype))


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize(
    "shape",
    [(), (8,), (5, 8), (1, 8, 47), (1, 5, 9), (1, 1, 5, 8)]
    + [(0, 5, 8), (1, 0, 8), (1, 5, 0)],
    ids=str,
)
def test_tokens_of_other_shapes_are_refused(codec, name, shape):
    message = r"\[B, N, k\] with k in 1..8, found .*" + re.escape(
        str(list(shape))
    )
    with pytest.raises(TokenError, match=message):
        getattr(codec, name)(torch.zeros(shape, dtype=torch.long))


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("given", [np.zeros((1, 2, 8), int), [[[1]]], None])
def test_tokens_that_are_no_tensor_are_refused(codec, name, given):
    with pytest.raises(TypeError, match="torch.Tensor of tokens"):
        getattr(codec, name)(given)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("bad", [-1, -256, 256, 1024, 2**40])
def test_tokens_out_of_range_are_refused(codec, name, bad):
    tokens = random_tokens(3, 5, 4)
    tokens[2, 4, 1] = bad
    message = f"0..255, found {bad} at frame 4, codebook 1 of item 2"
    with pytest.raises(TokenError, match=message):
        getattr(codec, name)(tokens)


@pytest.mark.parametrize("pad", [-1, 256, 99999])
def test_tokens_past_the_end_are_not_looked_at(codec, pad):
    tokens, lengths = random_tokens(2, 9, 8), torch.tensor([9, 4])
    expected = codec.decode_batch(tokens, lengths)
    tokens[1, 4:] = pad
    assert torch.equal(codec.decode_batch(tokens, lengths), expected)
    admitted, frames = admit_tokens(tokens, lengths, [256] * 8)
    assert not admitted[1, 4:].any() and torch.equal(frames, lengths)
    assert (tokens[1, 4:] == pad).all()


@pytest.mark.parametrize("count", [0, 9, -1, 2.5, "2", (1, 2)])
def test_codebooks_are_counted_before_work_is_done(codec, wavs, count):
    with pytest.raises(ValueError, match=re.escape(f"1..8, found {count}")):
        # signals that would be refused too: the first error is this one
        codec.encode_batch(wavs.int(), num_codebooks=count)
