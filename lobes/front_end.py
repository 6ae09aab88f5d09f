"""What every front end keeps to: its settings travel with the weights.

A front end turns a signal into one frame of features for each hop,
N = ceil(T / hop). Codec and vocoder of a model must have the same.
"""

from dataclasses import asdict, fields

import torch
from torch import nn


class FrontEndMismatchError(ValueError):
    """Two parts that must share one front end have different ones."""


class FrontEndSettings:
    """Base of the frozen dataclasses that define front ends, by numbers alone.

    A subclass has `sample_rate` in Hz, `hop_length`, `frame_length` (samples
    that a frame depends on) and `width` (features M of a frame).
    """

    kind = "front-end"
    """What messages call the settings."""

    @property
    def frame_rate(self):
        """Frames per second."""
        return self.sample_rate / self.hop_length

    def check_same(self, other, names=("expected", "found")):
        """Raises `FrontEndMismatchError`, printing both by `names`, if they
        differ."""
        if self == other:
            return
        different = "kind"
        if type(self) is type(other):
            different = ", ".join(
                field.name
                for field in fields(self)
                if getattr(self, field.name) != getattr(other, field.name)
            )
        raise FrontEndMismatchError(
            f"{self.kind} settings differ in {different}:\n"
            f"  {names[0]}: {asdict(self)}\n  {names[1]}: {asdict(other)}"
        )


class FrontEnd(nn.Module):
    """Base of front ends: `forward(wav [B, T], num_samples [B]) -> [B, N, M]`.

    The settings are part of the state dict: loading weights that were made
    with other settings raises `FrontEndMismatchError`.

    Arguments
    ---------
    settings : FrontEndSettings
        What defines it.
    """

    def __init__(self, settings):
        super().__init__()
        self.settings = settings
        self.register_buffer(
            "settings_record",
            torch.tensor(
                [float(v) for v in asdict(settings).values()],
                dtype=torch.float64,
            ),
        )

    def _load_from_state_dict(self, state_dict, prefix, *args):
        record = state_dict.get(prefix + "settings_record")
        if record is not None:
            kinds = asdict(self.settings)
            if len(record) != len(kinds):
                raise FrontEndMismatchError(
                    f"weights of another kind of front end: expected "
                    f"{len(kinds)} {self.settings.kind} settings, found "
                    f"{len(record)}"
                )
            values = zip(kinds, record.tolist(), strict=True)
            stored = type(self.settings)(
                **{k: type(kinds[k])(value) for k, value in values}
            )
            self.settings.check_same(stored, names=("model", "weights"))
        super()._load_from_state_dict(state_dict, prefix, *args)
