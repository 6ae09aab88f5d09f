"""Networks of the codec and the maths of them: tensors in, tensors out.

Imported as ``speechbrain_flowmac.lobes``. A lobe knows nothing of files,
paths, configurations or training loops; it depends on torch alone, on
SpeechBrain's layers and on vector-quantize-pytorch.
"""
