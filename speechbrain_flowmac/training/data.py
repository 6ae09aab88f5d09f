"""Training data: manifests to batches.

Every random choice is a function of the seed, the epoch and the utterance, so
that a run that was killed goes on exactly as if it had not been.
"""

import json
import logging
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
import soxr
import speechbrain as sb
import torch
from tqdm import tqdm

from speechbrain_flowmac.lobes.features import RunningStatistics, num_frames

logger = logging.getLogger(__name__)

F0_RATE = 16000  # of the pitch detector, in Hz
# Below SwiftF0's own 0.5: calling breath voiced costs a vocoder less, which
# can still turn the harmonics down, than calling a weak voice breath
VOICED_CONFIDENCE = 0.35


def read_crop(path, num_samples, sample_rate, position=None):
    """Reads a stretch of a file, mixed down and resampled.

    Arguments
    ---------
    path : str
        Audio file.
    num_samples : int or None
        Length of the stretch at `sample_rate`; None for the whole file.
    sample_rate : int
        Wanted, in Hz.
    position : float or None
        Where in the room that the file leaves the stretch starts, 0..1.

    Returns
    -------
    torch.Tensor
        Shape [T], T at most `num_samples`.
    """
    with soundfile.SoundFile(str(path)) as file:
        wanted = -1
        if num_samples is not None:
            wanted = -(-num_samples * file.samplerate // sample_rate)
            room = max(file.frames - wanted, 0)
            file.seek(int((position or 0.0) * room))
        data = file.read(wanted, dtype="float32", always_2d=True)
        rate = file.samplerate
    mono = data.mean(1)
    if rate != sample_rate:
        mono = soxr.resample(mono, rate, sample_rate)
    return torch.from_numpy(mono[:num_samples])


@cache
def _pitch_detector():
    try:
        from swift_f0 import SwiftF0
    except ImportError as error:
        raise ImportError(
            "F0 labels need swift-f0: pip install 'speechbrain-flowmac[train]'"
        ) from error
    return SwiftF0(threads=1, spin=False)


def label_f0(signal, sample_rate, hop_length, num_frames, f_min, f_max):
    """F0 labels by SwiftF0 (2508.18440), at the middle of hops.

    It runs at some 60 times real time on one core, and unlike trackers
    without learning it is not led astray by rumble and mains hum.

    Arguments
    ---------
    signal : torch.Tensor
        Shape [T].
    sample_rate : int
        In Hz.
    hop_length : int
        Samples per label.
    num_frames : int
        How many labels are wanted.
    f_min : float
        Lowest F0 in Hz.
    f_max : float
        Highest F0 in Hz.

    Returns
    -------
    torch.Tensor
        In Hz, 0 where unvoiced, float32 [num_frames].
    """
    samples = np.zeros(num_frames * hop_length, dtype=np.float32)
    samples[: len(signal)] = signal.numpy()[: len(samples)]
    if sample_rate != F0_RATE:
        samples = soxr.resample(samples, sample_rate, F0_RATE)
    found = _pitch_detector().detect(samples, F0_RATE, fmin=f_min, fmax=f_max)
    times = (np.arange(num_frames) + 0.5) * hop_length / sample_rate
    octaves = np.interp(times, found.timestamps, np.log2(found.pitch_hz))
    confidence = np.interp(times, found.timestamps, found.confidence)
    f0 = np.where(confidence >= VOICED_CONFIDENCE, 2.0**octaves, 0.0)
    return torch.from_numpy(f0).float()


class Cropper:
    """Reads training crops: a random stretch, at a random gain.

    Arguments
    ---------
    sample_rate : int
        In Hz.
    num_samples : int
        Length of a crop.
    seed : int
        Of the choices.
    epoch_counter : speechbrain.utils.epoch_loop.EpochCounter
        Tells the epoch, so that each has other crops.
    gain_db : tuple of float
        Range of the random gain in dB; what would clip is scaled to peak 1.
    mixer : SoundMixer or None
        Gives some of the crops noise or tones, before the gain.
    """

    def __init__(
        self,
        sample_rate,
        num_samples,
        seed,
        epoch_counter,
        gain_db=(-12, 6),
        mixer=None,
    ):
        self.sample_rate = sample_rate
        self.num_samples = num_samples
        self.seed = seed
        self.epoch_counter = epoch_counter
        self.gain_db = gain_db
        self.mixer = mixer

    def __call__(self, utterance, path):
        """Returns the crop, zero-padded to its length, and its true length."""
        chance = np.random.default_rng(
            [self.seed, self.epoch_counter.current, crc32(utterance)]
        )
        signal = read_crop(
            path, self.num_samples, self.sample_rate, chance.random()
        )
        if self.mixer is not None:
            signal = self.mixer(signal, self.sample_rate, chance)
        gain = 10 ** (chance.uniform(*self.gain_db) / 20)
        peak = signal.abs().max().item() if len(signal) else 0.0
        signal = signal * min(gain, 1 / max(peak, 1e-5))
        missing = self.num_samples - len(signal)
        return torch.nn.functional.pad(signal, (0, missing)), len(signal)


def crc32(text):
    """A number from a name, the same in every process."""
    return zlib.crc32(text.encode())


def make_dataset(
    manifest, data_folder, sample_rate, cropper=None, f0_labels=None
):
    """A SpeechBrain dataset of waveforms.

    Arguments
    ---------
    manifest : str
        JSON file, as `libritts_prepare` writes.
    data_folder : str
        Stands for {data_root} in the manifest.
    sample_rate : int
        In Hz.
    cropper : Cropper or None
        None for whole utterances.
    f0_labels : dict or None
        `upsample` (labels per frame of `frame_length` samples), `f_min` and
        `f_max` in Hz; None for no labels.

    Returns
    -------
    speechbrain.dataio.dataset.DynamicItemDataset
        With id, sig [T], num_samples and, where asked, f0 [F].
    """
    dataset = sb.dataio.dataset.DynamicItemDataset.from_json(
        manifest, replacements={"data_root": str(data_folder)}
    )

    @sb.utils.data_pipeline.takes("id", "wav")
    @sb.utils.data_pipeline.provides("sig", "num_samples")
    def read(utterance, path):
        if cropper is None:
            signal = read_crop(path, None, sample_rate)
            yield signal
            yield len(signal)
        else:
            yield from cropper(utterance, path)

    dataset.add_dynamic_item(read)
    keys = ["id", "sig", "num_samples"]
    if f0_labels is not None:
        upsample, frame = f0_labels["upsample"], f0_labels["frame_length"]

        @sb.utils.data_pipeline.takes("sig")
        @sb.utils.data_pipeline.provides("f0")
        def label(signal):
            return label_f0(
                signal,
                sample_rate,
                frame // upsample,
                upsample * num_frames(len(signal), frame),
                f0_labels["f_min"],
                f0_labels["f_max"],
            )

        dataset.add_dynamic_item(label)
        keys.append("f0")
    dataset.set_output_keys(keys)
    return dataset


def mel_statistics(dataset, features, max_utterances=1000, seed=0):
    """Global mean and standard deviation of a dataset's log-mels.

    Arguments
    ---------
    dataset : DynamicItemDataset
        From `make_dataset`, whole utterances.
    features : LogMel
        Front end.
    max_utterances : int
        A random choice of so many is enough for two numbers.
    seed : int
        Of the choice.

    Returns
    -------
    dict
        mean, std, frames and utterances.
    """
    chosen = np.random.default_rng(seed).permutation(len(dataset))
    chosen = chosen[:max_utterances]
    statistics = RunningStatistics()
    for index in tqdm(chosen, desc="mel statistics", dynamic_ncols=True):
        signal = dataset[int(index)]["sig"]
        with torch.no_grad():
            statistics.update(features(signal.unsqueeze(0)))
    return {
        "mean": statistics.mean,
        "std": statistics.std,
        "frames": statistics.count // features.settings.n_mels,
        "utterances": len(chosen),
    }


def load_or_compute_statistics(path, dataset, features, **options):
    """`mel_statistics`, kept in a JSON file.

    Arguments
    ---------
    path : str
        Read if it exists, else written.
    dataset : DynamicItemDataset
        From `make_dataset`, whole utterances.
    features : LogMel
        Front end.
    **options
        For `mel_statistics`.

    Returns
    -------
    dict
    """
    path = Path(path)
    if path.exists():
        return json.loads(path.read_text())
    statistics = mel_statistics(dataset, features, **options)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(statistics, indent=2) + "\n")
    temporary.replace(path)
    logger.info("mel statistics %s", statistics)
    return statistics
