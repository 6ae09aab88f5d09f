"""The .fmac format, version 1 first: exact sizes and tokens, no fault unnoticed."""

import io
import itertools
import os
import struct
import time
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from speechbrain_flowmac.bitstream import (
    MAX_CLAIM,
    MAX_TOKENS_IN_MEMORY,
    BitstreamError,
    BitstreamReader,
    BitstreamWriter,
    Chunk,
    ChunkDamagedError,
    HeaderDamagedError,
    NotAnFmacFileError,
    StreamHeader,
    TrailingDataError,
    TruncatedStreamError,
    UnsupportedVersionError,
    conceal,
    pack_codes,
    read_tokens,
    transcode,
    unpack_codes,
    write_tokens,
)
from speechbrain_flowmac.bitstream.version1 import Version1

FINGERPRINT = bytes.fromhex("00112233aabbccdd")
GOLDEN = bytes.fromhex(
    # magic, version, channels, codebooks, bits
    "464d4143" "01" "02" "02" "03"
    # fingerprint, sample rate, hop length, frames per chunk
    "00112233aabbccdd" "00005dc0" "0200" "0002"
    # samples, frames, CRC-32
    "00000000000004b0" "00000003" "71683f97"
    # chunk 0: 2 frames of 2 channels of 2 codes; chunk 1: 1 frame
    "00f7bac0" "053977" "a1046d6c" "2ea0"
)  # fmt: skip
GOLDEN_TOKENS = np.array(
    [[[0, 1], [2, 3], [1, 3]], [[4, 5], [6, 7], [5, 2]]], np.int64
)

quick = settings(deadline=None, max_examples=60)


class Dribble:
    """A pipe at its worst: one byte at a time, no seeking."""

    def __init__(self, data):
        self._inner = io.BytesIO(data)

    def read(self, size):
        return self._inner.read(min(size, 1))

    def write(self, data):
        return self._inner.write(data[:1])

    def getvalue(self):
        return self._inner.getvalue()


class Pipe(io.BytesIO):
    """Whole reads, no seeking."""

    def seekable(self):
        return False

    def seek(self, *_):
        raise OSError("a pipe")


def random_tokens(header, seed=0):
    shape = (header.num_channels, header.num_frames, header.num_codebooks)
    generator = np.random.default_rng(seed)
    return generator.integers(0, header.codebook_size, shape)


def encode(header, tokens):
    file = io.BytesIO()
    with BitstreamWriter(file, header) as writer:
        writer.write(tokens)
    return file.getvalue()


def small_stream(**changes):
    """A header, its tokens and its file: 11 frames in chunks of 4, 4, 3."""
    values = {"num_samples": 5500, "fingerprint": FINGERPRINT}
    values |= {"num_codebooks": 3, "bits_per_code": 5, "frames_per_chunk": 4}
    header = StreamHeader(**(values | changes))
    tokens = random_tokens(header)
    return header, tokens, encode(header, tokens)


def chunk_span(header, index):
    """Where chunk ``index`` lies in the file."""
    sizes = [Version1(header).chunk_bytes(i) for i in range(index + 1)]
    start = header.header_bytes + sum(sizes[:-1])
    return start, start + sizes[-1]


def sealed(fields):
    """Header bytes with a correct CRC-32, whatever they say."""
    return fields + struct.pack(">I", zlib.crc32(fields))


headers = st.builds(
    StreamHeader,
    num_samples=st.integers(1, 4000),
    fingerprint=st.binary(min_size=8, max_size=8),
    sample_rate=st.integers(1, 2**32 - 1),
    hop_length=st.integers(64, 700),
    num_channels=st.integers(1, 3),
    num_codebooks=st.integers(1, 12),
    bits_per_code=st.integers(1, 16),
    frames_per_chunk=st.integers(1, 50),
)


# Packing


