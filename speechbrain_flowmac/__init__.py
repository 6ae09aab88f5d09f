"""FlowMAC, a neural audio codec built on conditional flow matching.

A plugin of SpeechBrain: lobes, Brains, recipes, a pretrained interface and
discrete tokens.
"""

__version__ = "0.1.0"
