"""Systems of an evaluation: what they code, count, and refuse."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
import transformers
from corpus import speech_like
from safetensors.torch import load_file, save_file
from tiny_model import make_tiny_model

import speechbrain_flowmac
from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.bitstream import ChunkDamagedError
from speechbrain_flowmac.evaluation.systems import (
    Recording,
    UnavailableError,
    make_system,
)


def recording(signal, sample_rate=24000, name="a/b.wav"):
    return Recording(name, np.asarray(signal, dtype=np.float64), sample_rate)


def speech(num_samples, sample_rate=24000, seed=0):
    signal = speech_like(num_samples / sample_rate, seed, sample_rate)
    return recording(signal, sample_rate)


# Names


@pytest.mark.parametrize(
    "name, message",
    [
        ("opus9", "no system 'opus9', known are .*flowmac, folder.*lowpass"),
        ("flowmac:1:2", "too many parts; write flowmac"),
        ("flowmac:eight", "'eight' cannot be read; write flowmac"),
        ("flowmac:step=2", "no option 'step'; write flowmac.*steps=N"),
        ("flowmac:seed=-1", "'-1' cannot be read"),
        ("flowmac:steps=1:steps=2", "gives an option twice"),
        ("flowmac:9", "'flowmac:9'.*must be in 1..8, found 9"),
        ("flowmac:0", "must be in 1..8, found 0"),
        (
            "flowmac:steps=-1",
            "n_steps must be a whole number, 0 or more, found -1",
        ),
        ("flowmac:solver=foo", "unknown solver 'foo', expected one of euler"),
        ("folder", "says too little; write folder:PATH"),
        ("folder:a:b", "too many parts; write folder:PATH.*no ':'"),
        ("folder:a:kbps=0", "'0' cannot be read"),
        ("folder:a:rate=3", "no option 'rate'; write folder:PATH.*kbps="),
        ("lowpass", "says too little; write lowpass:KHZ"),
        ("lowpass:low", "'low' cannot be read"),
        ("lowpass:inf", "'inf' cannot be read"),
        ("lowpass:3.5:order=2", "no option 'order'; write lowpass:KHZ"),
        ("lowpass:11.5", "must be below 11.5 kHz, found 11.5 kHz"),
        ("encodec", "says too little; write encodec:KBPS"),
        ("encodec:7", "the bit rates in kbps are 1.5, 3, 6, 12, 24"),
        ("encodec:6:codebooks=2", "no option 'codebooks'; write encodec"),
        ("dac:44khz", "'44khz' cannot be read; write dac:16khz|24khz"),
        ("dac:16khz:codebooks=13", "has 1..12 codebooks, found 13"),
        ("dac:24khz:codebooks=0", "has 1..32 codebooks, found 0"),
        ("mimi:33", "has 1..32 codebooks, found 33"),
        ("mimi:8:steps=1", "no option 'steps'; write mimi"),
    ],
)
def test_a_name_that_means_nothing_says_what_could(name, message):
    with pytest.raises(ValueError, match=message):
        make_system(name)


def test_only_the_family_that_is_asked_for_is_imported():
    code = (
        "import sys\n"
        "from speechbrain_flowmac.evaluation.systems import make_system\n"
        "make_system('lowpass:3.5')\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# FlowMAC


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.mark.parametrize("codebooks", [1, 3, 8])
@pytest.mark.parametrize("num_samples", [1, 512, 513, 30000])
def test_flowmac_counts_the_codes_of_its_stream(tiny, codebooks, num_samples):
    system = make_system(f"flowmac:{codebooks}:model={tiny}")
    x = speech(num_samples)
    coded = system.encode(x)
    frames = -(-num_samples // 512)
    assert coded.payload_bits == frames * codebooks * 8
    # a header, a trailer and what frames chunks of 47 frames are not counted
    framing = 32 + 11 + 15 * -(-frames // 47)
    assert 8 * len(coded.data) == coded.payload_bits + 8 * framing
    assert system.decode(coded, x).shape == (num_samples,)


def test_flowmac_writes_and_reads_real_files(tiny, tmp_path):
    x = speech(30000)
    soundfile.write(tmp_path / "x.wav", x.signal, 24000, subtype="FLOAT")
    codec = FlowMACCodec.from_hparams(source=str(tiny))
    codec.compress(tmp_path / "x.wav", tmp_path / "x.fmac", num_codebooks=4)
    system = make_system(f"flowmac:4:model={tiny}:steps=2:seed=3")
    coded = system.encode(x)
    assert coded.data == (tmp_path / "x.fmac").read_bytes()
    blocks = codec.decode_batch(
        torch.from_numpy(system.tokens(coded)[0])[None], n_steps=2, seed=3
    )
    decoded = system.decode(coded, x)
    assert decoded.dtype == np.float64
    expected = blocks[0, :30000].clamp(-1, 1).numpy()
    np.testing.assert_allclose(decoded, expected, atol=1e-5)


def test_flowmac_decodes_from_the_bytes(tiny):
    system = make_system(f"flowmac:model={tiny}")
    x = speech(5000)
    coded = system.encode(x)
    damaged = bytearray(coded.data)
    damaged[-12] ^= 1  # the last byte before the trailer
    with pytest.raises(ChunkDamagedError):
        system.decode(coded._replace(data=bytes(damaged)), x)


def test_flowmac_unpacks_the_indices_that_it_chose(tiny):
    system = make_system(f"flowmac:5:model={tiny}")
    x = speech(30000)
    tokens, size = system.tokens(system.encode(x))
    wavs = torch.from_numpy(x.signal).float()[None]
    expected = system.encode_batch(wavs)[0]
    assert size == 256
    assert tokens.shape == (59, 5)
    np.testing.assert_array_equal(tokens, expected.numpy())


def test_flowmac_says_what_it_is(tiny):
    system = make_system("flowmac")
    assert system.label == "FlowMAC 3.0 kbps, 1 step"
    assert (system.kind, system.sample_rate) == ("codec", 24000)
    assert system.options == {"codebooks": 8, "steps": 1, "solver": "euler"}
    name = f"flowmac:2:model={tiny}:solver=heun:steps=4:seed=3"
    system = make_system(name)
    assert system.name == name
    assert system.label == "FlowMAC 0.8 kbps, 4 steps, heun, tiny, seed 3"
    assert system.options == {"codebooks": 2, "steps": 4, "solver": "heun"}
    system = make_system(f"flowmac:model={tiny}:temperature=0.7:steps=2")
    assert system.label == "FlowMAC 3.0 kbps, 2 steps, temperature 0.7, tiny"
    assert system.options["temperature"] == 0.7


def test_steps_and_seeds_change_what_is_decoded(tiny):
    x = speech(5000)
    decoded = []
    changes = ("steps=1", "steps=2", "steps=2:solver=heun", "seed=1")
    for options in (*changes, "temperature=0.5"):
        system = make_system(f"flowmac:model={tiny}:{options}")
        decoded.append(system.decode(system.encode(x), x))
        again = system.decode(system.encode(x), x)
        np.testing.assert_array_equal(decoded[-1], again)
    for i, first in enumerate(decoded):
        for second in decoded[:i]:
            assert np.abs(first - second).max() > 1e-4


def test_fingerprint_of_flowmac_changes_with_the_output(
    tiny, tmp_path, monkeypatch
):
    def fingerprint(options="", model=tiny):
        return make_system(f"flowmac:model={model}{options}").fingerprint

    first = fingerprint()
    # neither another place nor another way of saying the same is a change
    shutil.copytree(tiny, tmp_path / "copy")
    assert fingerprint(":steps=1:seed=0", tmp_path / "copy") == first
    assert fingerprint(":solver=euler:temperature=1") == first
    # what is heard is also the vocoder's and the configuration's
    other = make_tiny_model(tmp_path / "other", seed=1)
    mixed = shutil.copytree(tiny, tmp_path / "mixed")
    shutil.copy(other / "vocoder.safetensors", mixed)
    cooler = shutil.copytree(tiny, tmp_path / "cooler")
    text = (cooler / "hyperparams.yaml").read_text()
    (cooler / "hyperparams.yaml").write_text(
        text.replace("n_steps: 1", "n_steps: 1\n        temperature: 0.5")
    )
    found = [first, fingerprint(model=mixed), fingerprint(model=cooler)]
    for option in ("steps=2", "solver=heun", "seed=1", "temperature=0.9"):
        found.append(fingerprint(f":{option}"))
    found.append(make_system(f"flowmac:7:model={tiny}").fingerprint)
    monkeypatch.setattr(speechbrain_flowmac, "__version__", "next")
    found.append(fingerprint())
    assert len(set(found)) == len(found)


def test_flowmac_without_its_model_is_unavailable(tiny, tmp_path):
    with pytest.raises(UnavailableError, match="nope.*neither a folder nor"):
        make_system("flowmac:model=nope")
    broken = shutil.copytree(tiny, tmp_path / "broken")
    (broken / "vocoder.safetensors").write_bytes(b"")
    with pytest.raises(UnavailableError, match="damaged") as info:
        make_system(f"flowmac:model={broken}")
    assert "\n" not in str(info.value)


# Folders


@pytest.fixture
def decoded(tmp_path):
    """A folder that holds a/b.flac: 0.5 s of 1 kHz at 16 kHz, in stereo."""
    (tmp_path / "decoded" / "a").mkdir(parents=True)
    t = np.arange(8000) / 16000
    tone = np.sin(2 * np.pi * 1000 * t)
    stereo = np.stack([0.5 * tone, 0.1 * tone], axis=1)
    soundfile.write(tmp_path / "decoded" / "a" / "b.flac", stereo, 16000)
    (tmp_path / "decoded" / "a" / "b.txt").write_text("not audio")
    return tmp_path / "decoded"


def test_folder_finds_any_ending_and_resamples(decoded):
    system = make_system(f"folder:{decoded}")
    x = recording(np.zeros(12000))
    found = system.decode(system.encode(x), x)
    assert system.sample_rate == 24000
    assert found.shape == (12000,)
    expected = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(12000) / 24000)
    np.testing.assert_allclose(found[500:-500], expected[500:-500], atol=1e-3)


def test_folder_counts_the_bits_of_its_nominal_rate(decoded):
    x = recording(np.zeros(12001))
    system = make_system(f"folder:{decoded}:label=Lyra 3.2:kbps=3.2")
    assert (system.label, system.kind) == ("Lyra 3.2", "folder")
    assert system.encode(x).payload_bits == 1600
    system = make_system(f"folder:{decoded}")
    assert system.label == "decoded"
    assert system.encode(x).payload_bits is None
    assert system.tokens(system.encode(x)) is None


def test_folder_says_which_file_is_missing(decoded):
    system = make_system(f"folder:{decoded}")
    with pytest.raises(FileNotFoundError, match="has no file for a/c.wav"):
        system.encode(recording(np.zeros(9), name="a/c.wav"))


def test_folder_prefers_the_same_ending_and_never_guesses(decoded):
    soundfile.write(decoded / "a" / "b.ogg", np.zeros(24000), 24000)
    system = make_system(f"folder:{decoded}")
    with pytest.raises(ValueError, match="more than one.*b.flac, b.ogg"):
        system.encode(recording(np.zeros(9), name="a/b.wav"))
    assert system.find("a/b.ogg") == decoded / "a" / "b.ogg"


def test_folder_keeps_dots_in_names_apart(decoded):
    soundfile.write(decoded / "x.1.wav", np.zeros(10), 24000)
    soundfile.write(decoded / "x.2.flac", np.zeros(20), 24000)
    system = make_system(f"folder:{decoded}")
    assert system.find("x.1.wav").name == "x.1.wav"
    assert system.find("x.2.wav").name == "x.2.flac"


def test_folder_refuses_what_is_no_audio(decoded):
    x = recording(np.zeros(9))
    file = decoded / "a" / "b.wav"
    system = make_system(f"folder:{decoded}")
    for content, message in [
        (b"no audio at all", "cannot read .*b.wav"),
        (np.zeros(0), "b.wav should have samples, has none"),
        (np.full(9, np.nan), "b.wav .* samples that are no numbers"),
    ]:
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            soundfile.write(file, content, 24000, subtype="FLOAT")
        system = make_system(f"folder:{decoded}")
        with pytest.raises(ValueError, match=message):
            system.decode(system.encode(x), x)


def test_folder_without_audio_is_unavailable(tmp_path):
    with pytest.raises(UnavailableError, match="holds no audio files"):
        make_system(f"folder:{tmp_path}")
    with pytest.raises(UnavailableError, match="nowhere is missing"):
        make_system(f"folder:{tmp_path / 'nowhere'}")


def test_fingerprint_of_a_folder_is_that_of_its_contents(decoded, tmp_path):
    first = make_system(f"folder:{decoded}").fingerprint
    copy = shutil.copytree(decoded, tmp_path / "copy")
    assert make_system(f"folder:{copy}").fingerprint == first
    # a label changes no output, a rate does
    assert make_system(f"folder:{copy}:label=X").fingerprint == first
    assert make_system(f"folder:{copy}:kbps=3").fingerprint != first
    soundfile.write(copy / "a" / "b.flac", np.zeros(8000), 16000)
    assert make_system(f"folder:{copy}").fingerprint != first


# Anchors


def response(cutoff):
    """Frequencies in Hz and gain in dB, measured on an impulse."""
    system = make_system(f"lowpass:{cutoff}")
    x = recording(np.eye(1, 24000, 12000)[0])
    y = system.decode(system.encode(x), x)
    # an impulse amid the signal: its phase is that of half the length
    gain = 20 * np.log10(np.abs(np.fft.rfft(y)) + 1e-12)
    return np.fft.rfftfreq(24000, 1 / 24000), gain


@pytest.mark.parametrize("cutoff", [3.5, 7])
def test_anchor_fits_the_mask_of_the_recommendation(cutoff):
    frequency, gain = response(cutoff)
    start = 1000 * cutoff
    assert np.abs(gain[frequency <= start]).max() <= 0.1
    assert gain[frequency >= start + 500].max() <= -25
    assert gain[frequency >= start + 1000].max() <= -50


def test_anchor_does_not_delay():
    t = np.arange(24000) / 24000
    low, high = np.sin(2 * np.pi * 1000 * t), np.sin(2 * np.pi * 8000 * t)
    system = make_system("lowpass:3.5")
    x = recording(0.4 * low + 0.4 * high)
    y = system.decode(system.encode(x), x)
    inside = slice(500, -500)
    np.testing.assert_allclose(y[inside], 0.4 * low[inside], atol=1e-3)


@pytest.mark.parametrize("num_samples", [1, 50, 1000])
def test_anchor_keeps_the_length(num_samples):
    system = make_system("lowpass:7")
    x = speech(num_samples)
    coded = system.encode(x)
    assert system.decode(coded, x).shape == (num_samples,)
    assert coded.payload_bits is None
    assert system.tokens(coded) is None


def test_anchors_say_what_they_are():
    low, mid = make_system("lowpass:3.5"), make_system("lowpass:7")
    assert (low.label, mid.label) == ("Low-pass 3.5 kHz", "Low-pass 7 kHz")
    assert (low.kind, low.sample_rate, low.options) == ("anchor", 24000, {})
    assert low.fingerprint != mid.fingerprint
    assert low.fingerprint == make_system("lowpass:3.5").fingerprint


# EnCodec, DAC and Mimi

TINY = {
    "Encodec": dict(
        num_filters=2,
        hidden_size=8,
        codebook_size=16,
        # 75 frames of 4 bits: 2 and 4 codebooks
        target_bandwidths=[0.6, 1.2],
    ),
    "Dac": dict(
        encoder_hidden_size=4,
        downsampling_ratios=[2, 4, 5, 8],
        decoder_hidden_size=16,
        n_codebooks=3,
        codebook_size=32,
        codebook_dim=2,
    ),
    "Mimi": dict(
        hidden_size=16,
        num_filters=2,
        codebook_size=16,
        codebook_dim=8,
        vector_quantization_hidden_dimension=8,
        num_quantizers=4,
        num_hidden_layers=1,
        intermediate_size=16,
        num_attention_heads=2,
        num_key_value_heads=2,
        upsample_groups=16,
    ),
}


def save_tiny(folder, architecture, seed=0, **changes):
    """Writes a tiny model with codebooks that are not all the same."""
    torch.manual_seed(seed)
    config = getattr(transformers, f"{architecture}Config")
    config = config(**TINY[architecture], **changes)
    model = getattr(transformers, f"{architecture}Model")(config)
    for name, buffer in model.named_buffers():
        if name.endswith((".embed", ".embed_sum")):
            buffer.normal_(std=0.1)
    model.save_pretrained(folder)
    return model.eval()


# name, and codebooks, bits per code and frames of 10000 samples
CASES = {
    "Encodec": ("encodec:1.2", 4, 4, 32),
    "Dac": ("dac:16khz:codebooks=2", 2, 5, 32),
    "Mimi": ("mimi:3", 3, 4, 6),
}


@pytest.fixture(params=CASES)
def case(request, tmp_path):
    """A system with tiny weights, the same model, and its numbers."""
    name, *numbers = CASES[request.param]
    model = save_tiny(tmp_path / "weights", request.param)
    return make_system(f"{name}:weights={tmp_path}/weights"), model, numbers


def test_codes_are_counted_and_packed_exactly(case):
    system, model, (codebooks, bits, frames) = case
    x = speech(10000, system.sample_rate)
    coded = system.encode(x)
    assert coded.payload_bits == frames * codebooks * bits
    assert len(coded.data) == 4 + -(-coded.payload_bits // 8)
    tokens, size = system.tokens(coded)
    assert (tokens.shape, size) == ((frames, codebooks), 2**bits)
    assert len(np.unique(tokens)) > 3
    assert system.options == {"codebooks": codebooks}


def test_codes_and_samples_are_those_of_the_package(case):
    system, model, _ = case
    x = speech(9600, system.sample_rate)  # full frames of all three
    coded = system.encode(x)
    wav = torch.from_numpy(x.signal).float()[None, None]
    with torch.inference_mode():
        if isinstance(model, transformers.EncodecModel):
            expected = model.encode(wav, bandwidth=1.2).audio_codes
            audio = model.decode(expected, [None]).audio_values[0, 0]
            expected = expected[0]
        elif isinstance(model, transformers.DacModel):
            expected = model.encode(wav, n_quantizers=2).audio_codes
            audio = model.decode(audio_codes=expected).audio_values[0]
        else:
            expected = model.encode(wav, num_quantizers=3).audio_codes
            audio = model.decode(expected).audio_values[0, 0]
    tokens, _ = system.tokens(coded)
    np.testing.assert_array_equal(tokens, expected[0].T.numpy())
    decoded = system.decode(coded, x)
    assert decoded.dtype == np.float64
    assert abs(len(decoded) - 9600) < 320
    length = min(len(decoded), 9600)
    np.testing.assert_allclose(
        decoded[:length], audio[:length].numpy(), rtol=1e-4, atol=1e-5
    )


def test_batches_are_coded_as_single_signals(case):
    system, _, (codebooks, _, _) = case
    wavs = torch.from_numpy(
        np.stack([speech_like(0.4, seed) for seed in range(2)])
    )
    with torch.inference_mode():
        codes = system.encode_batch(wavs)
        decoded = system.decode_batch(codes)
        second = system.decode_batch(system.encode_batch(wavs[1:]))
    assert codes.shape[::2] == (2, codebooks)
    np.testing.assert_allclose(decoded[1], second[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "name, label, rate, bits_per_second",
    [
        ("encodec:6", "EnCodec 6 kbps", 24000, 75 * 8 * 10),
        ("dac:16khz", "DAC 16 kHz 6 kbps", 16000, 50 * 12 * 10),
        ("dac:24khz:codebooks=4", "DAC 24 kHz 3 kbps", 24000, 75 * 4 * 10),
        ("mimi:8", "Mimi 1.1 kbps", 24000, 12.5 * 8 * 11),
    ],
)
def test_random_weights_have_the_published_size_and_rate(
    name, label, rate, bits_per_second
):
    torch.manual_seed(7)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    system = make_system(f"{name}:weights=random")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert system.label == f"{label} (random weights)"
    assert system.sample_rate == rate
    # 0.32 s are full frames of all
    x = speech(rate * 32 // 100, rate)
    assert system.encode(x).payload_bits == bits_per_second * 0.32
    size = sum(p.numel() for p in system.network.parameters())
    assert size > 10e6


def test_fingerprint_of_weights(tmp_path):
    fingerprints = set()
    for seed in (0, 1):
        save_tiny(tmp_path / str(seed), "Encodec", seed)
        for kbps in (0.6, 1.2):
            name = f"encodec:{kbps}:weights={tmp_path / str(seed)}"
            fingerprints.add(make_system(name).fingerprint)
            fingerprints.add(make_system(name).fingerprint)
    assert len(fingerprints) == 4


def test_a_missing_package_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UnavailableError, match="pip install transformers"):
        make_system("mimi:8:weights=random")


def test_weights_that_cannot_be_fetched_are_said_in_one_line(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("We couldn't connect.\nCheck your connection.")

    monkeypatch.setattr(transformers.EncodecModel, "from_pretrained", offline)
    with pytest.raises(UnavailableError) as info:
        make_system("encodec:6")
    assert str(info.value) == (
        "encodec:6: cannot load the weights facebook/encodec_24khz (We "
        "couldn't connect.); give a folder with them as weights=FOLDER, or "
        "weights=random to measure speed alone"
    )


def test_weights_of_another_model_are_refused(tmp_path):
    save_tiny(tmp_path / "dac", "Dac")
    for folder, message in [
        (tmp_path, "no config.json there"),
        (tmp_path / "dac", "they are of dac"),
    ]:
        with pytest.raises(UnavailableError, match=message):
            make_system(f"mimi:3:weights={folder}")


def test_weights_that_lack_a_tensor_are_refused(tmp_path):
    save_tiny(tmp_path, "Dac")
    state = load_file(tmp_path / "model.safetensors")
    del state["encoder.conv1.weight"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UnavailableError, match="lack encoder.conv1.weight"):
        make_system(f"dac:16khz:weights={tmp_path}")


def test_encodec_that_codes_in_pieces_is_refused(tmp_path):
    save_tiny(tmp_path, "Encodec", normalize=True, chunk_length_s=1.0)
    with pytest.raises(ValueError, match="only mono models that code a whole"):
        make_system(f"encodec:1.2:weights={tmp_path}")


def test_a_wrong_hop_length_in_a_configuration_adds_no_frames(tmp_path):
    save_tiny(tmp_path, "Dac")
    file = tmp_path / "config.json"
    # as published configurations have it
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"hop_length": 512})
    )
    system = make_system(f"dac:16khz:weights={tmp_path}")
    assert system.encode(speech(3200, 16000)).payload_bits == 10 * 3 * 5
