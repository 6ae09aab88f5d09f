"""How much local detail a log-mel has."""


def mel_roughness(log_mel, mask=None):
    """Root mean square of a log-mel minus the mean of its four neighbours.

    That is the discrete Laplacian over time and bands, divided by 4. A mean
    over what a mel might be is smoother than any one of them, however close to
    it: this tells a sample (as rough as the truth) from a mean.

    Arguments
    ---------
    log_mel : torch.Tensor
        Natural log, shape [B, N, M], N and M at least 3.
    mask : torch.Tensor or None
        Shape [B, N], True where valid; None if all are.

    Returns
    -------
    float
        In natural-log units; 0 for a plane, NaN where no frame has two valid
        neighbours.

    Example
    -------
    >>> import torch
    >>> checkers = torch.tensor([[1.0, -1.0] * 4, [-1.0, 1.0] * 4] * 4)
    >>> mel_roughness(checkers[None])
    2.0
    """
    centre = log_mel[:, 1:-1, 1:-1]
    around = (
        log_mel[:, :-2, 1:-1]
        + log_mel[:, 2:, 1:-1]
        + log_mel[:, 1:-1, :-2]
        + log_mel[:, 1:-1, 2:]
    )
    squares = (centre - around / 4).square()
    if mask is not None:
        squares = squares[mask[:, :-2] & mask[:, 1:-1] & mask[:, 2:]]
    return float(squares.mean().sqrt())