@quick
@given(st.integers(1, 16), st.integers(0, 200), st.integers(0, 2**32))
def test_packing_is_inverted_and_exact_in_size(bits, count, seed):
    codes = np.random.default_rng(seed).integers(0, 2**bits, count)
    data = pack_codes(codes, bits)
    assert len(data) == -(-count * bits // 8)
    unpacked = unpack_codes(data, bits, count)
    assert unpacked.dtype == np.int64
    np.testing.assert_array_equal(unpacked, codes)


@quick
@given(st.integers(1, 16), st.lists(st.integers(0, 2**16), max_size=40))
def test_packing_is_msb_first(bits, values):
    values = [value % 2**bits for value in values]
    text = "".join(f"{value:0{bits}b}" for value in values)
    text += "0" * (-len(text) % 8)
    expected = bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
    assert pack_codes(np.array(values, np.int32), bits) == expected


@pytest.mark.parametrize("codes", [[256], [-1], [0.5], [[1]], []])
def test_packing_refuses_what_does_not_fit(codes):
    with pytest.raises(BitstreamError):
        pack_codes(np.array(codes), 8)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint64, np.int64])
def test_packing_takes_any_integer_type(dtype):
    assert pack_codes(np.array([1, 127], dtype), 8) == b"\x01\x7f"


@pytest.mark.parametrize("bits", [0, 17, 2.5, None])
def test_packing_refuses_odd_bits(bits):
    with pytest.raises(BitstreamError, match="bits"):
        pack_codes(np.array([0]), bits)
    with pytest.raises(BitstreamError, match="bits"):
        unpack_codes(b"\0", bits, 1)


@pytest.mark.parametrize("count", [-1, 0, 3, 2**40])
def test_unpacking_refuses_a_wrong_size(count):
    with pytest.raises(BitstreamError):
        unpack_codes(b"\0\0", 8, count)


# Header


@quick
@given(headers)
def test_header_survives_and_predicts_sizes(header):
    data = header.to_bytes()
    assert len(data) == header.header_bytes == 40
    assert StreamHeader.from_bytes(data) == header
    file = encode(header, random_tokens(header))
    assert len(file) == Version1(header).stream_bytes
    checksums = 4 * Version1(header).num_chunks
    summary = read_tokens(io.BytesIO(file))[0]
    assert len(file) == summary.stream_bytes
    assert len(file) - 40 - checksums == summary.payload_bytes


