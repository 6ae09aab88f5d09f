"""The composed codec: losses, tokens, seeded and chunked decoding."""

import math

import pytest
import torch

from speechbrain_flowmac.codec import FlowMAC, Sampling
from speechbrain_flowmac.lobes.convnext import ConvNeXt
from speechbrain_flowmac.lobes.encoder import MelDecoder, MelEncoder
from speechbrain_flowmac.lobes.features import (
    LogMel,
    MelNormalizer,
    MelSettings,
    length_mask,
    num_frames,
)
from speechbrain_flowmac.lobes.flow import Flow, FlowLosses
from speechbrain_flowmac.lobes.flow_matching import FlowMatching
from speechbrain_flowmac.lobes.improved_mean_flow import ImprovedMeanFlow
from speechbrain_flowmac.lobes.mean_flow import MeanFlow
from speechbrain_flowmac.lobes.mel_spread import MelSpread
from speechbrain_flowmac.lobes.quantizer import ResidualQuantizer
from speechbrain_flowmac.lobes.solvers import (
    RK4,
    Heun,
    Midpoint,
    Sway,
)
from speechbrain_flowmac.lobes.transformer import Transformer
from speechbrain_flowmac.lobes.vector_field import (
    ConvNeXtField,
    MeanResidualField,
    ResidualField,
    UNetField,
)

