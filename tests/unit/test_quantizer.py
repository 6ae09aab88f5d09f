"""Residual vector quantizer: masks, prefixes, training, several ranks."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from speechbrain_flowmac.lobes.quantizer import (
    CodebookUsage,
    QuantizerNotTrainedError,
    ResidualQuantizer,
)

K, C, H = 4, 16, 6


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(seed=0, **changes):
    torch.manual_seed(seed)
    options = dict(dim=H, num_codebooks=K, codebook_size=C) | changes
    return ResidualQuantizer(**options)


def trained(**changes):
    """A quantizer after a few batches, for evaluation."""
    quantizer = make(**changes)
    for step in range(3):
        quantizer(noise(step, 4, 50, H))
    return quantizer.eval()


@pytest.fixture(params=[None, 3], ids=["full", "factorised"])
def codebook_dim(request):
    return request.param


@pytest.mark.parametrize("kmeans_iterations", [0, 5])
def test_padding_reaches_neither_codebooks_nor_loss(
    codebook_dim, kmeans_iterations
):
    mask = torch.arange(40) < torch.tensor([40, 9, 25])[:, None]
    latents = noise(0, 3, 40, H)
    results = []
    for padding in (0.0, 7.0, 1e4):
        quantizer = make(
            codebook_dim=codebook_dim,
            kmeans_iterations=kmeans_iterations,
            dead_code_threshold=2.0,
        )
        torch.manual_seed(1)
        for step in range(3):
            x = (latents + step).masked_fill(~mask.unsqueeze(-1), padding)
            x.requires_grad_()
            out = quantizer(x, mask)
        (out.loss + out.quantized[mask].sum()).backward()
        assert not x.grad[~mask].any()
        results.append((quantizer.state_dict(), out, x.grad))
    first = results[0]
    for state, out, grad in results[1:]:
        for name, value in first[0].items():
            assert torch.equal(value, state[name]), name
        assert torch.equal(first[1].loss, out.loss)
        assert torch.equal(first[1].tokens[mask], out.tokens[mask])
        assert torch.equal(first[2], grad)


def test_loss_is_the_mean_over_valid_frames():
    quantizer = make(num_codebooks=1, kmeans_iterations=0, decay=1.0)
    mask = torch.tensor([[True, True, False]])
    latents = noise(0, 1, 3, H)
    codes = quantizer.vocabulary[0].clone()
    out = quantizer(latents, mask)
    nearest = torch.cdist(latents[mask], codes).min(1).values
    torch.testing.assert_close(out.loss, (nearest**2).mean() / H)


def test_loss_is_the_mean_over_the_codebooks_in_use():
    """With every code at 0 each codebook costs the same."""
    quantizer = make(kmeans_iterations=0, decay=1.0, dead_code_threshold=0.0)
    for layer in quantizer.rvq.layers:
        layer._codebook.embed.zero_()
        layer._codebook.embed_avg.zero_()
    latents = noise(0, 2, 30, H)
    used = set()
    for _ in range(8):
        out = quantizer(latents)
        used.add(int((out.tokens[0, 0] >= 0).sum()))
        torch.testing.assert_close(out.loss, latents.square().mean())
    assert len(used) > 1


def test_first_batch_starts_every_codebook():
    for seed in range(5):
        quantizer = make(seed, dropout=True)
        assert not quantizer.initialised
        out = quantizer(noise(seed, 2, 50, H))
        assert quantizer.initialised
        assert (out.tokens >= 0).all()
        assert quantizer.vocabulary.abs().sum((1, 2)).gt(0).all()


def test_dead_codes_revive():
    quantizer = make(dropout=False, decay=0.5)
    quantizer(noise(0, 4, 50, H))
    # far away from all codes but the revived ones
    latents = 100 + noise(1, 4, 50, H)
    for _ in range(10):
        quantizer(latents)
    usage = CodebookUsage(K, C)
    usage.update(quantizer(latents).tokens)
    assert usage.used.min() > 0.8


def test_dropped_codebooks_are_marked_and_decode(codebook_dim):
    quantizer = make(codebook_dim=codebook_dim, decay=1.0)
    latents = noise(0, 2, 50, H)
    quantizer(latents)
    counts = set()
    for _ in range(16):
        before = quantizer.vocabulary.clone()
        out = quantizer(latents)
        kept = (out.tokens >= 0).all(0).all(0)
        count = int(kept.sum())
        counts.add(count)
        assert kept[:count].all() and (out.tokens[..., count:] == -1).all()
        chosen = sum(before[k][out.tokens[..., k]] for k in range(count))
        torch.testing.assert_close(out.quantized, chosen, atol=1e-5, rtol=1e-5)
    assert counts == set(range(1, K + 1))


def test_a_share_of_the_batches_leaves_codebooks_out():
    quantizer = make(dropout=0.5)
    latents = torch.randn(1, 9, H)
    whole = 0
    for seed in range(200):
        torch.manual_seed(seed)
        whole += bool((quantizer(latents).tokens >= 0).all())
    # half of the batches, and one in K of the others by chance
    assert abs(whole / 200 - (0.5 + 0.5 / K)) < 0.12


def test_without_dropout_all_codebooks_are_used():
    quantizer = make(dropout=False)
    for _ in range(10):
        assert (quantizer(noise(0, 2, 50, H)).tokens >= 0).all()


@pytest.mark.parametrize("count", [1, 2, K])
def test_vocabulary_sums_to_what_a_prefix_decodes_to(codebook_dim, count):
    quantizer = trained(codebook_dim=codebook_dim)
    if codebook_dim is not None:
        torch.nn.init.normal_(quantizer.project_out.bias)
    vocabulary = quantizer.vocabulary
    assert vocabulary.shape == (K, C, H)
    tokens = quantizer.encode(noise(9, 3, 7, H))[..., :count]
    expected = sum(vocabulary[k][tokens[..., k]] for k in range(count))
    torch.testing.assert_close(quantizer.decode(tokens), expected)


def test_fewer_codebooks_are_a_prefix(codebook_dim):
    quantizer = trained(codebook_dim=codebook_dim)
    latents = noise(5, 2, 9, H)
    tokens = quantizer.encode(latents)
    assert tokens.dtype == torch.int64 and tokens.shape == (2, 9, K)
    for count in range(1, K + 1):
        part = quantizer.encode(latents, count)
        assert torch.equal(part, tokens[..., :count])


def test_validation_agrees_with_coding(codebook_dim):
    quantizer = trained(codebook_dim=codebook_dim)
    latents = noise(5, 2, 9, H)
    out = quantizer(latents)
    assert torch.equal(out.tokens, quantizer.encode(latents))
    torch.testing.assert_close(out.quantized, quantizer.decode(out.tokens))


def test_more_codebooks_come_closer():
    quantizer = make(dropout=False, kmeans_iterations=10)
    latents = noise(0, 4, 200, H)
    quantizer(latents)
    quantizer.eval()
    tokens = quantizer.encode(latents)
    errors = [
        (quantizer.decode(tokens[..., :k]) - latents).square().mean().item()
        for k in range(1, K + 1)
    ]
    assert errors[0] < latents.square().mean()
    assert all(b < 0.8 * a for a, b in zip(errors, errors[1:], strict=False))


@pytest.mark.parametrize(
    "num_codebooks",
    [
        1,
        3,
    ],
)
def test_gradients_pass_straight_through(num_codebooks):
    quantizer = trained(num_codebooks=num_codebooks, dropout=False).train()
    latents = noise(0, 2, 9, H).requires_grad_()
    weight = noise(1, 2, 9, H)
    (quantizer(latents).quantized * weight).sum().backward()
    torch.testing.assert_close(latents.grad, weight)


def test_untrained_quantizers_refuse_to_code():
    for quantizer in (make(), make().eval()):
        with pytest.raises(QuantizerNotTrainedError):
            quantizer.encode(noise(0, 1, 20, H))
        assert not quantizer.initialised
    with pytest.raises(QuantizerNotTrainedError):
        make().eval()(noise(0, 1, 20, H))


def test_coding_changes_nothing(codebook_dim):
    quantizer = trained(codebook_dim=codebook_dim)
    before = {k: v.clone() for k, v in quantizer.state_dict().items()}
    for mode in (True, False):
        quantizer.train(mode)
        quantizer.decode(quantizer.encode(5 * noise(7, 2, 30, H)).clamp(min=0))
    for name, value in quantizer.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_coding_leaves_nothing_to_chance_in_training_mode_either():
    quantizer = trained()
    latents = noise(7, 2, 30, H)
    expected = quantizer.encode(latents)
    quantizer.train()
    quantizer(latents[:, :1])
    expected = quantizer.eval().encode(latents)
    quantizer.train()
    for _ in range(10):
        assert torch.equal(quantizer.encode(latents), expected)


def test_weights_carry_the_codebooks():
    quantizer = trained()
    copy = make(seed=1).eval()
    copy.load_state_dict(quantizer.state_dict())
    latents = noise(3, 2, 9, H)
    assert torch.equal(copy.encode(latents), quantizer.encode(latents))


@pytest.mark.parametrize("count", [0, K + 1, -1])
def test_numbers_of_codebooks_out_of_range_are_refused(count):
    quantizer = trained()
    with pytest.raises(ValueError, match=f"1..{K}, found {count}"):
        quantizer.encode(noise(0, 1, 3, H), num_codebooks=count)
    if count >= 0:
        with pytest.raises(ValueError, match=f"1..{K}, found {count}"):
            quantizer.decode(torch.zeros(1, 3, count, dtype=torch.int64))


@pytest.mark.parametrize("bad", [-1, C, 1000])
def test_tokens_out_of_range_are_refused(bad):
    tokens = torch.zeros(1, 3, K, dtype=torch.int64)
    tokens[0, 1, 2] = bad
    with pytest.raises(ValueError, match=rf"0\.\.{C - 1}, found .*{bad}"):
        trained().decode(tokens)


def test_usage_counts_like_numpy():
    generator = np.random.default_rng(0)
    usage = CodebookUsage(K, C)
    kept = []
    for _ in range(3):
        tokens = generator.integers(0, C // 2, (2, 30, K))
        tokens[:, :, 3] = -1
        mask = generator.random((2, 30)) < 0.7
        usage.update(torch.from_numpy(tokens), torch.from_numpy(mask))
        kept.append(tokens[mask])
    kept = np.concatenate(kept)
    for k in range(3):
        share = np.bincount(kept[:, k], minlength=C) / len(kept)
        perplexity = np.exp(
            -(share[share > 0] * np.log(share[share > 0])).sum()
        )
        assert usage.used[k].item() == pytest.approx((share > 0).mean())
        assert usage.perplexity[k].item() == pytest.approx(perplexity, rel=1e-5)
    assert usage.used[3] == 0 and usage.perplexity[3] == 1


TWO_RANKS = """
    import sys
    import torch
    from torch import distributed, multiprocessing
    from speechbrain_flowmac.lobes.quantizer import ResidualQuantizer

    def work(rank, folder):
        torch.set_num_threads(1)
        distributed.init_process_group(
            "gloo", f"file://{folder}/store", rank=rank, world_size=2
        )
        torch.manual_seed(rank)
        quantizer = ResidualQuantizer(6, 3, 16, kmeans_iterations=4)
        assert quantizer.synchronized
        for step in range(6):
            # other data, and other numbers of frames, on each rank
            latents = (1 + rank) * torch.randn(2, 40 + 20 * rank, 6)
            mask = torch.arange(latents.shape[1])[None] < 30 + rank
            quantizer(latents, mask.expand(2, -1))
        torch.save(quantizer.state_dict(), f"{folder}/{rank}.pt")
        distributed.destroy_process_group()

    if __name__ == "__main__":
        multiprocessing.start_processes(
            work, (sys.argv[1],), nprocs=2, start_method="fork"
        )
"""


def test_two_ranks_share_their_codebooks(tmp_path):
    script = tmp_path / "two_ranks.py"
    script.write_text(textwrap.dedent(TWO_RANKS))
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [sys.executable, script, tmp_path],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert all(first[name].isfinite().all() for name in first)
    for name, value in first.items():
        torch.testing.assert_close(
            value, second[name], rtol=0, atol=0, msg=name
        )


def test_one_process_is_not_synchronized():
    assert not make().synchronized