@pytest.mark.parametrize("samples", [1, 511, 512, 513, 24_000, 240_001])
def test_eight_bytes_per_frame_at_three_kbps(samples):
    header = StreamHeader(FINGERPRINT, num_samples=samples)
    data = encode(header, random_tokens(header))
    payload = len(data) - 40 - 4 * Version1(header).num_chunks
    assert payload == -(-samples // 512) * 8
    assert header.bit_rate == 3000.0
    assert replace(header, num_codebooks=1).bit_rate == 375.0
    assert replace(header, num_channels=2).bit_rate == 6000.0


@pytest.mark.parametrize(
    "change",
    [
        {"num_samples": 0},
        {"num_samples": 2**64},
        {"num_samples": 1.5},
        {"num_samples": 2**33, "hop_length": 1},
        {"fingerprint": b"short"},
        {"fingerprint": "00112233"},
        {"sample_rate": 0},
        {"sample_rate": 2**32},
        {"hop_length": 0},
        {"hop_length": 2**16},
        {"num_channels": 0},
        {"num_channels": 256},
        {"num_codebooks": 0},
        {"num_codebooks": 256},
        {"bits_per_code": 0},
        {"bits_per_code": 17},
        {"frames_per_chunk": 0},
        {"frames_per_chunk": 2**16},
        {"frames_per_chunk": 60_000, "num_codebooks": 100},
    ],
)
def test_header_refuses_impossible_values(change):
    with pytest.raises(BitstreamError, match="found"):
        StreamHeader(**({"num_samples": 1, "fingerprint": bytes(8)} | change))


def test_header_takes_numpy_integers():
    header = StreamHeader(
        bytes(8), hop_length=np.int32(512), num_samples=np.int64(600)
    )
    assert type(header.num_samples) is int
    assert header == StreamHeader(bytes(8), num_samples=600)


def test_reading_tells_foreign_new_and_damaged_headers_apart():
    _, _, data = small_stream()
    cases = [
        (b"RIFF" + data[4:], NotAnFmacFileError),
        (b"R", NotAnFmacFileError),
        (data[:4] + b"\3" + data[5:], UnsupportedVersionError),
        (data[:16] + b"\xff" + data[17:], HeaderDamagedError),
        (data[:39], TruncatedStreamError),
        (b"", TruncatedStreamError),
        (data[:-1], TruncatedStreamError),
        (data + b"\0", TrailingDataError),
    ]
    for bad, error in cases:
        with pytest.raises(error):
            BitstreamReader(io.BytesIO(bad))


@pytest.mark.parametrize(
    "offset, value",
    [(5, 0), (6, 0), (7, 0), (7, 17), (16, 0), (20, 0), (22, 0), (35, 9)],
)
def test_a_lying_header_with_a_good_crc_is_refused(offset, value):
    header, _, _ = small_stream()
    size = {16: 4, 20: 2, 22: 2}.get(offset, 1)
    fields = bytearray(header.to_bytes()[:36])
    fields[offset : offset + size] = value.to_bytes(size, "big")
    with pytest.raises(HeaderDamagedError):
        BitstreamReader(io.BytesIO(sealed(bytes(fields))))


# The format is frozen


def golden_header():
    return StreamHeader(
        num_samples=1200,
        fingerprint=FINGERPRINT,
        num_channels=2,
        num_codebooks=2,
        bits_per_code=3,
        frames_per_chunk=2,
    )


def test_golden_file_is_written():
    assert encode(golden_header(), GOLDEN_TOKENS).hex() == GOLDEN.hex()


def test_golden_file_is_read():
    summary, tokens, damaged = read_tokens(io.BytesIO(GOLDEN))
    assert summary.header == golden_header()
    np.testing.assert_array_equal(tokens, GOLDEN_TOKENS)
    assert damaged == []


# Round trips


@quick
@given(headers, st.lists(st.integers(0, 60), max_size=8))
def test_tokens_survive_any_split_of_writes(header, splits):
    tokens = random_tokens(header)
    file, start = io.BytesIO(), 0
    with BitstreamWriter(file, header) as writer:
        for size in splits:
            writer.write(tokens[:, start : start + size])
            start += size
        writer.write(tokens[:, start:])
    assert file.getvalue() == encode(header, tokens)
    file.seek(0)
    found, read, damaged = read_tokens(file)
    assert (found.header, damaged) == (header, [])
    assert read.dtype == np.int64
    np.testing.assert_array_equal(read, tokens)


@pytest.mark.parametrize("kind", [io.BytesIO, Dribble, Pipe])
@pytest.mark.parametrize("on_damage", ["raise", "conceal"])
def test_any_kind_of_stream_is_read(kind, on_damage):
    header, tokens, data = small_stream(num_channels=2)
    found, read, damaged = read_tokens(kind(data), on_damage)
    assert (found.header, damaged) == (header, [])
    np.testing.assert_array_equal(read, tokens)


def test_chunks_say_where_they_belong():
    header, tokens, data = small_stream(num_channels=2)
    chunks = list(BitstreamReader(io.BytesIO(data)))
    assert [chunk.index for chunk in chunks] == [0, 1, 2]
    assert [chunk.start_frame for chunk in chunks] == [0, 4, 8]
    assert [chunk.tokens.shape[1] for chunk in chunks] == [4, 4, 3]
    joined = np.concatenate([chunk.tokens for chunk in chunks], axis=1)
    np.testing.assert_array_equal(joined, tokens)


def test_a_stream_may_begin_in_the_middle_of_a_file():
    _, tokens, data = small_stream()
    file = io.BytesIO(b"something else" + data)
    file.seek(14)
    np.testing.assert_array_equal(read_tokens(file)[1], tokens)


def test_a_full_chunk_is_written_at_once():
    header, tokens, data = small_stream()
    file = io.BytesIO()
    writer = BitstreamWriter(file, header)
    assert file.getvalue() == header.to_bytes()
    writer.write(tokens[:, :3])
    assert len(file.getvalue()) == header.header_bytes
    writer.write(tokens[:, 3:4])
    assert len(file.getvalue()) == chunk_span(header, 0)[1]
    writer.write(tokens[:, 4:])
    assert file.getvalue() == data


def test_short_writes_are_completed():
    header, tokens, data = small_stream()
    file = Dribble(b"")
    with BitstreamWriter(file, header) as writer:
        writer.write(tokens)
    assert file.getvalue() == data


# The writer's refusals


def test_writer_refuses_too_few_and_too_many_frames():
    header, tokens, _ = small_stream()
    writer = BitstreamWriter(io.BytesIO(), header)
    writer.write(tokens[:, :5])
    with pytest.raises(BitstreamError, match="11 frames.*16"):
        writer.write(tokens)
    with pytest.raises(BitstreamError, match="11 frames, 5"):
        writer.close()
    writer.close()
    with pytest.raises(BitstreamError, match="closed"):
        writer.write(tokens)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((11, 3), np.int64),
        np.zeros((2, 11, 3), np.int64),
        np.zeros((1, 11, 4), np.int64),
        np.zeros((1, 11, 3), np.float32),
        np.full((1, 11, 3), 32),
        np.full((1, 11, 3), -1),
    ],
)
def test_writer_refuses_tokens_that_do_not_fit(bad):
    header, tokens, data = small_stream()
    file = io.BytesIO()
    writer = BitstreamWriter(file, header)
    with pytest.raises(BitstreamError, match="found"):
        writer.write(bad)
    # A refused call leaves no trace.
    writer.write(tokens)
    writer.close()
    assert file.getvalue() == data


