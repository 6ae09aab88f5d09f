"""Training data: manifests to batches, item by item.

A task lists the dynamic items that it wants of an utterance: a crop or the
whole of its sound, F0 labels, text, tokens. A new one is a class with `takes`
and `provides`, or a function that SpeechBrain's decorators say them of.

Every random choice is a function of the seed, the epoch and the utterance, so
that a run that was killed goes on exactly as if it had not been.
"""

import math
import zlib
from functools import cache

import numpy as np
import soundfile
import soxr
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import DynamicItem

from speechbrain_flowmac.lobes.features import num_frames

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


class Audio(DynamicItem):
    """The whole sound of an utterance.

    Arguments
    ---------
    sample_rate : int
        Wanted, in Hz.
    """

    takes = ("wav",)
    provides = ("sig", "num_samples")

    def __init__(self, sample_rate):
        self.sample_rate = sample_rate

    def __call__(self, path):
        """Returns float32 [T] and T."""
        signal = read_crop(path, None, self.sample_rate)
        return signal, len(signal)


class Cropper(DynamicItem):
    """A random stretch of an utterance.

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
    augment : Augment or None
        Changes the crop; what would clip then is scaled to peak 1.
    """

    takes = ("id", "wav")
    provides = ("sig", "num_samples")

    def __init__(
        self, sample_rate, num_samples, seed, epoch_counter, augment=None
    ):
        self.sample_rate = sample_rate
        self.num_samples = num_samples
        self.seed = seed
        self.epoch_counter = epoch_counter
        self.augment = augment

    def __call__(self, utterance, path):
        """Returns the crop, zero-padded to its length, and its true length."""
        rng = np.random.default_rng(
            [self.seed, self.epoch_counter.current, crc32(utterance)]
        )
        signal = self.read(path, rng)
        peak = signal.abs().max().item() if len(signal) else 0.0
        signal = signal / max(peak, 1.0)
        missing = self.num_samples - len(signal)
        return torch.nn.functional.pad(signal, (0, missing)), len(signal)

    def read(self, path, rng):
        """Returns a stretch of a file, changed, at most `num_samples` long."""
        reach = 1.0 if self.augment is None else self.augment.reach
        count = math.ceil(self.num_samples * reach)
        signal = read_crop(path, count, self.sample_rate, rng.random())
        if self.augment is not None:
            signal = self.augment(signal, self.sample_rate, rng)
        return signal[: self.num_samples]


def crc32(text):
    """A number from a name, the same in every process."""
    return zlib.crc32(text.encode())


class F0Labels(DynamicItem):
    """F0 of the sound as it is given to the model, whatever was done to it.

    Arguments
    ---------
    sample_rate : int
        In Hz.
    frame_length : int
        Samples per mel frame.
    upsample : int
        Labels per mel frame.
    f_min : float
        Lowest F0 in Hz.
    f_max : float
        Highest F0 in Hz.
    """

    takes = ("sig",)
    provides = ("f0",)

    def __init__(self, sample_rate, frame_length, upsample, f_min, f_max):
        self.sample_rate = sample_rate
        self.frame_length = frame_length
        self.upsample = upsample
        self.f_min = f_min
        self.f_max = f_max

    def __call__(self, signal):
        """Returns Hz, 0 where unvoiced: [upsample * ceil(T / frame_length)]."""
        return label_f0(
            signal,
            self.sample_rate,
            self.frame_length // self.upsample,
            self.upsample * num_frames(len(signal), self.frame_length),
            self.f_min,
            self.f_max,
        )


class TextTokens(DynamicItem):
    """What is said, as numbers.

    Arguments
    ---------
    encode : callable
        From text to a list of int, as `encode_as_ids` of a SentencePiece
        model or `encode_sequence` of SpeechBrain's `CTCTextEncoder` are.
    """

    takes = ("label",)
    provides = ("text", "text_tokens")

    def __init__(self, encode):
        self.encode = encode

    def __call__(self, label):
        """Returns the manifest's text and int64 [U]."""
        return label, torch.tensor(self.encode(label), dtype=torch.long)


def make_dataset(manifest, data_folder, items, **roots):
    """A SpeechBrain dataset of the items that a task wants.

    Arguments
    ---------
    manifest : str
        JSON file, as `libritts_prepare` writes: an entry with wav, duration,
        spk_id and label for each utterance.
    data_folder : str
        Stands for {data_root} in the manifest.
    items : list of DynamicItem
        `Audio`, `Cropper`, `F0Labels`, `TextTokens`, those of a token store
        or others; one may take what another provides.
    **roots
        What stands for other names in braces, such as token_root.

    Returns
    -------
    speechbrain.dataio.dataset.DynamicItemDataset
        With id and all that the items provide.
    """
    dataset = DynamicItemDataset.from_json(
        manifest,
        replacements={"data_root": str(data_folder), **roots},
        dynamic_items=items,
    )
    provided = [key for item in items for key in item.provides]
    dataset.set_output_keys(["id", *provided])
    return dataset