HOP, M, K = 64, 10, 4


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def awake(module, seed=0):
    """Random weights everywhere, also where they start at zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(
                0, parameter[0].numel() ** -0.5, generator=generator
            )
        elif name.endswith("scale"):
            parameter.data.fill_(0.5)
    return module.eval()


def conv_field():
    trunk = ConvNeXt(8, 1, condition_dim=8)
    return ResidualField(ConvNeXtField(M, trunk), tau=0.3)


def make(stride=1, trunk=None, field=None, **options):
    """A codec of 64 / stride samples per mel frame, 64 per token frame."""
    torch.manual_seed(0)
    hop = HOP // stride
    settings = MelSettings(
        sample_rate=8000,
        n_fft=2 * hop,
        hop_length=hop,
        win_length=2 * hop,
        n_mels=M,
    )
    trunk = trunk or (lambda: ConvNeXt(8, 1))
    flow_options = options.pop("flow_options", {})
    quantizer_options = dict(kmeans_iterations=0) | options.pop(
        "quantizer_options", {}
    )
    codec = FlowMAC(
        features=LogMel(settings),
        normalizer=MelNormalizer(-1.0, 2.0),
        encoder=MelEncoder(M, trunk(), 6, stride),
        quantizer=ResidualQuantizer(6, K, 16, **quantizer_options),
        decoder=MelDecoder(6, trunk(), M, stride),
        flow=FlowMatching((field or conv_field)(), **flow_options),
        **options,
    )
    return awake(codec)


def make_batch(width=1500):
    lengths = torch.tensor([1, 700, 705, width])
    wav = 0.3 * noise(0, 4, width) * length_mask(lengths, width)
    return wav, lengths


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=[1, 2], ids=["stride1", "stride2"])
def stride(request):
    return request.param


def test_total_is_the_weighted_sum(stride):
    weights = dict(flow_weight=0.7, prior_weight=0.2, commitment_weight=0.3)
    codec = make(stride, **weights).train()
    wav, lengths = make_batch()
    losses = codec(wav, lengths, generator())
    assert min(losses.flow, losses.prior, losses.commitment) > 0
    torch.testing.assert_close(
        losses.total,
        0.7 * losses.flow + 0.2 * losses.prior + 0.3 * losses.commitment,
    )
    assert losses.tokens.shape == (4, math.ceil(1500 / HOP), K)
    assert torch.equal(losses.token_mask.sum(1), num_frames(lengths, HOP))


def test_terms_follow_their_formulas(stride):
    codec = make(stride)
    wav, lengths = make_batch()
    with torch.no_grad():
        losses = codec(wav, lengths, generator(3))
    mel, mask, token_mask = codec.analyse(wav, lengths)
    tokens, _ = codec.encode(wav, lengths)
    mu = codec.decoder(codec.quantizer.decode(tokens), token_mask)
    mu = mu[:, : mel.shape[1]].detach()
    error = (mu - mel)[mask]
    torch.testing.assert_close(
        losses.prior, error.square().mean() + error.abs().mean()
    )
    total, mse = codec.flow.loss(mel, mu, mask, generator(3))
    torch.testing.assert_close(losses.flow, total.detach())
    torch.testing.assert_close(losses.flow_mse, mse)


def test_padding_changes_no_loss(stride):
    wav, lengths = make_batch()
    wider = torch.nn.functional.pad(wav, (0, 3 * HOP))
    first, second = make(stride).train(), make(stride).train()
    recorded = []
    for codec, batch in ((first, wav), (second, wider)):
        torch.manual_seed(1)
        losses = codec(batch, lengths, generator())
        losses.total.backward()
        recorded.append(losses)
    for name in ("prior", "commitment"):
        a, b = (getattr(losses, name) for losses in recorded)
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    buffers = dict(second.named_buffers())
    for name, buffer in first.named_buffers():
        torch.testing.assert_close(buffer, buffers[name], msg=name)


@pytest.mark.parametrize("codebook_dim", [None, 3])
def test_gradients_reach_all_parameters(stride, codebook_dim):
    options = dict(codebook_dim=codebook_dim)
    codec = make(stride, quantizer_options=options).train()
    codec(*make_batch(), generator()).total.backward()
    for name, parameter in codec.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_training_lowers_the_loss():
    codec = make(quantizer_options=dict(kmeans_iterations=3)).train()
    optimizer = torch.optim.Adam(codec.parameters(), 3e-3)
    wav, lengths = make_batch()
    history = []
    for step in range(40):
        losses = codec(wav, lengths, generator(step))
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        history.append(losses.total.item())
    assert sum(history[-5:]) < 0.7 * sum(history[:5])


def test_frozen_parts_stay_as_they_are_to_the_bit():
    """Also what is no weight: codebooks that would follow the data."""
    trunk = lambda: Transformer(8, 1, num_heads=2, dropout=0.5)  # noqa: E731
    codec = make(trunk=trunk)
    wav, lengths = make_batch()
    before = {k: v.clone() for k, v in codec.state_dict().items()}
    tokens, _ = codec.encode(wav, lengths)
    codec.train()
    codec.freeze(["encoder", "quantizer", "decoder"])
    optimizer = torch.optim.AdamW(codec.parameters(), 1e-2)
    counts, priors = set(), {}
    for step in range(20):
        torch.manual_seed(step)
        losses = codec(wav, lengths, generator(step))
        losses.total.backward()
        optimizer.step()
        used = int((losses.tokens >= 0).any(0).any(0).sum())
        counts.add(used)
        # the same mel from the same codebooks: no chance, no change
        assert priors.setdefault(used, losses.prior.item()) == losses.prior
    assert len(counts) > 1, "codebooks are left out as in training"
    changed = {
        name.split(".")[0]
        for name, value in codec.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {"flow"}
    again, _ = codec.eval().encode(wav, lengths)
    assert torch.equal(again, tokens)


def test_weights_of_another_objective_make_the_same_codec():
    """Same tokens, and a mean flow that starts from its field."""

    def mean_flow():
        trunk = ConvNeXt(8, 1, condition_dim=8)
        field = ConvNeXtField(M, trunk, num_times=2)
        return MeanFlow(MeanResidualField(field, tau=0.3))

    codec, other = make(), make()
    other.flow = mean_flow()
    other.load_state_dict(other.adopt(codec.state_dict()))
    wav, lengths = make_batch()
    tokens, _ = codec.encode(wav, lengths)
    assert torch.equal(other.encode(wav, lengths)[0], tokens)
    # that knows no r, so its one step is not the Gaussian's alone
    one = Sampling(n_steps=1, temperature=0.0)
    torch.testing.assert_close(
        other.decode(tokens, None, one),
        codec.decode(tokens, None, one),
        atol=1e-3,
        rtol=1e-3,
    )
    assert all(
        torch.equal(v, codec.state_dict()[k])
        for k, v in codec.adopt(codec.state_dict()).items()
    )


@pytest.mark.parametrize("name", ["encode", "encoder.root", "features"])
def test_what_cannot_be_frozen_is_told(name):
    with pytest.raises(ValueError, match=f"{name}; expected some of"):
        make().freeze([name, "decoder"])


def test_parts_of_parts_are_frozen():
    codec = make()
    codec.freeze(["encoder.trunk"])
    codec.train()
    assert not codec.encoder.trunk.training and codec.encoder.training
    frozen = {n for n, p in codec.named_parameters() if not p.requires_grad}
    assert frozen == {
        f"encoder.trunk.{n}" for n, _ in codec.encoder.trunk.named_parameters()
    }


def test_a_flow_without_weight_is_not_evaluated():
    codec = make().train()
    codec.flow_weight, codec.flow = 0.0, None
    losses = codec(*make_batch(), generator())
    assert losses.flow == 0 and losses.total > 0


TRUNKS = [
    lambda: ConvNeXt(8, 1),
    lambda: Transformer(8, 1, num_heads=2),
]


@pytest.mark.parametrize("trunk", TRUNKS)
def test_tokens_do_not_depend_on_the_batch(stride, trunk):
    codec = make(stride, trunk, quantizer_options=dict(kmeans_iterations=5))
    wav, lengths = make_batch()
    codec.train()(wav, lengths, generator())
    codec.eval()
    tokens, frames = codec.encode(wav, lengths)
    assert tokens.dtype == torch.int64 and tokens.shape[2] == K
    assert torch.equal(frames, num_frames(lengths, HOP))
    for i, length in enumerate(lengths):
        single, _ = codec.encode(wav[i : i + 1, :length])
        assert torch.equal(tokens[i, : frames[i]], single[0])
        assert not tokens[i, frames[i] :].any()
    # many codes are in use, or the test would say nothing
    assert len(tokens.flatten(0, 1).unique(dim=0)) > 10


@pytest.mark.parametrize("trunk", TRUNKS)
def test_tokens_do_not_depend_on_precision(stride, trunk):
    codec = make(stride, trunk)
    wav, lengths = make_batch()
    tokens, _ = codec.encode(wav, lengths)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype):
            assert torch.equal(codec.encode(wav, lengths)[0], tokens)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        codec.to(dtype)
        assert torch.equal(codec.encode(wav, lengths)[0], tokens)
        torch.set_default_dtype(dtype)
        try:
            assert torch.equal(codec.encode(wav, lengths)[0], tokens)
        finally:
            torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("samples", [1, 63, 64, 65, 127, 129, 1000])
def test_every_hop_begun_has_a_token_frame(stride, samples):
    codec = make(stride)
    tokens, frames = codec.encode(noise(0, 1, samples))
    expected = math.ceil(samples / HOP)
    assert tokens.shape == (1, expected, K) and frames.tolist() == [expected]
    assert codec.decode(tokens).shape == (1, expected * stride, M)


def test_fewer_codebooks_are_a_prefix(stride):
    codec = make(stride)
    wav, lengths = make_batch()
    tokens, _ = codec.encode(wav, lengths)
    for count in range(1, K + 1):
        part, _ = codec.encode(wav, lengths, num_codebooks=count)
        assert torch.equal(part, tokens[..., :count])
        assert codec.decode(part).isfinite().all()
    with pytest.raises(ValueError, match=f"1..{K}, found {K + 1}"):
        codec.encode(wav, lengths, num_codebooks=K + 1)


def test_tokens_of_a_part_with_context_are_those_of_the_whole(stride):
    codec = make(stride)
    wav = 0.3 * noise(0, 1, 40 * HOP)
    whole, _ = codec.encode(wav)
    reach = codec.encoder_receptive_field
    for a, b in ((0, 9), (15, 16), (20, 33), (30, 40)):
        lo, hi = max(a - reach, 0), min(b + reach, 40)
        part, _ = codec.encode(wav[:, lo * HOP : hi * HOP])
        assert torch.equal(part[:, a - lo : b - lo], whole[:, a:b])


def random_tokens(frames=40, batch=2, seed=0):
    return torch.randint(0, 16, (batch, frames, K), generator=generator(seed))


def test_decoding_is_seeded(stride):
    codec = make(stride)
    tokens = random_tokens()
    torch.manual_seed(1)
    first = codec.decode(tokens, seed=5)
    torch.manual_seed(2)
    assert torch.equal(codec.decode(tokens, seed=5), first)
    assert (codec.decode(tokens, seed=6) - first).abs().max() > 0.01


def test_the_global_generator_is_left_alone():
    codec = make()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    codec.decode(random_tokens())
    codec.encode(noise(0, 1, 500))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize(
    "field", [conv_field, lambda: UNetField(M, (8, 8), num_heads=2)]
)
def test_mels_do_not_depend_on_the_batch(stride, trunk, field):
    codec = make(stride, trunk, field)
    tokens = random_tokens(20, 3)
    lengths = torch.tensor([1, 7, 20])
    sampling = Sampling(n_steps=3)
    batch = codec.decode(tokens, lengths, sampling, seed=2)
    for i, length in enumerate(lengths):
        single = codec.decode(
            tokens[i : i + 1, :length], None, sampling, seed=2
        )[0]
        torch.testing.assert_close(
            batch[i, : len(single)], single, atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize(
    "field", [conv_field, lambda: UNetField(M, (8, 8), num_heads=2)]
)
@pytest.mark.parametrize(
    "dtype, tolerance",
    [(torch.float16, 0.01), (torch.bfloat16, 0.1), (torch.float64, 1e-5)],
)
def test_mels_of_a_codec_that_is_cast(stride, trunk, field, dtype, tolerance):
    options = dict(flow_options=dict(condition_dropout=0.1))
    codec = make(stride, trunk, field, **options)
    tokens, lengths = random_tokens(20, 2), torch.tensor([7, 20])
    sampling = Sampling(n_steps=2, guidance=0.5, solver=Heun())
    expected = codec.decode(tokens, lengths, sampling)[1]
    found = codec.to(dtype).decode(tokens, lengths, sampling)[1]
    assert found.dtype == torch.float32
    assert (found - expected).std() < tolerance * expected.std()


@pytest.mark.parametrize("objective", [MeanFlow, ImprovedMeanFlow])
@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float16, 0.01), (torch.float64, 1e-5)]
)
def test_mels_of_a_mean_flow_that_is_cast(objective, dtype, tolerance):
    codec = make()
    trunk = ConvNeXt(8, 1, condition_dim=8)
    codec.flow = awake(objective(ConvNeXtField(M, trunk, num_times=2)))
    tokens, sampling = random_tokens(20, 2), Sampling(n_steps=2)
    expected = codec.decode(tokens, None, sampling)
    found = codec.to(dtype).decode(tokens, None, sampling)
    assert found.dtype == torch.float32
    assert (found - expected).std() < tolerance * expected.std()


SAMPLINGS = [
    Sampling(n_steps=0),
    Sampling(n_steps=1),
    Sampling(n_steps=3, schedule=Sway()),
    Sampling(n_steps=1, solver=Midpoint(), temperature=0.5),
    Sampling(n_steps=2, guidance=0.5),
]


def decode_in_chunks(codec, tokens, sampling, size, context, seed):
    frames, stride = tokens.shape[1], codec.encoder.stride
    parts = []
    for a in range(0, frames, size):
        b = min(a + size, frames)
        lo, hi = max(a - context, 0), min(b + context, frames)
        mask = torch.full((len(tokens),), hi - lo)
        mel = codec.decode(
            tokens[:, lo:hi], mask, sampling, seed=seed, start=lo
        )
        parts.append(mel[:, (a - lo) * stride : (b - lo) * stride])
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("size", [1, 7, 16])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_chunks_join_into_the_whole(stride, sampling, size):
    codec = make(stride, flow_options=dict(condition_dropout=0.1))
    tokens = random_tokens()
    reach = codec.decoder_receptive_field(sampling)
    assert reach < 20, "the chunks would be the whole"
    lengths = torch.full((2,), 40)
    whole = codec.decode(tokens, lengths, sampling, seed=3)
    joined = decode_in_chunks(codec, tokens, sampling, size, reach, 3)
    torch.testing.assert_close(joined, whole, atol=1e-3, rtol=1e-3)


def test_chunks_need_their_context_and_their_place():
    codec = make()
    tokens, sampling = random_tokens(), Sampling(n_steps=2)
    whole = codec.decode(tokens, None, sampling)
    joined = decode_in_chunks(codec, tokens, sampling, 7, 0, 0)
    assert (joined - whole).abs().max() > 0.01
    misplaced = codec.decode(tokens[:, 7:], None, sampling)
    assert (misplaced - whole[:, 7:])[:, 20:].abs().max() > 0.01


def test_chunks_of_a_unet_start_on_its_coarsest_grid():
    """A window makes its field finite; halving the rate makes it care where
    pairs of frames begin."""
    codec = make(field=lambda: UNetField(M, (8, 8), 2, 1, window=1))
    tokens, sampling = random_tokens(120, 1), Sampling(n_steps=1)
    reach = codec.decoder_receptive_field(sampling)
    assert reach < 40
    even = reach + reach % 2
    whole = codec.decode(tokens, None, sampling)
    joined = decode_in_chunks(codec, tokens, sampling, 16, even, 0)
    torch.testing.assert_close(joined, whole, atol=1e-3, rtol=1e-3)


def test_rescaled_guidance_has_no_bounded_receptive_field():
    sampling = Sampling(n_steps=2, guidance=0.5, rescale=0.7)
    assert make().decoder_receptive_field(sampling) is None


def test_guidance_needs_no_lengths():
    codec = make(flow_options=dict(condition_dropout=0.1))
    tokens, sampling = random_tokens(), Sampling(n_steps=2, guidance=0.5)
    expected = codec.decode(tokens, torch.full((2,), 40), sampling)
    torch.testing.assert_close(codec.decode(tokens, None, sampling), expected)


def test_no_steps_give_the_decoded_mel(stride):
    codec = make(stride)
    tokens = random_tokens()
    mel = codec.decode(tokens, None, Sampling(n_steps=0), seed=1)
    mu = codec.decoder(codec.quantizer.decode(tokens)).detach()
    torch.testing.assert_close(mel, -1.0 + 2.0 * mu)
    other = codec.decode(tokens, None, Sampling(n_steps=0), seed=2)
    assert torch.equal(mel, other)


@pytest.mark.parametrize("n_steps", [0, 1, 3])
def test_mels_get_their_spread_back_for_their_codebooks(stride, n_steps):
    codec = make(stride, spread=MelSpread([1.3] * 3 + [1.1]))
    sampling = Sampling(n_steps=n_steps, temperature=0.5)
    tokens = random_tokens()
    for k in (1, 4):
        plain = codec.decode(tokens[..., :k], sampling=sampling)
        spread = codec.decode(
            tokens[..., :k], sampling=sampling.with_changes(spread=0.5)
        )
        assert torch.equal(spread, codec.spread(plain, k, 0.5))
        assert not torch.equal(spread, plain)


def test_spread_is_for_models_that_know_theirs(stride):
    codec = make(stride)
    with pytest.raises(ValueError, match="use spread=0"):
        codec.decode(random_tokens(), sampling=Sampling(1, spread=1.0))


def test_temperature_scales_the_noise():
    codec = make()
    tokens = random_tokens()

    def spread(temperature):
        sampling = Sampling(n_steps=8, temperature=temperature)
        return (
            codec.decode(tokens, None, sampling, seed=1)
            - codec.decode(tokens, None, sampling, seed=2)
        ).std()

    assert spread(0.0) == 0
    assert 0 < spread(0.3) < spread(1.0)


def test_the_default_sampling_is_that_of_the_model():
    sampling = Sampling(n_steps=2, solver=Heun())
    codec = make(sampling=sampling)
    tokens = random_tokens()
    torch.testing.assert_close(
        codec.decode(tokens), codec.decode(tokens, None, sampling)
    )
    assert make().sampling.n_steps == Sampling().n_steps == 32


def test_receptive_fields(stride):
    codec = make(stride)
    own, field = 3, 3
    reach = [
        codec.decoder_receptive_field(Sampling(n_steps=n)) for n in range(6)
    ]
    assert reach == [own + math.ceil(n * field / stride) for n in range(6)]
    sampling = Sampling(n_steps=2, solver=RK4())
    assert codec.flow.evaluations(sampling) == 8
    assert codec.decoder_receptive_field(sampling) == own + math.ceil(
        8 * field / stride
    )
    assert codec.encoder_receptive_field > own


def test_unbounded_receptive_fields():
    codec = make(trunk=lambda: Transformer(8, 1, num_heads=2))
    assert codec.encoder_receptive_field is None
    assert codec.decoder_receptive_field(Sampling(n_steps=0)) is None
    codec = make(field=lambda: UNetField(M, (8, 8), num_heads=2))
    assert codec.decoder_receptive_field(Sampling(n_steps=1)) is None
    assert codec.decoder_receptive_field(Sampling(n_steps=0)) == 3


class Shift(Flow):
    """A flow of its own kind: no field, no solver."""

    def loss(self, mel, mu, mask, generator):
        mse = (mel - mu).square().mean()
        return FlowLosses(3 * mse, mse.detach())

    def sample(self, noise, mu, mask, sampling):
        return mu + sampling.temperature * noise

    def evaluations(self, sampling):
        return 1

    def receptive_field(self, sampling):
        return 7


def test_the_codec_knows_nothing_of_how_its_flow_works():
    codec = make()
    codec.flow = Shift()
    tokens, sampling = random_tokens(), Sampling(temperature=0.0)
    torch.testing.assert_close(
        codec.decode(tokens, None, sampling),
        make().decode(tokens, None, Sampling(n_steps=0)),
    )
    assert codec.decoder_receptive_field(sampling) == 3 + 7
    assert codec.alignment == 1
    losses = codec.train()(*make_batch(), generator())
    torch.testing.assert_close(losses.flow, 3 * losses.flow_mse)


def test_bad_tokens_are_refused():
    codec = make()
    tokens = random_tokens()
    tokens[0, 3, 1] = 16
    with pytest.raises(ValueError, match="found 0..16"):
        codec.decode(tokens)


def test_the_paper_s_front_end_is_3_kbps():
    settings = MelSettings()
    half = MelSettings(n_fft=1024, hop_length=256, win_length=1024, n_mels=100)
    for front_end, steps in ((settings, 1), (half, 2)):
        trunk = ConvNeXt(8, 1)
        codec = FlowMAC(
            LogMel(front_end),
            MelNormalizer(),
            MelEncoder(front_end.n_mels, trunk, 6, steps),
            ResidualQuantizer(6, kmeans_iterations=0),
            MelDecoder(6, trunk, front_end.n_mels, steps),
            FlowMatching(
                ConvNeXtField(front_end.n_mels, ConvNeXt(8, 1, condition_dim=8))
            ),
        ).eval()
        assert codec.mel_settings is front_end
        assert codec.hop_length == 512 and codec.frame_rate == 46.875
        tokens, _ = codec.encode(noise(0, 1, 1000))
        assert tokens.shape == (1, 2, 8)
        assert codec.decode(tokens, None, Sampling(n_steps=1)).shape == (
            1,
            2 * steps,
            front_end.n_mels,
        )