def test_writer_does_not_hide_the_error_of_its_body():
    header, _, _ = small_stream()
    with pytest.raises(KeyError):
        with BitstreamWriter(io.BytesIO(), header):
            raise KeyError("the real one")


def test_writer_notices_a_full_device():
    class Full:
        def write(self, data):
            return 0

    with pytest.raises(OSError, match="no more"):
        BitstreamWriter(Full(), small_stream()[0])


# Damage


@pytest.mark.parametrize("kind", [io.BytesIO, Pipe])
@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_every_damaged_byte_is_noticed(kind, flip):
    header, tokens, data = small_stream()
    for place in range(len(data)):
        bad = bytearray(data)
        bad[place] ^= flip
        with pytest.raises(BitstreamError):
            read_tokens(kind(bytes(bad)))
        if place < header.header_bytes:
            with pytest.raises(BitstreamError):
                read_tokens(kind(bytes(bad)), "conceal")
            continue
        reader = BitstreamReader(kind(bytes(bad)), "conceal")
        for chunk in reader:
            start, stop = chunk_span(header, chunk.index)
            assert chunk.ok is not (start <= place < stop)
            first = chunk.start_frame
            expected = tokens[:, first : first + header.frames_per_chunk]
            expected = expected if chunk.ok else np.zeros_like(expected)
            np.testing.assert_array_equal(chunk.tokens, expected)


@pytest.mark.parametrize("kind", [io.BytesIO, Dribble, Pipe])
def test_every_truncation_is_noticed(kind):
    header, tokens, data = small_stream()
    for size in range(len(data)):
        with pytest.raises(TruncatedStreamError):
            read_tokens(kind(data[:size]))
        if size < header.header_bytes:
            with pytest.raises(TruncatedStreamError):
                read_tokens(kind(data[:size]), "conceal")
            continue
        if len(data) > MAX_CLAIM * size:
            with pytest.raises(TruncatedStreamError, match="conceal-all"):
                read_tokens(kind(data[:size]), "conceal")
        chunks = list(BitstreamReader(kind(data[:size]), "conceal-all"))
        assert len(chunks) == Version1(header).num_chunks
        for chunk in chunks:
            assert chunk.ok is (chunk_span(header, chunk.index)[1] <= size)


