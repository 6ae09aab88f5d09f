"""A vector field that treats all frequencies alike, for MDCT shapes.

Near a partial, the signs of neighbouring coefficients and of successive frames
go together, in the same way at every frequency: a tone between bins turns by
-pi / 2 from bin to bin and by pi (k + 1/2) from frame to frame. The pattern
has a period of four bins, so bins in groups of four, as the channels of a
grid of frames and groups, are what convolutions can share weights over.
"""

import torch
from torch import nn
from torch.nn import functional as F

from speechbrain_flowmac.lobes.flow import Flow
from speechbrain_flowmac.lobes.gain_shape import band_weights
from speechbrain_flowmac.lobes.vector_field import TimeEmbedding, zero_init

GROUP = 4


class GridBlock(nn.Module):
    """A ConvNeXt block of two dimensions, with a gated linear unit.

    Where gains say what frequency a partial has, the best estimate of its
    coefficients is linear in the noisy ones, by a filter that turns with that
    frequency. A product of two features is such a filter (SwiGLU, Shazeer,
    2002.05202); a unit that bends one feature must make it of many.

    Arguments
    ---------
    dim : int
        Channels C.
    kernel : tuple of int
        Odd numbers of frames and of groups.
    condition_dim : int
        Width of what shifts and scales the normalised features.
    layer_scale : float
        Start value of the scale of the residual branch.

    Example
    -------
    >>> block = GridBlock(8, (3, 5), 6, 0.1)
    >>> block(torch.randn(2, 8, 5, 7), None, torch.randn(2, 6)).shape
    torch.Size([2, 8, 5, 7])
    """

    def __init__(self, dim, kernel, condition_dim, layer_scale):
        super().__init__()
        padding = tuple(size // 2 for size in kernel)
        self.conv = nn.Conv2d(dim, dim, kernel, padding=padding, groups=dim)
        self.norm = nn.LayerNorm(dim)
        hidden = 4 * dim // 3  # as many weights as 2 * dim without a gate
        self.expand = nn.Linear(dim, 2 * hidden)
        self.reduce = nn.Linear(hidden, dim)
        self.scale = nn.Parameter(torch.full((dim,), layer_scale))
        self.condition = zero_init(nn.Linear(condition_dim, 2 * dim))

    def forward(self, x, mask, condition):
        """x [B, C, N, G], mask [B, 1, N, 1] or None, condition [B, D]."""
        h = self.conv(x if mask is None else x * mask)
        h = self.norm(h.permute(0, 2, 3, 1))
        shift, gain = self.condition(condition)[:, None, None].chunk(2, -1)
        h, gate = self.expand(h * (1 + gain) + shift).chunk(2, -1)
        h = self.reduce(h * F.silu(gate))
        return x + (self.scale * h).permute(0, 3, 1, 2)


class GridField(nn.Module):
    """A field of the shapes of the lowest bins.

    `lobes.vector_field` says what fields take and give. This one gives 0 for
    gains and for the other bins: in a residual field, those are then Gaussian,
    as noise is.

    Arguments
    ---------
    settings : MDCTSettings
        Front end.
    dim : int
        Channels.
    num_layers : int
        Blocks.
    n_bins : int
        Coefficients, a multiple of 4.
    kernel : list of int
        Frames and groups that a block sees, odd.
    num_times, time_scale
        See `lobes.vector_field.TimeEmbedding`.

    Example
    -------
    >>> from speechbrain_flowmac.lobes.gain_shape import MDCTSettings
    >>> field = GridField(MDCTSettings(), dim=8, num_layers=1)
    >>> x = torch.randn(2, 5, 640)
    >>> field(x, torch.rand(2), x).shape
    torch.Size([2, 5, 640])
    """

    alignment = 1

    def __init__(
        self,
        settings,
        dim=64,
        num_layers=6,
        n_bins=128,
        kernel=(3, 5),
        num_times=1,
        time_scale=1000.0,
    ):
        super().__init__()
        if n_bins % GROUP or not 0 < n_bins <= settings.hop_length:
            raise ValueError(
                f"n_bins must be a multiple of {GROUP} up to "
                f"{settings.hop_length}, found {n_bins}"
            )
        self.n_bands, self.n_bins = settings.n_bands, n_bins
        self.receptive_field = num_layers * (kernel[0] // 2)
        weights = band_weights(settings)[:n_bins]
        self.register_buffer("weights", weights, persistent=False)
        self.time = TimeEmbedding(dim, num_times, time_scale)
        # x, mu and the gain that mu has there
        self.project_in = nn.Linear(3 * GROUP, dim)
        self.position = nn.Parameter(0.02 * torch.randn(n_bins // GROUP, dim))
        self.blocks = nn.ModuleList(
            GridBlock(dim, kernel, dim, 1 / num_layers)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.project_out = zero_init(nn.Linear(dim, GROUP))

    def forward(self, x, t, mu, mask=None):
        """The field at (x, t), given mu."""
        dtype = self.project_in.weight.dtype
        bins = slice(self.n_bands, self.n_bands + self.n_bins)
        gains = mu[..., : self.n_bands].to(dtype) @ self.weights.to(dtype).T
        parts = [x[..., bins].to(dtype), mu[..., bins].to(dtype), gains]
        parts = [part.unflatten(-1, (-1, GROUP)) for part in parts]
        h = self.project_in(torch.cat(parts, dim=-1)) + self.position
        h = h.permute(0, 3, 1, 2)
        if mask is not None:
            mask = mask[:, None, :, None].to(h.dtype)
        condition = F.silu(self.time(t))
        for block in self.blocks:
            h = block(h, mask, condition)
        h = self.project_out(self.norm(h.permute(0, 2, 3, 1))).flatten(2)
        rest = x.shape[-1] - self.n_bands - self.n_bins
        return F.pad(h, (self.n_bands, rest))


class ShapeFlow(Flow):
    """A flow that samples shapes alone; gains stay those of mu.

    Gains start at 0 instead of noise, and where the field adds nothing, a
    residual field carries that to mu.

    Arguments
    ---------
    flow : Flow
        Of gains and shapes, with the field of `GridField` in a residual field.
    n_bands : int
        Gains of a frame.

    Example
    -------
    >>> from speechbrain_flowmac.lobes.autoencoder import Autoencoder
    >>> ShapeFlow(Autoencoder(), 128).evaluations(None)
    0
    """

    def __init__(self, flow, n_bands):
        super().__init__()
        self.flow = flow
        self.n_bands = n_bands

    @property
    def alignment(self):
        """That of the flow."""
        return self.flow.alignment

    def loss(self, mel, mu, mask, generator):
        """The flow's own objective."""
        return self.flow.loss(mel, mu, mask, generator)

    def sample(self, noise, mu, mask, sampling):
        """The flow's own sampling, of shapes; see `Flow.sample`."""
        noise = noise.clone()
        noise[..., : self.n_bands] = 0.0
        return self.flow.sample(noise, mu, mask, sampling)

    def evaluations(self, sampling):
        """Those of the flow."""
        return self.flow.evaluations(sampling)

    def receptive_field(self, sampling):
        """That of the flow."""
        return self.flow.receptive_field(sampling)

    def adopt(self, state):
        """As the flow adopts its part; see `Flow.adopt`."""
        prefix = "flow."
        inner = {k.removeprefix(prefix): v for k, v in state.items()}
        return {prefix + k: v for k, v in self.flow.adopt(inner).items()}
