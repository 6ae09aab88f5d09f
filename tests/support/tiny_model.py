"""A model folder with tiny random weights, for tests that need any model."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml
from safetensors.torch import save_file

_SETTINGS = """
mel_settings: !new:speechbrain_flowmac.lobes.features.MelSettings
    sample_rate: 24000
    n_fft: 2048
    hop_length: 512
    win_length: 2048
    n_mels: 128
"""

_FRONT_END = """
    features: !new:speechbrain_flowmac.lobes.features.LogMel
        settings: !ref <mel_settings>
    normalizer: !new:speechbrain_flowmac.lobes.features.MelNormalizer
"""

_FIXED = f"""
codec: !new:speechbrain_flowmac.codec.FlowMAC
{_FRONT_END.strip(chr(10))}
    encoder: !new:speechbrain_flowmac.lobes.encoder.MelEncoder
        n_mels: 128
        latent_dim: 8
        trunk: !new:speechbrain_flowmac.lobes.convnext.ConvNeXt
            dim: 16
            num_layers: 1
    quantizer: !new:speechbrain_flowmac.lobes.quantizer.ResidualQuantizer
        dim: 8
        num_codebooks: 8
        codebook_size: 256
        codebook_dim: 4
        kmeans_iterations: 0
        dropout: True
    decoder: !new:speechbrain_flowmac.lobes.encoder.MelDecoder
        latent_dim: 8
        n_mels: 128
        trunk: !new:speechbrain_flowmac.lobes.convnext.ConvNeXt
            dim: 16
            num_layers: 1
"""

_DYNAMIC = f"""
codec: !new:speechbrain_flowmac.dynamic_codec.DynamicFlowMAC
{_FRONT_END.strip(chr(10))}
    semantic: !new:speechbrain_flowmac.lobes.semantic_features.RecogniserFeatures
        dim: 8
        recogniser: !new:speechbrain_flowmac.lobes.ctc_recogniser.CTCRecogniser
            front_end: !new:speechbrain_flowmac.lobes.ctc_recogniser.MelFrontEnd
                n_mels: 128
                dim: 8
            encoder: !new:speechbrain_flowmac.lobes.ctc_recogniser.LSTMEncoder
                dim: 8
                num_layers: 1
            dim: 8
            num_symbols: 29
    merging: !new:speechbrain_flowmac.lobes.merging.Merging
        merging_threshold: 0.99
    encoder: !new:speechbrain_flowmac.lobes.strided.JoinedEncoder
        latent_dim: 8
        width: 4
        join: 2
        encoder: !new:speechbrain_flowmac.lobes.encoder.MelEncoder
            n_mels: 128
            latent_dim: 8
            trunk: !new:speechbrain_flowmac.lobes.convnext.ConvNeXt
                dim: 16
                num_layers: 1
    aggregator: !new:speechbrain_flowmac.lobes.aggregator.QueryAggregator
        trunk: !new:speechbrain_flowmac.lobes.transformer.Transformer
            dim: 8
            num_layers: 1
            num_heads: 2
            window: 4
    quantizer: !new:speechbrain_flowmac.lobes.two_stream_quantizer.TwoStreamQuantizer
        semantic_dim: 8
        dim: 8
        semantic: !new:speechbrain_flowmac.lobes.fsq.FiniteScalarQuantizer
            dim: 8
            levels: [8, 8, 8]
        acoustic: !new:speechbrain_flowmac.lobes.quantizer.ResidualQuantizer
            dim: 8
            num_codebooks: 3
            codebook_size: 16
            kmeans_iterations: 0
    expander: !new:speechbrain_flowmac.lobes.run_positions.RunPositions
        dim: 8
    decoder: !new:speechbrain_flowmac.lobes.strided.BottleneckDecoder
        latent_dim: 8
        width: 4
        join: 2
        bottleneck: !new:speechbrain_flowmac.lobes.transformer.Transformer
            dim: 8
            num_layers: 1
            num_heads: 2
            window: 4
        decoder: !new:speechbrain_flowmac.lobes.encoder.MelDecoder
            latent_dim: 8
            n_mels: 128
            trunk: !new:speechbrain_flowmac.lobes.convnext.ConvNeXt
                dim: 16
                num_layers: 1