def test_truncation_of_a_seekable_file_is_noticed_before_decoding():
    _, _, data = small_stream()
    with pytest.raises(TruncatedStreamError, match=f"{len(data)} bytes"):
        BitstreamReader(io.BytesIO(data[:-1]))
    reader = BitstreamReader(Pipe(data[:-1]))
    assert next(reader).ok and next(reader).ok
    with pytest.raises(TruncatedStreamError, match="chunk 2"):
        next(reader)


def test_trailing_bytes_of_a_pipe_are_noticed_or_ignored():
    header, _, data = small_stream()
    with pytest.raises(TrailingDataError):
        read_tokens(Pipe(data + b"x"))
    assert read_tokens(Pipe(data + b"x"), "conceal")[2] == []


def test_swapped_chunks_are_noticed():
    header, _, data = small_stream()
    (a, b), (_, c) = chunk_span(header, 0), chunk_span(header, 1)
    swapped = data[:a] + data[b:c] + data[a:b] + data[c:]
    with pytest.raises(ChunkDamagedError, match="chunk 0"):
        read_tokens(io.BytesIO(swapped))
    assert read_tokens(io.BytesIO(swapped), "conceal")[2] == [0, 1]


def test_a_chunk_of_another_file_is_noticed():
    header, tokens, data = small_stream()
    other = encode(replace(header, fingerprint=bytes(8)), tokens)
    start, stop = chunk_span(header, 1)
    mixed = data[:start] + other[start:stop] + data[stop:]
    with pytest.raises(ChunkDamagedError, match="chunk 1"):
        read_tokens(io.BytesIO(mixed))


def test_a_short_chunk_with_a_matching_crc_is_still_short():
    header, _, data = small_stream()
    start, stop = chunk_span(header, 2)
    payload = data[start + 4 : stop - 1]
    place = struct.pack(">I", 2) + header.to_bytes()[-4:]
    crc = struct.pack(">I", zlib.crc32(place + payload))
    short = data[:start] + crc + payload
    assert read_tokens(Pipe(short), "conceal")[2] == [2]
    with pytest.raises(TruncatedStreamError):
        read_tokens(Pipe(short))


def test_reading_can_go_on_after_a_damaged_chunk():
    header, tokens, data = small_stream()
    bad = bytearray(data)
    bad[chunk_span(header, 1)[0]] ^= 1
    reader = BitstreamReader(io.BytesIO(bytes(bad)))
    next(reader)
    with pytest.raises(ChunkDamagedError):
        next(reader)
    np.testing.assert_array_equal(next(reader).tokens, tokens[:, 8:])


@pytest.mark.parametrize("word", ["", "ignore", None, True])
def test_unknown_policy_is_refused(word):
    with pytest.raises(ValueError, match="on_damage"):
        BitstreamReader(io.BytesIO(GOLDEN), word)


@quick
@given(st.binary(max_size=300), st.booleans(), st.booleans())
def test_random_bytes_raise_nothing_else(data, with_magic, seekable):
    data = b"FMAC\x01" + data if with_magic else data
    for on_damage in ("raise", "conceal"):
        with pytest.raises(BitstreamError):
            file = io.BytesIO(data) if seekable else Pipe(data)
            read_tokens(file, on_damage)


@quick
@given(st.binary(min_size=31, max_size=31), st.binary(max_size=99))
def test_forged_headers_raise_nothing_else(rest, body):
    data = sealed(b"FMAC\x01" + rest) + body
    for kind in (io.BytesIO, Pipe):
        with pytest.raises(BitstreamError):
            read_tokens(kind(data))


@quick
@given(
    st.integers(1, 2**40),
    st.integers(1, 255),
    st.integers(1, 16),
    st.binary(max_size=99),
)
def test_a_forged_length_costs_no_memory(samples, books, bits, body):
    header = StreamHeader(
        bytes(8),
        num_codebooks=books,
        bits_per_code=bits,
        num_samples=samples,
    )
    data = header.to_bytes() + body
    with pytest.raises(BitstreamError):
        for _ in BitstreamReader(Pipe(data)):
            pass
    reader = BitstreamReader(Pipe(data), "conceal-all")
    assert not any(chunk.ok for chunk in itertools.islice(reader, 5))


