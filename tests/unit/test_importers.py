"""Where the parts of a model may come from, and how they are joined."""

import re
import shutil
from pathlib import Path

import pytest
import soundfile
import torch
from corpus import speech_like
from ruamel.yaml import YAML
from safetensors.torch import load_file
from tiny_model import make_tiny_model

import speechbrain_flowmac
from speechbrain_flowmac import FlowMACCodec
from speechbrain_flowmac.cli import main
from speechbrain_flowmac.models.description import ModelDescription
from speechbrain_flowmac.models.export import ExportError, export, plain_card
from speechbrain_flowmac.models.importers import IMPORTERS, find_importer
from speechbrain_flowmac.models.importers.bigvgan import BigVGANCheckpoint
from speechbrain_flowmac.models.importers.model_folder import ModelFolder
from speechbrain_flowmac.models.importers.training_folder import TrainingFolder
from speechbrain_flowmac.models.loading import MODELS_FOLDER

SHIPPED = "flowmac-24khz-3kbps"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models of other weights and vocoders."""
    folder = tmp_path_factory.mktemp("models")
    return [
        make_tiny_model(folder / head, head=head, seed=seed)
        for seed, head in enumerate(("harmonic", "free"))
    ]


@pytest.fixture(scope="module")
def joined(models, tmp_path_factory):
    """The codec of the first with the vocoder of the second."""
    target = tmp_path_factory.mktemp("joined") / "my model"
    export(*models, target)
    return target


def load(source):
    return FlowMACCodec.from_hparams(source, run_opts={"device": "cpu"})


def test_models_are_joined(models, joined):
    codec, vocoder, found = (load(source) for source in (*models, joined))
    assert found.fingerprint == codec.fingerprint != vocoder.fingerprint
    for part, source in (("codec", models[0]), ("vocoder", models[1])):
        assert_same_weights(joined, source, part)


def assert_same_weights(first, second, part):
    states = [load_file(f / f"{part}.safetensors") for f in (first, second)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert value.dtype == states[1][name].dtype
        assert torch.equal(value, states[1][name]), name


def test_joined_models_are_sources_again(joined, models, tmp_path):
    again = tmp_path / "again"
    export(joined, models[0], again)
    assert_same_weights(joined, again, "codec")
    assert_same_weights(models[0], again, "vocoder")
    assert load(again).fingerprint == load(joined).fingerprint


def test_a_model_replaces_itself(joined, models, tmp_path):
    model = shutil.copytree(joined, tmp_path / "model")
    before = load(model).fingerprint
    export(model, models[0], model)
    assert load(model).fingerprint == before
    assert list(tmp_path.iterdir()) == [model]


def test_the_command_joins_a_built_in_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(MODELS_FOLDER / SHIPPED, "copied")
    assert main(["export", SHIPPED, "copied", "mine"]) == 0
    assert "3.000 kbps" in capsys.readouterr().out
    assert load("mine").fingerprint == load(SHIPPED).fingerprint
    card = Path("mine/README.md").read_text()
    assert f"The codec is that of `{SHIPPED}`" in card
    assert "The vocoder is that of `copied`" in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize("name", ["no-such-model", "/no/such/folder"])
@pytest.mark.parametrize("part", ["codec", "vocoder"])
def test_mistyped_sources_are_said_so(models, tmp_path, name, part, capsys):
    sources = {"codec": str(models[0]), "vocoder": str(models[1]), part: name}
    arguments = ["export", *sources.values(), str(tmp_path / "out")]
    assert main(arguments) == 2
    assert f"no such folder: {name}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_folders_of_other_things_are_said_so(models, tmp_path):
    with pytest.raises(ExportError, match="neither a training folder nor a"):
        export(models[0], tmp_path, tmp_path / "out")


def test_a_vocoder_is_no_codec(models):
    hub_id = "nvidia/bigvgan_v2_24khz_100band_256x"
    assert isinstance(find_importer(hub_id, "vocoder"), BigVGANCheckpoint)
    with pytest.raises(ExportError, match="no such folder"):
        find_importer(hub_id, "codec")


def test_sources_have_one_importer_each(models, tmp_path):
    training = tmp_path / "training"
    training.mkdir()
    shutil.copy(models[0] / "hyperparams.yaml", training)
    bigvgan = tmp_path / "bigvgan"
    bigvgan.mkdir()
    (bigvgan / "config.json").write_text("{}")
    expected = {
        SHIPPED: ModelFolder,
        models[0]: ModelFolder,
        training: TrainingFolder,
        bigvgan: BigVGANCheckpoint,
        "owner/model": BigVGANCheckpoint,
    }
    for source, kind in expected.items():
        assert isinstance(find_importer(source, "vocoder"), kind), source
    kinds = {type(importer) for importer in IMPORTERS}
    assert kinds == set(expected.values())


def test_no_caller_asks_which_kind_a_source_is():
    package = Path(speechbrain_flowmac.__file__).parent
    for path in package.rglob("*.py"):
        if "importers" not in path.parts:
            assert "is_bigvgan" not in path.read_text(), path


# what a model's YAML is, alone


SHARED = """
settings: !new:speechbrain_flowmac.lobes.features.MelSettings {f_max: 1e4}
size: 7
note: 'no'
codec:
    a: !new:speechbrain_flowmac.lobes.features.LogMel [!ref <settings>]
    b: !ref <codec[a]>
    c: !copy <codec[a]>
    d: {e: [!ref <size>, !ref <size>, 1e-4, ~, '1', !ref <note>]}
    f: !new:speechbrain_flowmac.lobes.solvers.Euler
vocoder: null
"""


def test_a_part_is_written_with_what_it_refers_to():
    text = ModelDescription(SHARED).to_yaml("codec")
    assert "ref" not in text and "vocoder" not in text
    # as a vocoder's folder is joined: through ruamel, too
    assert YAML(typ="rt").load(text).keys() == {"codec"}
    part = ModelDescription(text).build()["codec"]
    whole = ModelDescription(SHARED).build()["codec"]
    for found in (part, whole):
        assert found["a"] is found["b"] is not found["c"]
        assert found["a"].settings.f_max == 1e4
        assert found["d"] == {"e": [7, 7, 1e-4, None, "1", "no"]}
        assert type(found["f"]).__name__ == "Euler"


# its card


def test_cards_have_the_header_of_the_hub(joined):
    card = (joined / "README.md").read_text()
    header = re.match(r"---\n(.*?)---\n", card, re.DOTALL)[1]
    found = YAML(typ="safe").load(header)
    assert found["license"] and found["library_name"] == "speechbrain"
    assert {"audio-codec", "flow-matching"} <= set(found["tags"])


def test_python_of_cards_runs(joined, monkeypatch, tmp_path):
    shutil.copytree(joined, tmp_path / joined.name)
    monkeypatch.chdir(tmp_path)
    soundfile.write("speech.wav", speech_like(0.5, 0), 24000)
    card = (joined / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    exec(code, {})
    assert soundfile.info("decoded.wav").frames == 12000


def test_names_with_quotes_do_not_break_the_card():
    code = plain_card('my "best"', [[]]).split("```python")[1].split("```")[0]
    compile(code, "card", "exec")
