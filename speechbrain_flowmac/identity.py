"""What tells a codec from another: a hash of what defines its tokens."""

import hashlib


def fingerprint(state):
    """SHA-256 of tensors with their names.

    It is computed whenever it is asked for: weights can change without a
    trace that a cache could watch.

    Arguments
    ---------
    state : dict
        Name to tensor: `FlowMAC.token_state()`.

    Returns
    -------
    bytes
        32 of them.

    Example
    -------
    >>> import torch
    >>> ones, zeros = torch.ones(8, 256, 4), torch.zeros(8, 256, 4)
    >>> fingerprint({"codebooks": ones}) == fingerprint({"codebooks": zeros})
    False
    """
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy())
    return digest.digest()


def legacy_fingerprint(codec):
    """The hash in streams of version 1, over the whole codec's state.

    Arguments
    ---------
    codec : FlowMAC
        Its decoder and flow count, too.

    Returns
    -------
    bytes
        32 of them.
    """
    digest = hashlib.sha256()
    for name, value in sorted(codec.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.double().cpu().numpy().tobytes())
    return digest.digest()
