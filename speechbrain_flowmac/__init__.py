"""FlowMAC, a neural audio codec, as a SpeechBrain plugin.

>>> from speechbrain_flowmac import FlowMACCodec
>>> codec = FlowMACCodec.from_hparams(source="flowmac-24khz-3kbps")
"""

from speechbrain_flowmac.inference import FlowMACCodec

__all__ = ["FlowMACCodec"]
__version__ = "0.1.0"
