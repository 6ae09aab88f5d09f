"""Version 2 of the .fmac format: an open length, any chunks, a trailer."""

import io
import os
import struct
import zlib
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
    TrailingDataError,
    TruncatedStreamError,
    UnsupportedVersionError,
    conceal,
    read_tokens,
    transcode,
)

FINGERPRINT = bytes.fromhex("00112233aabbccdd")
GOLDEN = bytes.fromhex(
    # magic, version, channels, codebooks, bits
    "464d4143" "02" "02" "02" "03"
    # fingerprint, sample rate, hop length, frames per chunk, features, CRC
    "00112233aabbccdd" "00005dc0" "0200" "0002" "00000000" "947f69bf"
    # chunk of 2 frames from frame 0: head, its CRC-32, codes, their CRC-32
    "43" "0002" "00000000" "f53e225f" "053977" "7b1b6483"
    # chunk of 1 frame from frame 2
    "43" "0001" "00000002" "5c9039a3" "2ea0" "9044b0e9"
    # end: 176 samples in the last one of 3 frames
    "45" "00b0" "00000003" "65e01dab"
)  # fmt: skip
GOLDEN_TOKENS = np.array(
    [[[0, 1], [2, 3], [1, 3]], [[4, 5], [6, 7], [5, 2]]], np.int64
)
HEADER, HEAD, CHUNK = 32, 11, 15

quick = settings(deadline=None, max_examples=60)
headers = st.builds(
    StreamHeader,
    fingerprint=st.binary(min_size=8, max_size=8),
    sample_rate=st.integers(1, 2**32 - 1),
    hop_length=st.integers(1, 700),
    num_channels=st.integers(1, 3),
    num_codebooks=st.integers(1, 12),
    bits_per_code=st.integers(1, 16),
    frames_per_chunk=st.integers(1, 50),
)


class Pipe(io.BytesIO):
    """Whole reads, no seeking."""

    def seekable(self):
        return False

    def seek(self, *_):
        raise OSError("a pipe")


class Dribble:
    """A pipe at its worst: one byte at a time."""

    def __init__(self, data):
        self._inner = io.BytesIO(data)

    def read(self, size):
        return self._inner.read(min(size, 1))


KINDS = [io.BytesIO, Pipe, Dribble]


def random_tokens(header, frames, seed=0):
    shape = (header.num_channels, frames, header.num_codebooks)
    generator = np.random.default_rng(seed)
    return generator.integers(0, header.codebook_size, shape)


def encode(header, tokens, sizes=(), num_samples=None):
    """A stream whose first chunks have these sizes, at most."""
    file, start = io.BytesIO(), 0
    with BitstreamWriter(file, header) as writer:
        for size in sizes:
            writer.write(tokens[:, start : start + size])
            writer.flush()
            start += size
        writer.write(tokens[:, start:])
        writer.close(num_samples)
    return file.getvalue()


@pytest.fixture
def small():
    """A header, 11 frames, a stream of chunks of 4, 1, 2, 4 and their ends."""
    header = StreamHeader(
        FINGERPRINT, num_codebooks=3, bits_per_code=5, frames_per_chunk=4
    )
    tokens = random_tokens(header, 11)
    sizes = [4, 1, 2, 4]
    ends = np.cumsum(
        [HEADER] + [CHUNK + header.packed_bytes(size) for size in sizes]
    )
    data = encode(header, tokens, sizes, 5500)
    assert len(data) == ends[-1] + HEAD
    return header, tokens, data, ends


# The format is frozen


def golden_header():
    return StreamHeader(
        FINGERPRINT,
        num_channels=2,
        num_codebooks=2,
        bits_per_code=3,
        frames_per_chunk=2,
    )


def test_golden_file_is_written_and_read():
    data = encode(golden_header(), GOLDEN_TOKENS, num_samples=1200)
    assert data.hex() == GOLDEN.hex()
    summary, tokens, damaged = read_tokens(io.BytesIO(GOLDEN))
    assert summary.header == golden_header()
    assert (summary.num_samples, summary.num_frames) == (1200, 3)
    np.testing.assert_array_equal(tokens, GOLDEN_TOKENS)
    assert damaged == []


# Round trips


