"""FlowMAC, a neural audio codec, as a SpeechBrain plugin.

>>> from speechbrain_flowmac import FlowMACCodec
>>> codec = FlowMACCodec.from_hparams(source="flowmac-24khz-3kbps")
"""

__all__ = ["FlowMACCodec"]
__version__ = "0.1.0"


def __getattr__(name):
    # imported when it is first asked for: what reads headers needs no torch
    if name == "FlowMACCodec":
        from speechbrain_flowmac.inference import FlowMACCodec

        return FlowMACCodec
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