"""

_FLOW = """
    flow: !new:speechbrain_flowmac.lobes.flow_matching.FlowMatching
        sigma_min: 0.0001
        time: !new:speechbrain_flowmac.lobes.flow_matching.UniformTime
        field: !new:speechbrain_flowmac.lobes.vector_field.ResidualField
            tau: 0.2
            sigma_min: 0.0001
            field: !new:speechbrain_flowmac.lobes.vector_field.ConvNeXtField
                n_mels: 128
                trunk: !new:speechbrain_flowmac.lobes.convnext.ConvNeXt
                    dim: 16
                    num_layers: 1
                    condition_dim: 16
    sampling: !new:speechbrain_flowmac.codec.Sampling
        n_steps: 1
        solver: !new:speechbrain_flowmac.lobes.solvers.Euler
        schedule: !new:speechbrain_flowmac.lobes.solvers.Uniform
"""

_VOCODER = """
vocoder: !new:speechbrain_flowmac.lobes.istft_vocoder.ISTFTVocoder
    mel_settings: !ref <mel_settings>
    trunk: !new:speechbrain_flowmac.lobes.convnext.ConvNeXt
        dim: 16
        num_layers: 1
"""

_HEADS = {
    "harmonic": """
    head: !new:speechbrain_flowmac.lobes.istft_vocoder.HarmonicNoiseHead
        dim: 16
        sample_rate: 24000
        stft: !new:speechbrain_flowmac.lobes.spectral.FramedSTFT
            n_fft: 1024
            hop_length: 256
        pitch: !new:speechbrain_flowmac.lobes.pitch.PitchPredictor
            n_mels: 128
            upsample: 2
            f_min: 50.0
            f_max: 600.0
            trunk: !new:speechbrain_flowmac.lobes.convnext.ConvNeXt
                dim: 16
                num_layers: 1
""",
    "free": """
    head: !new:speechbrain_flowmac.lobes.istft_vocoder.FreePhaseHead
        dim: 16
        stft: !new:speechbrain_flowmac.lobes.spectral.FramedSTFT
            n_fft: 1024
            hop_length: 256
""",
}


def make_tiny_model(folder, head="harmonic", seed=0, dynamic=False):
    """Writes a model folder whose weights are random.

    Arguments
    ---------
    folder : str or Path
        Folder to write into; made if it is missing.
    head : str
        Of the vocoder: "harmonic" or "free".
    seed : int
        Of the weights; another seed makes another model.
    dynamic : bool
        With a dynamic frame rate and two streams: 4 codebooks.

    Returns
    -------
    pathlib.Path
        The folder, which `FlowMACCodec.from_hparams` loads.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    codec = (_DYNAMIC if dynamic else _FIXED).rstrip("\n") + _FLOW
    text = _SETTINGS.strip() + "\n" + codec + _VOCODER.rstrip() + _HEADS[head]
    (folder / "hyperparams.yaml").write_text(text, encoding="utf-8")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        modules = load_hyperpyyaml(text)
        _wake(modules["codec"])
    # level and spread of speech, so that encoder and codebooks match
    modules["codec"].normalizer.set_statistics(-6.0, 2.0)
    settings = json.dumps(asdict(modules["codec"].mel_settings))
    for name in ("codec", "vocoder"):
        state = {
            key: value.clone().contiguous()
            for key, value in modules[name].state_dict().items()
        }
        save_file(
            state,
            str(folder / f"{name}.safetensors"),
            metadata={"format": "pt", "mel_settings": settings},
        )
    return folder


def _wake(module):
    """Makes layers that start at zero do something, so that noise counts."""
    for parameter in module.parameters():
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
