"""BigVGAN: parity with NVIDIA's code, weights, lengths, batches, gradients."""

import copy
import json
import os
from pathlib import Path

import pytest
import torch
from bigvgan.activations import SnakeBeta
from bigvgan.alias_free_activation.torch.act import Activation1d
from bigvgan.bigvgan import BigVGAN as Reference
from bigvgan.env import AttrDict
from bigvgan.meldataset import get_mel_spectrogram
from bigvgan_checkpoints import (
    PUBLIC,
    V2_24K,
    reference,
    save_checkpoint,
    shrunk,
)
from hyperpyyaml import load_hyperpyyaml
from yaml_attacks import TUPLE

from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.lobes.bigvgan import (
    AMPBlock,
    AntiAliasedSnake,
    BigVGAN,
    add_weight_norm,
    fold_weight_norm,
    half_band_filter,
)
from speechbrain_flowmac.lobes.features import LogMel, MelSettings, length_mask
from speechbrain_flowmac.models.description import ModelDescription
from speechbrain_flowmac.models.importers.bigvgan import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    BigVGANConfigError,
    bigvgan_yaml,
    is_bigvgan,
    load_bigvgan,
    read_config,
    translate_config,
)
from speechbrain_flowmac.models.loading import (
    ModelNotFoundError,
    WeightsMismatchError,
)
from speechbrain_flowmac.models.safe_yaml import UnsafeModelError

HPARAMS = Path(__file__).resolve().parents[2] / "hparams"

# no public config has these
UNUSUAL = {
    "snake": {"activation": "snake"},
    "linear scale": {"snake_logscale": False},
    "kernels": {
        "resblock_kernel_sizes": [5, 3],
        "resblock_dilation_sizes": [[2], [1, 4, 2]],
    },
    "rates": {
        "upsample_rates": [16, 4, 1, 4],
        "upsample_kernel_sizes": [16, 10, 5, 4],
    },
    "tanh alone": {"use_tanh_at_final": True, "use_bias_at_final": False},
}


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ours(config):
    mel, model = translate_config(config)
    return BigVGAN(MelSettings(**mel), **model).eval()


def tiny(hop=8, **options):
    """A small model whose weights let signals through."""
    settings = MelSettings(8000, 32, hop, 32, n_mels=5)
    options = {
        "channels": 8,
        "upsample_rates": [4, 2],
        "upsample_kernel_sizes": [8, 4],
        "kernel_sizes": [3, 5],
        "dilations": [[1, 3], [2]],
        **options,
    }
    vocoder = BigVGAN(settings, **options).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in vocoder.named_parameters():
        if parameter.ndim > 1:
            size = parameter[0].numel() ** -0.5
            parameter.data.normal_(0, 0.7 * size, generator=generator)
        elif name.endswith(("alpha", "beta")):
            parameter.data.normal_(0, 0.3, generator=generator)
    vocoder.conv_post.weight.data *= 0.1
    return vocoder


# Parity


@torch.no_grad()
def assert_same_sound(config, gain=1.1, frames=23):
    theirs = reference(config, gain=gain)
    mine = ours(config)
    mine.load_state_dict(fold_weight_norm(theirs.state_dict()))
    mel = 2 * noise(1, 2, frames, config["num_mels"]) - 5
    expected, found = theirs(mel.mT).squeeze(1), mine(mel)
    peak = expected.abs().max()
    assert expected.std() > 0.005
    assert found.shape == expected.shape and found.dtype == torch.float32
    assert (found - expected).abs().max() < 1e-5 * peak
    return expected


@pytest.mark.parametrize("name", PUBLIC)
def test_public_configs_sound_as_the_reference(name):
    assert_same_sound(shrunk(PUBLIC[name]))


@pytest.mark.parametrize("name", UNUSUAL)
def test_other_configs_sound_as_the_reference(name):
    assert_same_sound(shrunk({**V2_24K, **UNUSUAL[name]}))


def test_base_at_full_size_sounds_as_the_reference():
    config = PUBLIC["bigvgan_base_24khz_100band"]
    assert_same_sound(config)
    parameters = ours(config).parameters()
    assert sum(p.numel() for p in parameters) == 14_015_041


