"""Trainings that several files of tests look at."""

import pytest
from training_runs import HPARAMS, Training, model_name


@pytest.fixture(scope="session")
def light():
    """The quickest YAML of each kind of model, by the kind."""
    yamls = {yaml.stem: yaml for yaml in HPARAMS}
    return {"codec": yamls["flowmac_lc"], "vocoder": yamls["istft_vocoder"]}


@pytest.fixture(scope="session")
def debug_training(corpus, tmp_path_factory):
    """Function from a YAML to its finished training with --debug."""
    folder, done = tmp_path_factory.mktemp("debug"), {}

    def train(yaml):
        if yaml not in done:
            options = {}
            if model_name(yaml) == "vocoder":
                options["adversarial_start"] = 1
            done[yaml] = Training(
                yaml,
                corpus,
                folder / yaml.stem,
                debug=True,
                debug_persistently=True,
                tensorboard_folder=folder / "board" / yaml.stem,
                **options,
            )
            done[yaml].wait()
        return done[yaml].check()

    return train
