"""What docs/dynamic.md shows runs as it stands there."""

import re
from pathlib import Path

import torch
from corpus import speech_like
from hyperpyyaml import load_hyperpyyaml
from soundfile import write
from tiny_model import make_tiny_model

from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.lobes.semantic_features import EncoderFeatures

PAGE = Path(__file__).resolve().parents[2] / "docs" / "dynamic.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_python_runs(tmp_path, monkeypatch):
    make_tiny_model(tmp_path / "my_dynamic_model", dynamic=True)
    write(tmp_path / "in.wav", speech_like(1.0, 5), 24000)
    monkeypatch.chdir(tmp_path)
    values = {
        "wavs": torch.from_numpy(speech_like(2.0, 1)).repeat(2, 1),
        "lengths": torch.tensor([48000, 30000]),
        "CODES": 512,
    }
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        # the semantic codebook of the small model has other entries
        exec(block.replace("8192", "CODES"), values)
    tokens, durations = values["tokens"], values["durations"]
    assert values["x"].shape == (*durations.shape, 64)
    assert values["frames"].tolist() == durations.sum(1).tolist() == [47, 30]
    assert tokens.shape == (*durations.shape, 4)
    assert values["sound"].shape == (2, 47 * 1024)


def test_the_teacher_of_the_page_teaches(tmp_path):
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    folder = make_tiny_model(tmp_path / "model", dynamic=True)
    codec = FlowMACCodec.from_hparams(folder).codec
    yaml = Path(folder, "hyperparams.yaml").read_text(encoding="utf-8")
    settings = yaml[: yaml.index("codec:")]
    hparams = load_hyperpyyaml(settings + block)
    teacher = hparams["semantic"]
    assert isinstance(teacher, EncoderFeatures)
    codec.semantic = teacher
    wavs = torch.from_numpy(speech_like(2.0, 1))[None]
    features, lengths = codec.semantic_features(wavs)
    assert features.shape == (1, 47, teacher.dim) and lengths.tolist() == [47]
