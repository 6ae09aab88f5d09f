"""Search of residual codes: several beginnings are kept, not the nearest alone.

Greedy residual quantization fixes a code before it is known what the later
ones can still mend. A search over the tree of codes keeps the best few
beginnings at every codebook instead, as in the multi-stage quantizers of
low-rate speech coders: LeBlanc et al., "Efficient search and design procedures
for robust multi-stage VQ of LPC parameters for 4 kb/s speech coding", IEEE
Trans. Speech and Audio Processing 1(4), 1993. The decoder need not know.
"""

import torch


def search_codes(x, codebooks, beam_size):
    """Codes whose sums are near x, however many of them are kept.

    A path of codes costs the sum of the square errors of all its beginnings
    (the paper's the last one alone), so that the tokens may be cut to fewer
    codebooks later.

    Arguments
    ---------
    x : torch.Tensor
        Vectors, shape [N, H].
    codebooks : torch.Tensor
        Shape [K, C, H].
    beam_size : int
        How many beginnings are kept; 1 is the greedy choice.

    Returns
    -------
    torch.Tensor
        int64, shape [N, K].

    Example
    -------
    >>> codebooks = torch.tensor([[[0.0], [1.0]], [[0.0], [0.6]]])
    >>> search_codes(torch.tensor([[0.55]]), codebooks, beam_size=1)
    tensor([[1, 0]])
    >>> search_codes(torch.tensor([[0.55]]), codebooks, beam_size=2)
    tensor([[0, 1]])
    """
    rows = torch.arange(len(x), device=x.device).unsqueeze(1)
    rest = x.unsqueeze(1)  # of each beginning, [N, beams, H]
    cost = x.new_zeros(len(x), 1)
    paths = rows.new_zeros(len(x), 1, 0)
    for codes in codebooks:
        errors = (
            rest.square().sum(-1, keepdim=True)
            - 2 * rest @ codes.T
            + codes.square().sum(-1)
        )
        costs = (cost.unsqueeze(-1) + errors).flatten(1)
        kept = min(beam_size, costs.shape[1])
        cost, best = costs.topk(kept, largest=False)
        beginning, code = best // len(codes), best % len(codes)
        rest = rest[rows, beginning] - codes[code]
        paths = torch.cat([paths[rows, beginning], code.unsqueeze(-1)], -1)
    return paths[:, 0]
