"""Features of a frozen recogniser, at the codec's rate."""

import torch
from torch import nn

from speechbrain_flowmac.lobes.ctc_recogniser import (
    CTCRecogniser,
    LSTMEncoder,
    MelFrontEnd,
)
from speechbrain_flowmac.lobes.lengths import length_mask
from speechbrain_flowmac.lobes.semantic_features import (
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
    one, lengths = features(None, mel, mask)
    two, _ = features(None, mel, mask)
    assert torch.equal(one, two) and lengths.tolist() == [5, 5]


def test_features_do_not_depend_on_padding_or_autocast():
    features = make()
    lengths = torch.tensor([9, 4])
    mask = length_mask(lengths, 9)
    mel = torch.randn(2, 9, 10).masked_fill(~mask[..., None], 7.0)
    both, counts = features(None, mel, mask)
    assert counts.tolist() == [5, 2]
    with torch.autocast("cpu", torch.bfloat16):
        alone, _ = features(None, mel[1:, :4], mask[1:, :4])
    torch.testing.assert_close(both[1:, :2], alone)


def test_the_output_of_the_recogniser_is_made_of_its_features():
    features = make()
    mel, mask = torch.randn(1, 9, 10), torch.ones(1, 9, dtype=torch.bool)
    recogniser = features.recogniser
    scores = nn.Sequential(recogniser.norm, recogniser.output)(
        features(None, mel, mask)[0]
    ).log_softmax(-1)
    expected, _ = recogniser(mel, torch.tensor([9]))
    torch.testing.assert_close(scores, expected)
