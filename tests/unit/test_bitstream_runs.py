"""Streams of runs: frames that are like the one before are not written."""

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from speechbrain_flowmac.bitstream import (
    BitstreamError,
    BitstreamReader,
    BitstreamWriter,
    ChunkDamagedError,
    HeaderDamagedError,
    StreamHeader,
    TruncatedStreamError,
    UnsupportedVersionError,
    conceal,
    pack_codes,
    read_tokens,
    transcode,
    unpack_codes,
)

FINGERPRINT = bytes.fromhex("00112233aabbccdd")
GOLDEN = bytes.fromhex(
    # magic, version, channels, codebooks, bits
    "464d4143" "02" "02" "02" "03"
    # fingerprint, sample rate, hop length, frames per chunk
    "00112233aabbccdd" "00005dc0" "0200" "0004"
    # features: runs, 5 bits for codes of the first codebook; CRC
    "00000501" "114f58cc"
    # 4 frames from frame 0: new 1001 1000, codes 17 1, 30 7, 2 5
    "52" "0004" "00000000" "ce071982" "9889f715" "80667e96"
    # 1 frame from frame 4: new 1 1, codes 30 7, 2 5
    "52" "0001" "00000004" "018a52eb" "fdc540" "bad03bfe"
    # end: 176 samples in the last one of 5 frames
    "45" "00b0" "00000005" "f953e199"
)  # fmt: skip
GOLDEN_TOKENS = np.array(
    [
        [[17, 1], [17, 1], [17, 1], [30, 7], [30, 7]],
        [[2, 5], [2, 5], [2, 5], [2, 5], [2, 5]],
    ],
    np.int64,
)
HEADER, HEAD, CHUNK = 32, 11, 15

headers = st.builds(
    StreamHeader,
    fingerprint=st.binary(min_size=8, max_size=8),
    hop_length=st.integers(1, 700),
    num_channels=st.integers(1, 3),
    num_codebooks=st.integers(1, 5),
    bits_per_code=st.integers(1, 16),
    frames_per_chunk=st.integers(1, 50),
    runs=st.just(True),
    first_code_bits=st.integers(0, 16),
)


def random_tokens(header, frames, longest=8, seed=0):
    """Tokens whose frames last; the channels do not change together."""
    generator = np.random.default_rng(seed)
    channels = []
    for _ in range(header.num_channels):
        shape = (frames, header.num_codebooks)
        codes = generator.integers(0, 2 ** np.array(header.code_bits), shape)
        times = generator.integers(1, longest + 1, frames)
        channels.append(np.repeat(codes, times, axis=0)[:frames])
    return np.stack(channels)


def encode(header, tokens, num_samples=None):
    file = io.BytesIO()
    with BitstreamWriter(file, header) as writer:
        writer.write(tokens)
        writer.close(num_samples)
    assert writer.summary.stream_bytes == len(file.getvalue())
    return file.getvalue()


def payload_bits(header, tokens):
    """One bit a frame, and the codes of those that differ from the last."""
    total = tokens.shape[0] * tokens.shape[1]
    for channel in tokens:
        changes = [True, *(np.diff(channel, axis=0) != 0).any(1)]
        total += sum(changes) * sum(header.code_bits)
    return total


@pytest.fixture
def small():
    """A header, 23 frames, and their stream of chunks of 8, 8 and 7."""
    header = StreamHeader(
        FINGERPRINT,
        num_codebooks=3,
        bits_per_code=5,
        frames_per_chunk=8,
        runs=True,
        first_code_bits=13,
    )
    tokens = random_tokens(header, 23)
    return header, tokens, encode(header, tokens)


def test_codes_of_several_widths_are_packed_in_turn():
    codes = np.array([5000, 1, 0, 8191, 31, 7])
    data = pack_codes(codes, [13, 5, 3])
    bits = f"{5000:013b}{1:05b}{0:03b}{8191:013b}{31:05b}{7:03b}"
    assert data == int(bits.ljust(48, "0"), 2).to_bytes(6, "big")
    np.testing.assert_array_equal(unpack_codes(data, [13, 5, 3], 6), codes)


@pytest.mark.parametrize("codes", [[32, 0, 0], [0, 0]])
def test_codes_that_do_not_fit_their_widths_are_refused(codes):
    with pytest.raises(BitstreamError, match="must be"):
        pack_codes(np.array(codes), [5, 5, 3])


def test_golden_file_is_written_and_read():
    header = StreamHeader(
        FINGERPRINT,
        num_channels=2,
        num_codebooks=2,
        bits_per_code=3,
        frames_per_chunk=4,
        runs=True,
        first_code_bits=5,
    )
    data = encode(header, GOLDEN_TOKENS, num_samples=4 * 512 + 176)
    assert data.hex() == GOLDEN.hex()
    summary, tokens, damaged = read_tokens(io.BytesIO(GOLDEN))
    assert summary.header == header
    assert (summary.num_frames, summary.payload_bytes) == (5, 7)
    np.testing.assert_array_equal(tokens, GOLDEN_TOKENS)
    assert damaged == []


