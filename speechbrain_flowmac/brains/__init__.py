"""Brains that train the codec and the vocoders."""

from speechbrain_flowmac.brains.codec import FlowMACBrain
from speechbrain_flowmac.brains.vocoder import VocoderBrain

__all__ = ["FlowMACBrain", "VocoderBrain"]
