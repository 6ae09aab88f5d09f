"""Features of a frozen recogniser, at the codec's rate."""

import torch
from hyperpyyaml import load_hyperpyyaml
from torch import nn

from speechbrain_flowmac.lobes.ctc_recogniser import (
    CTCRecogniser,
    LSTMEncoder,
    MelFrontEnd,
)
from speechbrain_flowmac.lobes.encoder import join_frames
from speechbrain_flowmac.lobes.features import MelSettings
from speechbrain_flowmac.lobes.lengths import length_mask
from speechbrain_flowmac.lobes.semantic_features import (
    EncoderFeatures,
    RecogniserFeatures,
    resample_frames,
)


def make():
    torch.manual_seed(0)
    recogniser = CTCRecogniser(
        MelFrontEnd(10, 8), LSTMEncoder(8, 2, dropout=0.5), 8, num_symbols=29
    )
    return RecogniserFeatures(recogniser, dim=8)


def test_resampling_is_linear_interpolation_between_centres():
    x = torch.arange(5.0)[None, :, None]
    y = resample_frames(x, torch.tensor([5]), 1.25, 4)
    expected = torch.tensor([0.125, 1.375, 2.625, 3.875])
    torch.testing.assert_close(y.flatten(), expected)


def test_resampling_at_the_same_rate_changes_nothing():
    x = torch.randn(2, 7, 3)
    lengths = torch.tensor([7, 7])
    assert torch.equal(resample_frames(x, lengths, 1.0, 7), x)


def test_resampling_never_looks_past_an_end():
    x = torch.randn(1, 4, 3)
    alone = resample_frames(x, torch.tensor([4]), 0.7, 9)
    padded = torch.cat([x, torch.full((1, 3, 3), torch.nan)], 1)
    assert torch.equal(
        resample_frames(padded, torch.tensor([4]), 0.7, 9), alone
    )


def test_the_recogniser_stays_as_it_is():
    features = make().train()
    assert not any(p.requires_grad for p in features.parameters())
    assert not any(module.training for module in features.modules())
    mel, mask = torch.randn(2, 9, 10), torch.ones(2, 9, dtype=torch.bool)
    one, lengths = features(torch.zeros(1), mel, mask)
    two, _ = features(torch.zeros(1), mel, mask)
    assert torch.equal(one, two) and lengths.tolist() == [5, 5]


def test_features_do_not_depend_on_padding_or_autocast():
    features = make()
    lengths = torch.tensor([9, 4])
    mask = length_mask(lengths, 9)
    mel = torch.randn(2, 9, 10).masked_fill(~mask[..., None], 7.0)
    both, counts = features(torch.zeros(1), mel, mask)
    assert counts.tolist() == [5, 2]
    with torch.autocast("cpu", torch.bfloat16):
        alone, _ = features(torch.zeros(1), mel[1:, :4], mask[1:, :4])
    torch.testing.assert_close(both[1:, :2], alone)


def test_the_output_of_the_recogniser_is_made_of_its_features():
    features = make()
    mel, mask = torch.randn(1, 9, 10), torch.ones(1, 9, dtype=torch.bool)
    recogniser = features.recogniser
    scores = nn.Sequential(recogniser.norm, recogniser.output)(
        features(torch.zeros(1), mel, mask)[0]
    ).log_softmax(-1)
    expected, _ = recogniser(mel, torch.tensor([9]))
    torch.testing.assert_close(scores, expected)


def test_rows_of_several_mel_frames_are_those_of_the_recipe():
    torch.manual_seed(0)
    recogniser = CTCRecogniser(
        nn.Linear(20, 8), LSTMEncoder(8, 1), 8, num_symbols=29
    )
    features = RecogniserFeatures(recogniser, dim=8, join=2)
    assert features.stride == 4
    lengths = torch.tensor([9, 5])
    mel, mask = torch.randn(2, 9, 10), length_mask(lengths, 9)
    found, counts = features(torch.zeros(1), mel, mask)
    assert counts.tolist() == [3, 2]
    for i, length in enumerate(lengths):
        rows = join_frames(mel[i : i + 1, :length], 2)
        alone, _ = recogniser.encode(rows, torch.tensor([rows.shape[1]]))
        torch.testing.assert_close(found[i : i + 1, : counts[i]], alone)


# Encoders of SpeechBrain

CONFORMER = """
mel_settings: !new:speechbrain_flowmac.lobes.features.MelSettings
    sample_rate: 24000
    n_fft: 1024
    hop_length: 256
    win_length: 1024
    n_mels: 100
teacher: !new:speechbrain_flowmac.lobes.semantic_features.EncoderFeatures
    dim: 8
    sample_rate: 16000
    hop_length: 160
    mel_settings: !ref <mel_settings>
    encoder: !new:speechbrain.nnet.containers.LengthsCapableSequential
        - !new:speechbrain.lobes.features.Fbank
            n_mels: 20
        - !new:torch.nn.Linear
            in_features: 20
            out_features: 8
        - !new:speechbrain.lobes.models.transformer.Conformer.ConformerEncoder
            num_layers: 1
            d_model: 8
            d_ffn: 16
            nhead: 2
            kernel_size: 5
            attention_type: RoPEMHA
"""


def conformer():
    torch.manual_seed(0)
    return load_hyperpyyaml(CONFORMER)["teacher"]


def signals():
    torch.manual_seed(1)
    lengths = torch.tensor([20000, 9001])
    wav = 0.1 * torch.randn(2, 20000)
    wav = wav.masked_fill(torch.arange(20000) >= lengths[:, None], 0.0)
    mask = length_mask(-(-lengths // 256), 79)
    return wav, torch.zeros(2, 79, 100), mask, lengths


def test_an_encoder_of_speechbrain_is_a_teacher():
    teacher = conformer()
    assert teacher.stride == 24000 / 256 / 100
    wav, mel, mask, _ = signals()
    features, lengths = teacher(wav, mel, mask)
    # 20224 and 9216 samples at 24 kHz, one frame each 10 ms, and the first
    assert lengths.tolist() == [85, 39] and features.shape == (2, 85, 8)
    rows = resample_frames(features, lengths, 4 / teacher.stride, 20)
    assert rows.shape == (2, 20, 8)
    assert not any(p.requires_grad for p in teacher.parameters())
    teacher.train()
    assert not any(module.training for module in teacher.modules())


def test_what_an_encoder_says_does_not_depend_on_the_batch():
    teacher = conformer()
    wav, mel, mask, lengths = signals()
    both, counts = teacher(wav, mel, mask)
    for i, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        frames = int(mask[i].sum())
        with torch.autocast("cpu", torch.bfloat16):
            alone, _ = teacher(
                wav[i : i + 1, :length],
                mel[i : i + 1, :frames],
                mask[i : i + 1, :frames],
            )
        torch.testing.assert_close(both[i, :count], alone[0])
    twice, _ = teacher(wav[:1].repeat(2, 1), mel[:1], mask[:1].repeat(2, 1))
    torch.testing.assert_close(twice[1, : counts[0]], both[0, : counts[0]])


def test_tuples_begin_with_the_features():
    class Layer(nn.Module):
        def forward(self, wav, wav_lens):
            return wav.unfold(1, 320, 320), None

    settings = MelSettings(24000, 1024, 256, 1024)
    teacher = EncoderFeatures(Layer(), 320, 16000, 320, settings)
    wav, mel, mask, _ = signals()
    assert teacher(wav[:1], mel[:1], mask[:1])[0].shape == (1, 42, 320)