@quick
@given(headers, st.lists(st.integers(1, 60), min_size=1), st.data())
def test_any_chunks_survive_to_the_bit(header, sizes, data):
    frames = sum(sizes)
    last = data.draw(st.integers(1, header.hop_length))
    samples = (frames - 1) * header.hop_length + last
    tokens = random_tokens(header, frames)
    stream = encode(header, tokens, sizes, samples)
    for kind in KINDS:
        reader = BitstreamReader(kind(stream))
        # a file says at once how long it is, a pipe at its end
        assert reader.num_samples == (samples if kind is io.BytesIO else None)
        chunks = list(reader)
        most = header.frames_per_chunk
        assert [chunk.tokens.shape[1] for chunk in chunks] == [
            min(most, size - start)
            for size in sizes
            for start in range(0, size, most)
        ]
        starts = np.cumsum([0] + [chunk.tokens.shape[1] for chunk in chunks])
        assert [chunk.start_frame for chunk in chunks] == starts[:-1].tolist()
        joined = np.concatenate([chunk.tokens for chunk in chunks], axis=1)
        np.testing.assert_array_equal(joined, tokens)
        summary = reader.summary
        assert (summary.num_samples, summary.num_frames) == (samples, frames)
        assert summary.num_chunks == len(chunks)
        assert summary.stream_bytes == len(stream)
        assert summary.payload_bytes == sum(
            header.packed_bytes(chunk.tokens.shape[1]) for chunk in chunks
        )


