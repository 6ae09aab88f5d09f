"""Brains that train the codec and the vocoders."""

from speechbrain_flowmac.training.brains.codec import FlowMACBrain
from speechbrain_flowmac.training.brains.vocoder import VocoderBrain

__all__ = ["FlowMACBrain", "VocoderBrain"]