@settings(deadline=None, max_examples=60)
@given(headers, st.integers(1, 120), st.integers(1, 12), st.integers(0, 99))
def test_tokens_survive_in_exactly_the_bits_that_are_stated(
    header, frames, longest, seed
):
    tokens = random_tokens(header, frames, longest, seed)
    data = encode(header, tokens)
    summary, found, _ = read_tokens(io.BytesIO(data))
    np.testing.assert_array_equal(found, tokens)
    size = header.frames_per_chunk
    chunks = [tokens[:, i : i + size] for i in range(0, frames, size)]
    payload = sum(-(-payload_bits(header, chunk) // 8) for chunk in chunks)
    assert summary.payload_bytes == payload
    assert len(data) == HEADER + CHUNK * len(chunks) + payload + HEAD
    least = [header.least_bytes(chunk.shape[1]) for chunk in chunks]
    most = [header.packed_bytes(chunk.shape[1]) for chunk in chunks]
    assert sum(least) <= payload <= sum(most)


def test_what_lasts_costs_one_bit_a_frame(small):
    header, tokens, _ = small
    one = replace(header, frames_per_chunk=1000)
    held = np.repeat(tokens[:, :1], 1000, axis=1)
    data = encode(one, held)
    assert len(data) == HEADER + CHUNK + (1000 + 23 + 7) // 8 + HEAD


def test_a_damaged_chunk_costs_itself_alone(small):
    header, tokens, data = small
    second = HEADER + CHUNK + -(-payload_bits(header, tokens[:, :8]) // 8)
    for place in range(second + HEAD, second + HEAD + 4):
        for change in (0x80, 0xFF):
            bad = bytearray(data)
            bad[place] ^= change
            reader = BitstreamReader(io.BytesIO(bad), "conceal")
            chunks = list(conceal(reader))
            assert [chunk.ok for chunk in chunks] == [True, False, True]
            found = np.concatenate([chunk.tokens for chunk in chunks], 1)
            held = np.repeat(tokens[:, 7:8], 8, 1)
            expected = np.concatenate([tokens[:, :8], held, tokens[:, 16:]], 1)
            np.testing.assert_array_equal(found, expected)
            assert reader.summary.damaged_chunks == 1


@pytest.mark.parametrize("change", [1, 0x80, 0xFF])
def test_every_damaged_byte_is_noticed(small, change):
    _, _, data = small
    for place in range(len(data)):
        bad = bytearray(data)
        bad[place] ^= change
        with pytest.raises(BitstreamError):
            list(BitstreamReader(io.BytesIO(bad)))


def test_reading_goes_on_after_a_damaged_chunk(small):
    _, tokens, data = small
    bad = bytearray(data)
    bad[HEADER + HEAD] ^= 0xFF
    reader = BitstreamReader(io.BytesIO(bad))
    with pytest.raises(ChunkDamagedError, match="frame 0"):
        next(reader)
    np.testing.assert_array_equal(next(reader).tokens, tokens[:, 8:16])
    np.testing.assert_array_equal(next(reader).tokens, tokens[:, 16:])
    with pytest.raises(StopIteration):
        next(reader)


def test_every_cut_is_noticed(small):
    _, _, data = small
    for size in range(HEADER, len(data)):
        with pytest.raises(TruncatedStreamError):
            list(BitstreamReader(io.BytesIO(data[:size])))


def test_a_chunk_must_begin_with_a_new_frame(small):
    from speechbrain_flowmac.bitstream.version2 import Version2

    header = replace(small[0], frames_per_chunk=2)
    layout = Version2(header)
    payload = bytes(header.least_bytes(2))
    data = header.to_bytes() + layout.chunk(0, 0, 2, payload)
    data += layout.end(2, 2 * header.hop_length)
    with pytest.raises(ChunkDamagedError, match="first frame"):
        list(BitstreamReader(io.BytesIO(data)))


def test_transcoding_merges_what_has_become_alike():
    header = StreamHeader(FINGERPRINT, num_codebooks=2, runs=True)
    tokens = np.array([[[1, 2], [1, 3], [1, 3], [4, 3]]])
    target = io.BytesIO()
    summary = transcode(io.BytesIO(encode(header, tokens)), target, 1)
    # 4 bits, and the first and the last frame's code of 8 bits
    assert summary.payload_bytes == 3
    found = read_tokens(io.BytesIO(target.getvalue()))[1]
    np.testing.assert_array_equal(found, tokens[..., :1])


def test_readers_refuse_features_that_they_do_not_know(small):
    from speechbrain_flowmac.bitstream import header as module

    _, _, data = small
    fields = bytearray(data[:28])
    fields[24] = 1
    sealed = bytes(fields) + module.CRC.pack(module.zlib.crc32(fields))
    with pytest.raises(UnsupportedVersionError, match="01000d01"):
        StreamHeader.from_bytes(sealed)


def test_headers_refuse_what_no_stream_has(small):
    from speechbrain_flowmac.bitstream import header as module

    _, _, data = small
    fields = bytearray(data[:28])
    fields[26] = 17
    sealed = bytes(fields) + module.CRC.pack(module.zlib.crc32(fields))
    with pytest.raises(HeaderDamagedError, match="first_code_bits"):
        StreamHeader.from_bytes(sealed)
    for change in ({"runs": True}, {"first_code_bits": 3}):
        with pytest.raises(BitstreamError, match="version 1"):
            StreamHeader(FINGERPRINT, num_samples=600, **change)


def test_rates_count_the_bits_of_both_streams(small):
    header = replace(small[0], num_codebooks=14, bits_per_code=8)
    assert header.code_bits == (13, *[8] * 13)
    assert header.bits_per_frame == 13 + 13 * 8 + 1
    assert header.bit_rate == 118 * 46.875


def test_tokens_must_fit_the_width_of_their_codebook(small):
    header, _, _ = small
    tokens = np.array([[[8191, 31, 31]]])
    encode(header, tokens)
    with pytest.raises(BitstreamError, match=r"codebook 1 must be 0\.\.31"):
        encode(header, tokens[..., [0, 0, 1]])