@pytest.mark.parametrize("frames", [1, 47, 48, 469])
def test_sizes_are_exact(frames):
    header = StreamHeader(FINGERPRINT)
    data = encode(header, random_tokens(header, frames))
    chunks = -(-frames // 47)
    assert len(data) == HEADER + chunks * CHUNK + 8 * frames + HEAD
    summary = read_tokens(io.BytesIO(data))[0]
    assert summary.payload_bytes == 8 * frames
    assert summary.payload_bit_rate == 3000.0
    assert summary.framing_bytes == chunks * CHUNK + HEAD


def test_a_frame_is_read_before_the_next_is_written():
    """What a live stream needs: nothing waits for what comes."""
    header = StreamHeader(FINGERPRINT, frames_per_chunk=1)
    tokens = random_tokens(header, 20)
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb", 0) as out, os.fdopen(write_end, "wb") as to:
        writer = BitstreamWriter(to, header)
        reader = BitstreamReader(out)
        for frame in range(20):
            writer.write(tokens[:, frame : frame + 1])
            chunk = next(reader)
            np.testing.assert_array_equal(
                chunk.tokens, tokens[:, frame : frame + 1]
            )
        writer.close(num_samples=10_000)
        to.close()
        with pytest.raises(StopIteration):
            next(reader)
    assert reader.summary.num_samples == 10_000


def test_flush_sends_what_is_held_and_no_empty_chunk():
    header = StreamHeader(FINGERPRINT)
    tokens = random_tokens(header, 3)
    file = io.BytesIO()
    with BitstreamWriter(file, header) as writer:
        writer.flush()
        assert len(file.getvalue()) == HEADER
        writer.write(tokens)
        assert len(file.getvalue()) == HEADER
        writer.flush()
        writer.flush()
        assert len(file.getvalue()) == HEADER + CHUNK + 24


@pytest.mark.parametrize("samples", [0, 1024, 1537])
def test_the_writer_checks_the_number_of_samples(samples):
    header = StreamHeader(FINGERPRINT)
    with pytest.raises(BitstreamError, match="3 were written"):
        encode(header, random_tokens(header, 3), num_samples=samples)


def test_a_stream_without_frames_is_not_written():
    with pytest.raises(BitstreamError, match="0 were written"):
        encode(StreamHeader(FINGERPRINT), np.zeros((1, 0, 8), np.int64))


# Damage


def as_written(chunks, tokens):
    """Whether all good chunks hold what was written there."""
    return all(
        np.array_equal(
            chunk.tokens,
            tokens[:, chunk.start_frame :][:, : chunk.tokens.shape[1]],
        )
        for chunk in chunks
        if chunk.ok
    )


@pytest.mark.parametrize("kind", [io.BytesIO, Pipe])
@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_every_damaged_byte_costs_one_chunk(small, kind, flip):
    header, tokens, data, ends = small
    for place in range(len(data)):
        bad = bytearray(data)
        bad[place] ^= flip
        with pytest.raises(BitstreamError):
            read_tokens(kind(bytes(bad)))
        if place < HEADER:
            with pytest.raises(BitstreamError):
                read_tokens(kind(bytes(bad)), "conceal")
            continue
        reader = BitstreamReader(kind(bytes(bad)), "conceal")
        chunks = list(reader)
        assert as_written(chunks, tokens)
        lost = [chunk for chunk in chunks if not chunk.ok]
        assert sum(chunk.tokens.shape[1] for chunk in chunks) == 11
        hit = np.searchsorted(ends, place, "right") - 1
        sizes = [4, 1, 2, 4, 0]
        assert sum(chunk.tokens.shape[1] for chunk in lost) == sizes[hit]
        samples = 5500 if hit < 4 else 11 * 512
        assert reader.summary.num_samples == samples
        assert reader.summary.complete == (hit < 4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_truncation_is_noticed(small, kind):
    header, tokens, data, ends = small
    for size in range(len(data)):
        with pytest.raises(TruncatedStreamError):
            read_tokens(kind(data[:size]))
        if size < HEADER:
            continue
        reader = BitstreamReader(kind(data[:size]), "conceal")
        chunks = list(reader)
        assert not reader.summary.complete
        assert as_written(chunks, tokens)
        whole = np.searchsorted(ends, size, "right") - 1
        assert sum(chunk.ok for chunk in chunks) == whole


@pytest.mark.parametrize("lost", [(0,), (1,), (3,), (0, 1), (1, 2), (0, 2)])
@pytest.mark.parametrize("kind", [io.BytesIO, Pipe])
def test_chunks_that_are_gone_leave_gaps(small, lost, kind):
    header, tokens, data, ends = small
    parts = [data[ends[i] : ends[i + 1]] for i in range(4) if i not in lost]
    bad = data[:HEADER] + b"".join(parts) + data[ends[-1] :]
    with pytest.raises(ChunkDamagedError, match="missing"):
        read_tokens(kind(bad))
    reader = BitstreamReader(kind(bad), "conceal")
    chunks = list(reader)
    assert as_written(chunks, tokens)
    assert sum(chunk.tokens.shape[1] for chunk in chunks) == 11
    assert sum(chunk.ok for chunk in chunks) == 4 - len(lost)
    assert reader.summary.num_samples == 5500


@pytest.mark.parametrize("kind", [io.BytesIO, Pipe])
@pytest.mark.parametrize("size", [1, 11, 5000, 20_000])
def test_noise_between_chunks_costs_no_frames(small, size, kind):
    header, tokens, data, ends = small
    noise = np.random.default_rng(size).bytes(size) + b"CE" * size
    bad = data[: ends[2]] + noise + data[ends[2] :]
    with pytest.raises(ChunkDamagedError, match="before frame 5"):
        read_tokens(kind(bad))
    chunks = list(BitstreamReader(kind(bad), "conceal"))
    assert all(chunk.ok for chunk in chunks)
    assert as_written(chunks, tokens)
    assert sum(chunk.tokens.shape[1] for chunk in chunks) == 11


def test_repeated_and_swapped_chunks_are_noticed(small):
    header, tokens, data, ends = small
    a, b = data[ends[0] : ends[1]], data[ends[1] : ends[2]]
    rest = data[ends[2] :]
    for middle, lost in ((a + a + b, 0), (b + a, 4), (a + b + a + b, 0)):
        bad = data[:HEADER] + middle + rest
        with pytest.raises(ChunkDamagedError):
            read_tokens(io.BytesIO(bad))
        chunks = list(BitstreamReader(io.BytesIO(bad), "conceal"))
        assert as_written(chunks, tokens)
        found = sum(c.tokens.shape[1] for c in chunks if not c.ok)
        assert found == lost


def test_a_chunk_of_another_file_is_noticed(small):
    header, tokens, data, ends = small
    other = encode(replace(header, fingerprint=bytes(8)), tokens, [4, 1, 2, 4])
    mixed = data[: ends[1]] + other[ends[1] : ends[2]] + data[ends[2] :]
    with pytest.raises(ChunkDamagedError, match="frames 4..4"):
        read_tokens(io.BytesIO(mixed))
    assert read_tokens(io.BytesIO(mixed), "conceal")[2] == [1]


def test_codes_of_another_chunk_are_noticed():
    header = StreamHeader(FINGERPRINT, frames_per_chunk=1)
    tokens = random_tokens(header, 2)
    data = bytearray(encode(header, tokens))
    first, second = HEADER + HEAD, HEADER + CHUNK + 8 + HEAD
    data[second : second + 12] = data[first : first + 12]
    with pytest.raises(ChunkDamagedError, match="frame 1 does not"):
        read_tokens(io.BytesIO(bytes(data)))


def test_reading_can_go_on_after_a_damaged_chunk(small):
    header, tokens, data, ends = small
    bad = bytearray(data)
    bad[ends[1]] ^= 1
    reader = BitstreamReader(io.BytesIO(bytes(bad)))
    next(reader)
    with pytest.raises(ChunkDamagedError):
        next(reader)
    np.testing.assert_array_equal(next(reader).tokens, tokens[:, 5:7])


def test_size_faults_of_a_file_are_noticed_before_decoding(small):
    _, _, data, _ = small
    with pytest.raises(TruncatedStreamError, match=f"{len(data) - 1} bytes"):
        BitstreamReader(io.BytesIO(data[:-1]))
    with pytest.raises(TrailingDataError, match="3 bytes follow"):
        BitstreamReader(io.BytesIO(data + b"xyz"))


def test_trailing_bytes_of_a_pipe_are_noticed_or_ignored(small):
    _, _, data, _ = small
    with pytest.raises(TrailingDataError):
        read_tokens(Pipe(data + b"x"))
    assert read_tokens(Pipe(data + b"x"), "conceal")[2] == []


# Streams that lie


def sealed(header, kind, count, frame):
    """A head with a right checksum, whatever it says."""
    fields = struct.pack(">BHI", kind, count, frame)
    tie = zlib.crc32(header.to_bytes()[-4:])
    return fields + struct.pack(">I", zlib.crc32(fields, tie))


@pytest.mark.parametrize("kind", [io.BytesIO, Pipe])
@pytest.mark.parametrize("frames", [2**32 - 1, 2**31, 5000])
def test_a_forged_length_is_not_believed(small, kind, frames):
    header, tokens, data, ends = small
    bad = data[: ends[-1]] + sealed(header, ord("E"), 1, frames)
    with pytest.raises(TruncatedStreamError, match="conceal-all"):
        list(conceal(BitstreamReader(kind(bad), "conceal")))
    with pytest.raises(BitstreamError):
        read_tokens(kind(bad))


def test_all_that_is_claimed_can_be_concealed(small):
    header, tokens, data, ends = small
    bad = data[: ends[-1]] + sealed(header, ord("E"), 1, 5000)
    summary, read, damaged = read_tokens(io.BytesIO(bad), "conceal-all")
    assert read.shape == (1, 5000, 3)
    assert (read[:, 11:] == tokens[:, 10:11]).all()
    assert summary.damaged_chunks == len(damaged) == -(-4989 // 4)


@pytest.mark.parametrize(
    "kind, count, frame",
    [
        (ord("C"), 0, 0),
        (ord("C"), 5, 0),
        (ord("C"), 4, 2**32 - 2),
        (ord("E"), 0, 11),
        (ord("E"), 513, 11),
        (ord("E"), 1, 0),
        (ord("E"), 1, 3),
    ],
)
def test_impossible_heads_are_damage(small, kind, count, frame):
    header, tokens, data, ends = small
    bad = data[: ends[1]] + sealed(header, kind, count, frame) + data[ends[1] :]
    chunks = list(BitstreamReader(Pipe(bad), "conceal"))
    assert as_written(chunks, tokens)
    assert sum(chunk.ok for chunk in chunks) == 4


def test_kinds_to_come_are_refused_or_concealed(small):
    header, tokens, data, ends = small
    new = sealed(header, ord("R"), 1, 4) + b"of what is not known yet"
    bad = data[: ends[1]] + new + data[ends[2] :]
    with pytest.raises(UnsupportedVersionError, match="kind 82"):
        read_tokens(io.BytesIO(bad))
    assert read_tokens(io.BytesIO(bad), "conceal")[2] == [1]


def test_features_to_come_are_refused():
    fields = StreamHeader(FINGERPRINT).to_bytes()[:24] + bytes([0, 0, 0, 4])
    data = fields + struct.pack(">I", zlib.crc32(fields))
    for policy in ("raise", "conceal"):
        with pytest.raises(UnsupportedVersionError, match="features 00000004"):
            BitstreamReader(io.BytesIO(data), policy)


@pytest.mark.parametrize(
    "offset, value",
    [(5, 0), (6, 0), (7, 0), (7, 17), (16, 0), (20, 0), (22, 0)],
)
def test_a_lying_header_with_a_good_crc_is_refused(offset, value):
    size = {16: 4, 20: 2, 22: 2}.get(offset, 1)
    fields = bytearray(StreamHeader(FINGERPRINT).to_bytes()[:28])
    fields[offset : offset + size] = value.to_bytes(size, "big")
    data = bytes(fields) + struct.pack(">I", zlib.crc32(fields))
    with pytest.raises(HeaderDamagedError):
        BitstreamReader(io.BytesIO(data))


@quick
@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_raise_nothing_else(data, whole_header):
    begin = StreamHeader(FINGERPRINT).to_bytes() if whole_header else b"FMAC\2"
    for kind in (io.BytesIO, Pipe):
        with pytest.raises(BitstreamError):
            read_tokens(kind(begin + data))


# Transcoding


@quick
@given(headers, st.lists(st.integers(1, 60), min_size=1), st.data())
def test_transcoding_keeps_version_chunks_and_length(
    tmp_path_factory, header, sizes, data
):
    kept = data.draw(st.integers(1, header.num_codebooks))
    tokens = random_tokens(header, sum(sizes))
    samples = sum(sizes) * header.hop_length - header.hop_length // 2
    source = io.BytesIO(encode(header, tokens, sizes, samples))
    path = tmp_path_factory.mktemp("transcode") / "b.fmac"
    summary = transcode(source, path, kept)
    lower = replace(header, num_codebooks=kept)
    assert summary.header == lower
    expected = encode(lower, tokens[:, :, :kept], sizes, samples)
    assert path.read_bytes() == expected
    assert summary.stream_bytes == len(expected)