@pytest.mark.parametrize(
    "name", ["bigvgan_24khz_100band", "bigvgan_v2_24khz_100band_256x"]
)
def test_loud_samples_are_bounded_as_in_the_reference(name):
    wav = assert_same_sound(shrunk(PUBLIC[name]), gain=1.3)
    assert wav.abs().max() > 0.98


def test_training_starts_as_the_reference():
    """NVIDIA's initial weights are lost in weight norm: torch's are used."""
    config = shrunk(V2_24K, 256)
    theirs = fold_weight_norm(Reference(AttrDict(config)).state_dict())
    mine = ours(config).state_dict()
    for name, value in theirs.items():
        if value.numel() > 1000:
            assert mine[name].std().item() == pytest.approx(
                value.std().item(), rel=0.15
            ), name
        elif name.endswith(("alpha", "beta", "filter")):
            torch.testing.assert_close(mine[name], value)


def test_mels_are_those_of_the_reference():
    for config in PUBLIC.values():
        settings = MelSettings(**translate_config(config)[0])
        wav = 0.1 * noise(0, 1, 9 * settings.hop_length)
        found = LogMel(settings)(wav)
        expected = get_mel_spectrogram(wav, AttrDict(config)).mT
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


# The anti-aliased activation


def direct(x, activation):
    """The formula of the module's docstring, sample by sample, in float64."""
    taps = activation.upsample.filter.double().flatten()
    length, last = x.shape[-1], 2 * x.shape[-1] - 1
    alpha, beta = (
        p.detach().double().exp()[:, None]
        for p in (activation.act.alpha, activation.act.beta)
    )
    x, u = x.double(), []
    for n in range(2 * length):
        js = [j for j in range(-9, length + 9) if 0 <= n - 2 * j + 5 < 12]
        u.append(
            2
            * sum(taps[n - 2 * j + 5] * x[..., _in(j, length - 1)] for j in js)
        )
    u = torch.stack(u, dim=-1)
    u = u + (alpha * u).sin() ** 2 / beta
    return torch.stack(
        [
            sum(taps[k] * u[..., _in(2 * i + k - 5, last)] for k in range(12))
            for i in range(length)
        ],
        dim=-1,
    )


def _in(position, last):
    return min(max(position, 0), last)


@pytest.mark.parametrize("length", [1, 2, 3, 17])
def test_phases_give_the_direct_computation(length):
    activation = AntiAliasedSnake(3)
    activation.act.alpha.data = noise(0, 3)
    activation.act.beta.data = noise(1, 3)
    x = 3 * noise(2, 2, 3, length)
    expected = direct(x, activation)
    found = activation(x)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    theirs = Activation1d(SnakeBeta(3, alpha_logscale=True))
    theirs.load_state_dict(activation.state_dict())
    torch.testing.assert_close(found, theirs(x), atol=1e-5, rtol=1e-5)