@pytest.mark.parametrize("kind", [io.BytesIO, Pipe])
@pytest.mark.parametrize("body", [b"", bytes(500)])
@pytest.mark.parametrize("frames", [2**32 - 1, 2**20, 10_000])
def test_a_forged_length_costs_no_time(kind, body, frames):
    header = StreamHeader(bytes(8), num_samples=frames * 512)
    data = header.to_bytes() + body
    start = time.process_time()
    with pytest.raises(TruncatedStreamError, match=f"found {len(data)}"):
        for _ in conceal(BitstreamReader(kind(data), "conceal")):
            pass
    assert time.process_time() - start < 1


@pytest.mark.parametrize("kind", [io.BytesIO, Pipe])
def test_ten_times_what_is_there_is_concealed_and_no_more(kind):
    header = StreamHeader(
        FINGERPRINT, frames_per_chunk=1, num_samples=200 * 512
    )
    data = encode(header, random_tokens(header))
    least = -(-len(data) // MAX_CLAIM)
    chunks = list(BitstreamReader(kind(data[:least]), "conceal"))
    assert len(chunks) == 200
    with pytest.raises(TruncatedStreamError):
        list(BitstreamReader(kind(data[: least - 1]), "conceal"))
    chunks = BitstreamReader(kind(data[: least - 1]), "conceal-all")
    assert len(list(chunks)) == 200


def test_a_stream_too_long_for_memory_is_refused():
    frames = MAX_TOKENS_IN_MEMORY // 8 + 1
    header = StreamHeader(bytes(8), num_samples=frames * 512)
    with pytest.raises(BitstreamError, match="BitstreamReader"):
        read_tokens(Pipe(header.to_bytes()), "conceal-all")


def test_text_files_are_refused_with_a_hint():
    with pytest.raises(TypeError, match="bytes"):
        BitstreamReader(io.StringIO("FMAC"))


# Concealment


def chunks_of(pattern, length=3):
    """Chunks of two channels; 'x' is damaged, '.' is good."""
    for index, letter in enumerate(pattern):
        start = index * length
        size = length - 1 if index == len(pattern) - 1 else length
        frames = np.arange(start, start + size) + 1
        tokens = np.stack([frames, frames + 100])[:, :, None]
        ok = letter == "."
        yield Chunk(index, start, tokens * ok, ok)


@pytest.mark.parametrize(
    "pattern, expected",
    [
        ("...", [1, 2, 3, 4, 5, 6, 7, 8]),
        (".x.", [1, 2, 3, 3, 3, 3, 7, 8]),
        (".xx", [1, 2, 3, 3, 3, 3, 3, 3]),
        ("x..", [4, 4, 4, 4, 5, 6, 7, 8]),
        ("xx.", [7, 7, 7, 7, 7, 7, 7, 8]),
        ("x", [0, 0]),
        ("xxx", [0] * 8),
        ("", []),
    ],
)
def test_gaps_take_the_nearest_good_frame(pattern, expected):
    filled = list(conceal(chunks_of(pattern)))
    assert [c.index for c in filled] == list(range(len(pattern)))
    assert [c.start_frame for c in filled] == [3 * c.index for c in filled]
    assert "".join("x."[c.ok] for c in filled) == pattern
    first = [token for c in filled for token in c.tokens[0, :, 0]]
    second = [token for c in filled for token in c.tokens[1, :, 0]]
    assert first == expected
    assert second == [token + 100 if token else 0 for token in expected]


@quick
@given(headers, st.data())
def test_concealment_leaves_all_other_chunks_exact(header, data):
    tokens = random_tokens(header)
    file = bytearray(encode(header, tokens))
    lost = data.draw(st.sets(st.integers(0, Version1(header).num_chunks - 1)))
    for index in lost:
        file[data.draw(st.integers(*_inside(header, index)))] ^= 0x10
    _, read, damaged = read_tokens(io.BytesIO(bytes(file)), "conceal")
    assert damaged == sorted(lost)
    frame_chunk = np.arange(header.num_frames) // header.frames_per_chunk
    good = ~np.isin(frame_chunk, sorted(lost))
    np.testing.assert_array_equal(read[:, good], tokens[:, good])
    sources = np.flatnonzero(good)
    for frame in np.flatnonzero(~good):
        before = sources[sources < frame]
        nearest = before[-1:] if before.size else sources[:1]
        expected = tokens[:, nearest[0]] if nearest.size else 0
        assert (read[:, frame] == expected).all()


def _inside(header, index):
    start, stop = chunk_span(header, index)
    return start, stop - 1


def test_concealment_holds_few_chunks_however_long_the_gap():
    alive, peak = 0, 0

    class Counted(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= self.base is None

    def gap(count):
        nonlocal alive, peak
        for index in range(count):
            tokens = Counted((1, 1, 1), np.int64)
            alive += 1
            peak = max(peak, alive)
            tokens[:] = 5
            yield Chunk(index, index, tokens, index == count - 1)
            del tokens

    filled = sum((chunk.tokens == 5).all() for chunk in conceal(gap(500)))
    assert filled == 500
    assert peak < 6


# Files


def test_a_file_is_written_and_read_by_path(tmp_path):
    header, tokens, data = small_stream()
    path = tmp_path / "a.fmac"
    write_tokens(path, header, tokens)
    assert path.read_bytes() == data
    np.testing.assert_array_equal(read_tokens(str(path))[1], tokens)
    assert os.listdir(tmp_path) == ["a.fmac"]


def test_a_failed_write_leaves_nothing_or_what_was_there(tmp_path):
    header, tokens, data = small_stream()
    path = tmp_path / "a.fmac"
    with pytest.raises(BitstreamError):
        write_tokens(path, header, tokens[:, :-1])
    assert os.listdir(tmp_path) == []
    path.write_bytes(data)
    with pytest.raises(BitstreamError):
        write_tokens(path, header, tokens + 32)
    assert os.listdir(tmp_path) == ["a.fmac"]
    assert path.read_bytes() == data


# Transcoding


@settings(deadline=None, max_examples=30)
@given(headers, st.data())
def test_transcoding_keeps_the_first_codebooks(tmp_path_factory, header, data):
    kept = data.draw(st.integers(1, header.num_codebooks))
    tokens = random_tokens(header)
    path = tmp_path_factory.mktemp("transcode") / "b.fmac"
    source = io.BytesIO(encode(header, tokens))
    summary = transcode(source, path, kept)
    returned = summary.header
    assert returned == replace(header, num_codebooks=kept)
    assert path.read_bytes() == encode(returned, tokens[:, :, :kept])
    assert path.stat().st_size == summary.stream_bytes


def test_transcoding_in_place(tmp_path):
    header, tokens, _ = small_stream()
    path = tmp_path / "a.fmac"
    write_tokens(path, header, tokens)
    transcode(path, path, 1)
    np.testing.assert_array_equal(read_tokens(path)[1], tokens[:, :, :1])


@pytest.mark.parametrize("kept", [0, -1, 4, 1.5])
def test_transcoding_refuses_codebooks_that_are_not_there(tmp_path, kept):
    _, _, data = small_stream()
    with pytest.raises(BitstreamError, match="num_codebooks"):
        transcode(io.BytesIO(data), tmp_path / "b.fmac", kept)
    assert os.listdir(tmp_path) == []


def test_transcoding_refuses_damage_and_leaves_nothing(tmp_path):
    _, _, data = small_stream()
    bad = data[:-1] + bytes([data[-1] ^ 1])
    with pytest.raises(ChunkDamagedError):
        transcode(io.BytesIO(bad), tmp_path / "b.fmac", 2)
    assert os.listdir(tmp_path) == []