def test_gradients_of_the_activation_are_exact():
    activation = AntiAliasedSnake(2).double()
    for parameter in activation.parameters():
        parameter.data = noise(0, 2).double()
    x = noise(1, 1, 2, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(activation, x)


def test_filter_keeps_constants():
    taps = half_band_filter().double().flatten()
    torch.testing.assert_close(taps, taps.flip(0))
    for phase in (taps[0::2], taps[1::2]):
        assert phase.sum().item() == pytest.approx(0.5, abs=1e-6)


# Weights


@pytest.mark.parametrize("name", PUBLIC)
def test_names_and_shapes_of_weights_are_the_reference_s(name):
    theirs = reference(shrunk(PUBLIC[name]))
    theirs.remove_weight_norm()
    shapes = [
        {key: value.shape for key, value in model.state_dict().items()}
        for model in (theirs, ours(shrunk(PUBLIC[name])))
    ]
    assert shapes[0] == shapes[1]


def normed(form):
    """A state dict with weight norm, and the same weights without."""
    config = shrunk(V2_24K)
    if form == "parametrizations":
        model = add_weight_norm(ours(config))
        for name, parameter in model.named_parameters():
            if name.endswith("original0"):
                parameter.data *= 1 + torch.rand_like(parameter)
        plain = copy.deepcopy(model)
        for part in list(plain.modules()):
            if hasattr(part, "parametrizations"):
                torch.nn.utils.parametrize.remove_parametrizations(
                    part, "weight"
                )
    else:
        model, plain = reference(config), reference(config)
        plain.remove_weight_norm()
    return model.state_dict(), plain.state_dict()


@pytest.mark.parametrize("form", ["weight_g", "parametrizations"])
def test_weight_norm_is_folded(form):
    state, plain = normed(form)
    assert any(form in name for name in state)
    folded = fold_weight_norm(state)
    assert (
        folded.keys()
        == plain.keys()
        == ours(shrunk(V2_24K)).state_dict().keys()
    )
    for name, value in plain.items():
        assert folded[name].dtype == value.dtype
        torch.testing.assert_close(folded[name], value, atol=1e-7, rtol=1e-6)
    again = fold_weight_norm(plain)
    assert all(again[name] is value for name, value in plain.items())


def test_half_of_a_weight_norm_is_left_to_be_told():
    state, _ = normed("weight_g")
    del state["conv_pre.weight_g"]
    assert "conv_pre.weight_v" in fold_weight_norm(state)


def test_folding_does_not_change_the_sound():
    trained = add_weight_norm(tiny())
    for parameter in trained.parameters():
        parameter.data += 0.05 * noise(parameter.numel(), *parameter.shape)
    folded = tiny()
    folded.load_state_dict(fold_weight_norm(trained.state_dict()))
    mel = noise(0, 2, 9, 5)
    torch.testing.assert_close(folded(mel), trained(mel), atol=1e-6, rtol=1e-5)


# Lengths and batches


def test_padding_changes_no_valid_sample():
    vocoder, lengths = tiny(), torch.tensor([1, 6, 11, 6, 20, 0])
    mask = length_mask(lengths, 20)
    mel = torch.where(mask.unsqueeze(-1), noise(3, 6, 20, 5), 3.0)
    batch = vocoder(mel, mask)
    assert batch.shape == (6, 160)
    for wav, item, length in zip(batch, mel, lengths.tolist(), strict=True):
        assert not wav[length * 8 :].any()
        if length:
            single = vocoder(item[None, :length])[0]
            torch.testing.assert_close(
                wav[: length * 8], single, atol=1e-6, rtol=1e-5
            )


SIZES = {
    "tiny": {},
    "wide": {"upsample_kernel_sizes": [14, 8]},
    "narrow": {"upsample_kernel_sizes": [4, 2]},
    "far": {"dilations": [[1, 3], [9, 27]]},
    "four": {"upsample_rates": [2, 4], "upsample_kernel_sizes": [6, 4]},
}


@pytest.mark.parametrize("size", SIZES)
def test_receptive_field_is_exact(size):
    """By gradients: where frames count, and where they cannot."""
    vocoder = tiny(**SIZES[size]).double()
    reach = vocoder.receptive_field
    middle = reach + 2
    mel = noise(0, 1, 2 * middle + 1, 5).double().requires_grad_()
    wav = vocoder(mel)[0, middle * 8 : (middle + 1) * 8]
    assert wav.abs().max() < 1
    # samples of either sign must not cancel out
    weight = noise(1, 8).double()
    wav.mul(weight).sum().backward()
    seen = mel.grad[0].abs().sum(1).nonzero().flatten() - middle
    assert -seen.min() <= reach and seen.max() <= reach
    assert max(-seen.min(), seen.max()) == reach


# Training


@pytest.mark.parametrize("weight_norm", [False, True])
def test_gradients_reach_all_parameters(weight_norm):
    vocoder = tiny(final_bias=True).train()
    if weight_norm:
        assert add_weight_norm(vocoder) is vocoder
    mask = length_mask(torch.tensor([4, 9]), 9)
    vocoder(noise(0, 2, 9, 5), mask).square().sum().backward()
    for name, parameter in vocoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_weight_norm_is_where_the_reference_has_it():
    theirs = Reference(AttrDict(shrunk(V2_24K))).state_dict()
    mine = add_weight_norm(ours(shrunk(V2_24K))).state_dict()
    ending = ".parametrizations.weight.original1"
    assert {
        name.removesuffix(ending) for name in mine if name.endswith(ending)
    } == {
        name.removesuffix(".weight_v")
        for name in theirs
        if name.endswith("weight_v")
    }


# Sizes that do not fit


@pytest.mark.parametrize(
    "options, message",
    [
        ({"hop": 16}, r"\[4, 2\] must be the mel's hop \(16\), found 8"),
        ({"upsample_kernel_sizes": [7, 4]}, r"even.*\[7, 4\] for \[4, 2\]"),
        ({"upsample_kernel_sizes": [2, 4]}, r"even.*\[2, 4\] for \[4, 2\]"),
        ({"upsample_kernel_sizes": [8]}, r"even.*\[8\] for \[4, 2\]"),
        ({"channels": 6}, "multiple of 4, .* found 6"),
        ({"channels": 0}, "multiple of 4, .* found 0"),
        ({"kernel_sizes": [3, 4]}, r"odd.*\[3, 4\]"),
        ({"kernel_sizes": [3]}, r"\[3\] and \[\[1, 3\], \[2\]\]"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


# Checkpoints


@pytest.fixture
def checkpoint(tmp_path):
    """A folder in NVIDIA's layout, with small random weights."""
    return save_checkpoint(tmp_path / "checkpoint", shrunk(V2_24K))


@pytest.mark.parametrize("form", ["weight_g", "parametrizations", "plain"])
def test_checkpoints_load_in_all_forms(tmp_path, form):
    state, plain = normed("weight_g" if form == "plain" else form)
    state = plain if form == "plain" else state
    folder = save_checkpoint(tmp_path / "it", shrunk(V2_24K), state)
    for source in (folder, str(folder), folder / WEIGHTS_FILE):
        vocoder = load_bigvgan(source)
        assert not vocoder.training
        found = vocoder.state_dict()
        for name, value in plain.items():
            torch.testing.assert_close(found[name], value, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("name", PUBLIC)
def test_configs_are_translated(name, tmp_path):
    config = shrunk(PUBLIC[name])
    vocoder = load_bigvgan(save_checkpoint(tmp_path / name, config))
    settings = vocoder.mel_settings
    assert settings.sample_rate == config["sampling_rate"]
    assert settings.f_max == config["sampling_rate"] / 2
    assert settings.n_mels == config["num_mels"]
    assert settings.hop_length == config["hop_size"]
    first = name in list(PUBLIC)[:2]
    assert vocoder.final_tanh == first
    assert (vocoder.conv_post.bias is not None) == first


def test_yaml_builds_the_same_model(checkpoint):
    text = bigvgan_yaml(checkpoint)
    vocoder = ModelDescription(text).build()["vocoder"].eval()
    loaded = load_bigvgan(checkpoint)
    assert vocoder.mel_settings == loaded.mel_settings
    vocoder.load_state_dict(loaded.state_dict())
    mel = noise(0, 1, 3, 100)
    assert torch.equal(vocoder(mel), loaded(mel))


def test_yaml_holds_no_tags_of_the_config(checkpoint):
    config = {**shrunk(V2_24K), "fmin": "!apply:os.system ['touch it']\nx: 1"}
    (checkpoint / CONFIG_FILE).write_text(json.dumps(config))
    ModelDescription(bigvgan_yaml(checkpoint))


def test_yaml_holds_no_tuples_of_the_config(checkpoint):
    config = {**shrunk(V2_24K), "fmin": TUPLE}
    (checkpoint / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(UnsafeModelError, match="line 8: .* tuples"):
        ModelDescription(bigvgan_yaml(checkpoint))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"resblock": "2"}, "resblock is '2', supported: '1'"),
        ({"activation": "relu"}, "is 'relu', supported: 'snake', 'snakebeta'"),
        ({"num_mels": ...}, r"no \['num_mels'\]"),
    ],
)
def test_unknown_configs_are_refused(checkpoint, changes, message):
    config = {**V2_24K, **changes}
    config = {k: v for k, v in config.items() if v is not ...}
    (checkpoint / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(BigVGANConfigError, match=message) as caught:
        load_bigvgan(checkpoint)
    assert str(checkpoint) in str(caught.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "no JSON"),
        ("[" * 10_000, "no JSON"),
        ('["resblock"]', "no JSON object"),
        ("[" + "1," * 2**16, "more than"),
        ("\ud800", "no JSON"),
    ],
)
def test_configs_that_are_no_json_are_refused(checkpoint, text, message):
    path = checkpoint / CONFIG_FILE
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(BigVGANConfigError, match=message):
        read_config(checkpoint)


@pytest.mark.parametrize("how", ["missing", "unexpected", "shape", "key"])
def test_weights_must_fit_exactly(checkpoint, how):
    path = checkpoint / WEIGHTS_FILE
    state = torch.load(path, weights_only=True)
    if how == "missing":
        del state["generator"]["conv_pre.bias"]
    elif how == "unexpected":
        state["generator"]["conv_pre.more"] = torch.zeros(1)
    elif how == "shape":
        state["generator"]["conv_pre.bias"] = torch.zeros(3)
    else:
        state = state["generator"]
    torch.save(state, path)
    expected = "'generator'" if how == "key" else "conv_pre"
    with pytest.raises(WeightsMismatchError, match=expected) as caught:
        load_bigvgan(checkpoint)
    assert str(path) in str(caught.value)


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_pickled_code_does_not_run(checkpoint, tmp_path):
    marker = tmp_path / "ran"
    torch.save({"generator": Malicious(marker)}, checkpoint / WEIGHTS_FILE)
    with pytest.raises(WeightsMismatchError, match="more than weights"):
        load_bigvgan(checkpoint)
    assert not marker.exists()


@pytest.mark.parametrize("size", [0, 100, -100])
def test_damaged_weights_are_refused(checkpoint, size):
    path = checkpoint / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(WeightsMismatchError, match="damaged"):
        load_bigvgan(checkpoint)


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_missing_files_are_told(checkpoint, name):
    (checkpoint / name).unlink()
    with pytest.raises(ModelNotFoundError, match=name):
        load_bigvgan(checkpoint)


def test_sources_are_told_apart(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results" / "run").mkdir(parents=True)
    (tmp_path / "results" / "run" / "hyperparams.yaml").write_text("")
    for source in (
        checkpoint,
        "checkpoint",
        checkpoint / WEIGHTS_FILE,
        "nvidia/bigvgan_v2_24khz_100band_256x",
    ):
        assert is_bigvgan(source), source
    for source in ("results/run", "results/rnu", "results", "nothing", "/a/b"):
        assert not is_bigvgan(source), source


# The codec at NVIDIA's front end


def test_codec_for_bigvgan_v2_has_the_tokens_of_the_others(tmp_path):
    with open(HPARAMS / "flowmac_bigvgan_v2.yaml", encoding="utf-8") as file:
        overrides = {"output_folder": str(tmp_path), "dim": 16, "latent_dim": 8}
        codec = load_hyperpyyaml(file, overrides)["codec"].eval()
    vocoder = ours(shrunk(V2_24K))
    model = FlowMACCodec({"codec": codec, "vocoder": vocoder})
    assert model.frame_rate == 46.875 and model.bit_rate() == 3000
    assert codec.mel_settings.frame_rate == 2 * model.frame_rate
    wav = 0.1 * noise(0, 2, 24000)
    codec.train()
    losses = codec(wav, torch.tensor([24000, 9000]), torch.Generator())
    losses.total.backward()
    assert losses.total.isfinite() and losses.tokens.shape == (2, 47, 8)
    codec.eval()
    tokens, lengths = model.encode_batch(wav)
    assert tokens.shape == (2, 47, 8) and lengths.tolist() == [47, 47]
    mel = codec.decode(tokens)
    assert mel.shape == (2, 94, 100)
    assert model.decode_batch(tokens).shape == (2, 47 * 512)


def test_blocks_say_how_far_they_see():
    block = AMPBlock(2, 5, [1, 3]).double()
    x = noise(0, 1, 2, 201).double().requires_grad_()
    block(x)[0, :, 100].sum().backward()
    seen = x.grad[0].abs().sum(0).nonzero().flatten() - 100
    assert seen.max() == -seen.min() == block.receptive_field
