"""Extracts the tokens of a corpus, shard by shard, with any processes.

A shard is the unit of work: one process writes it, whole or not at all, and
then says so in a file of its own. What was killed is done again from the
shards that have no such file.

    folder/plan.json             what is extracted, and how
    folder/plan/000012.json      the utterances of a shard
    folder/shards/000012.tar     their tokens (see `stores`)
    folder/shards/000012.json    their SpeechBrain manifest
    folder/done/000012.json      the shard is complete; its statistics
    folder/tokens.json, summary.json    all shards together, at the end
"""

import logging
import time
from pathlib import Path
from typing import NamedTuple

import soundfile
import torch
from speechbrain.utils.distributed import ddp_barrier, get_rank
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from speechbrain_flowmac.audio import open_audio
from speechbrain_flowmac.lobes.quantizer import CodebookUsage
from speechbrain_flowmac.tokens.plan import make_plan, read_json, write_json
from speechbrain_flowmac.tokens.stores import smallest_dtype
from speechbrain_flowmac.tokens.summary import summarise

logger = logging.getLogger(__name__)

# What a file that cannot be read, or holds no sound, raises
BAD_AUDIO = (OSError, ValueError, soundfile.SoundFileError)


# One shard


class _Signals(Dataset):
    """Sound by name, or what is wrong with it."""

    def __init__(self, paths, sample_rate):
        self.paths = paths
        self.sample_rate = sample_rate

    def __getitem__(self, name):
        try:
            with open_audio(self.paths[name], self.sample_rate) as audio:
                return name, torch.cat(list(audio.blocks()), dim=1)[0]
        except BAD_AUDIO as error:
            return name, str(error)

    def __len__(self):
        return len(self.paths)


def duration(path):
    """Seconds that a file's header claims; 0 if it cannot be read."""
    try:
        return soundfile.info(path).duration
    except BAD_AUDIO:
        return 0.0


def bucket(durations, batch_seconds):
    """Batches of utterances of like length.

    Arguments
    ---------
    durations : dict
        In seconds, by name.
    batch_seconds : float
        Seconds of a batch with its padding; what is longer is alone.

    Returns
    -------
    list of list of str

    Example
    -------
    >>> bucket({"a": 3.0, "b": 1.0, "c": 9.0, "d": 2.9}, batch_seconds=6.0)
    [['b', 'd'], ['a'], ['c']]
    """
    batches, current = [], []
    for name in sorted(durations, key=durations.get):
        if current and (len(current) + 1) * durations[name] > batch_seconds:
            batches.append(current)
            current = []
        current.append(name)
    return [*batches, current] if current else batches


class Extractor:
    """Turns the audio of shards into tokens.

    Arguments
    ---------
    tokenizer : FlowMACTokenizer
        On the device that shall work, at the codec's own sample rate.
    store : NpyStore or TarStore
        How shards are written.
    folder : str or Path
        Of the extraction, with its plan.
    data_folder : str
        Stands for {data_root} in the manifest.
    batch_seconds : float
        Audio of a batch, in seconds; what is longer is coded in chunks.
    num_workers : int
        Processes that read audio; 0 to read in this one.
    """

    def __init__(
        self,
        tokenizer,
        store,
        folder,
        data_folder,
        batch_seconds=120.0,
        num_workers=0,
    ):
        self.tokenizer = tokenizer
        self.store = store
        self.folder = Path(folder)
        self.data_folder = str(data_folder)
        self.batch_seconds = batch_seconds
        self.num_workers = num_workers

    def __call__(self, shard, progress):
        """Extracts one shard.

        Arguments
        ---------
        shard : str
            Its name.
        progress : callable
            Called with utterances and seconds of audio after each batch.
        """
        started = time.monotonic()
        utterances = read_json(self.folder / "plan" / f"{shard}.json")
        paths = {
            name: entry["wav"].replace("{data_root}", self.data_folder)
            for name, entry in utterances.items()
        }
        coded, failures = {}, {}
        for batch in self._read(paths):
            sound = {n: s for n, s in batch if not isinstance(s, str)}
            failures.update((n, s) for n, s in batch if n not in sound)
            coded.update(self._code(sound, paths, failures))
            seconds = sum(coded[n][1] for n in sound if n in coded)
            progress(len(batch), seconds)
        self._write(shard, utterances, coded, failures, started)

    def _read(self, paths):
        durations = {name: duration(path) for name, path in paths.items()}
        batches = bucket(durations, self.batch_seconds)
        long = [b for b in batches if durations[b[-1]] > self.batch_seconds]
        for batch in long:
            yield [(name, None) for name in batch]
        yield from DataLoader(
            _Signals(paths, self.tokenizer.codec.sample_rate),
            batch_sampler=[b for b in batches if b not in long],
            collate_fn=list,
            num_workers=self.num_workers,
        )

    def _code(self, sound, paths, failures):
        """Tokens [N, K] and seconds by name."""
        codec, count = self.tokenizer.codec, self.tokenizer.num_codebooks
        long = [name for name, signal in sound.items() if signal is None]
        short = {n: s for n, s in sound.items() if s is not None}
        for name in long:
            try:
                tokens = codec.encode_file(paths[name], count)[0]
            except BAD_AUDIO as error:
                failures[name] = str(error)
                continue
            # a header may claim more than there is
            heard = len(tokens) / codec.frame_rate
            yield name, (tokens, min(duration(paths[name]), heard))
        if not short:
            return
        lengths = torch.tensor([len(signal) for signal in short.values()])
        signals = torch.nn.utils.rnn.pad_sequence(
            list(short.values()), batch_first=True
        )
        tokens, frames = codec.encode_frames(signals, lengths, count)
        for i, name in enumerate(short):
            seconds = lengths[i].item() / codec.sample_rate
            yield name, (tokens[i, : frames[i]].cpu(), seconds)

    def _write(self, shard, utterances, coded, failures, started):
        usage = CodebookUsage(
            self.tokenizer.num_codebooks, self.tokenizer.codebook_size
        )
        kind = smallest_dtype(self.tokenizer.codebook_size)
        shards = self.folder / "shards"
        kept = [name for name in utterances if name in coded]
        entries, samples = {}, []
        for name in kept:
            tokens, seconds = coded[name]
            usage.update(tokens.unsqueeze(0))
            entries[name] = {
                **utterances[name],
                "duration": seconds,
                "num_frames": len(tokens),
            }
            samples.append((name, entries[name], tokens.numpy().astype(kind)))
        for name, place in self.store.write(shards, shard, samples).items():
            path = next(key for key in place if key != "offset")
            place[path] = f"{{token_root}}/shards/{place[path]}"
            entries[name].update(place)
        write_json(shards / f"{shard}.json", entries)
        logger.info("shard %s: %d utterances", shard, len(entries))
        write_json(
            self.folder / "done" / f"{shard}.json",
            {
                "counts": usage.counts.long().tolist(),
                "audio_seconds": sum(coded[name][1] for name in kept),
                "frames": sum(len(coded[name][0]) for name in kept),
                "process_seconds": time.monotonic() - started,
                "failures": {n: failures[n] for n in sorted(failures)},
            },
        )


# A corpus


class Share(NamedTuple):
    """Which shards a process works on: every `of`-th, from `index` on.

    Processes of one `torchrun` share by their ranks. Launches that know
    nothing of each other, as the jobs of a SLURM array, are parts: each gets
    a share, which its own ranks share.

    Example
    -------
    >>> Share.of_this_process(part=1, parts=2)
    Share(index=1, of=2)
    """

    index: int
    of: int

    @classmethod
    def of_this_process(cls, part=0, parts=1):
        """The share of this rank of part `part` of `parts`."""
        if not 0 <= part < parts:
            raise ValueError(
                f"part must be in 0..{parts - 1}, found {part} of {parts}"
            )
        world = 1
        if torch.distributed.is_initialized():
            world = torch.distributed.get_world_size()
        return cls(part * world + (get_rank() or 0), parts * world)


def extract(
    tokenizer,
    utterances,
    folder,
    data_folder,
    store,
    shard_size=1000,
    share=None,
    **options,
):
    """Extracts a corpus, or goes on with it; all processes call this.

    Arguments
    ---------
    tokenizer : FlowMACTokenizer
        On the device that shall work.
    utterances : dict
        A SpeechBrain manifest: `wav` and what else shall be kept, by name.
    folder : str or Path
        For all that is written.
    data_folder : str
        Stands for {data_root} in the manifest.
    store : NpyStore or TarStore
        How shards are written.
    shard_size : int
        Utterances of a shard.
    share : Share or None
        None for what `torchrun` says.
    **options
        batch_seconds and num_workers of `Extractor`.

    Returns
    -------
    dict or None
        The summary, see `tokens.summary`; None while shards are missing that
        other launches work on.
    """
    store.check(utterances)
    folder = Path(folder)
    share = Share.of_this_process() if share is None else share
    settings = {
        "model": tokenizer.codec.fingerprint.hex(),
        "num_codebooks": tokenizer.num_codebooks,
        "store": type(store).__name__,
    }
    if (get_rank() or 0) == 0:
        make_plan(folder, utterances, shard_size, settings)
    ddp_barrier()
    shards = make_plan(folder, utterances, shard_size, settings)
    mine = list(shards)[share.index :: share.of]
    left = {s: shards[s] for s in mine if not _is_done(folder, s)}
    extractor = Extractor(tokenizer, store, folder, data_folder, **options)
    _work(extractor, left)
    ddp_barrier()
    if all(_is_done(folder, shard) for shard in shards):
        if (get_rank() or 0) == 0:
            merge(folder, shards, tokenizer)
        ddp_barrier()
        return read_json(folder / "summary.json")
    return None


def _is_done(folder, shard):
    return (folder / "done" / f"{shard}.json").exists()


def _work(extractor, shards):
    """Extracts shards, and shows hours of audio per hour."""
    started, heard = time.monotonic(), 0.0
    with tqdm(
        total=sum(shards.values()),
        desc="tokens",
        unit="utt",
        position=get_rank() or 0,
        dynamic_ncols=True,
        disable=not shards,
    ) as bar:

        def progress(count, seconds):
            nonlocal heard
            heard += seconds
            rate = heard / (time.monotonic() - started)
            bar.set_postfix_str(f"{rate:.0f} h/h", refresh=False)
            bar.update(count)

        for shard in shards:
            extractor(shard, progress)


def merge(folder, shards, tokenizer):
    """Writes the manifest and the summary of all shards.

    Arguments
    ---------
    folder : Path
        Of the extraction.
    shards : iterable of str
        All of them, done.
    tokenizer : FlowMACTokenizer
        Tells the bits.
    """
    manifest = {}
    for shard in shards:
        manifest.update(read_json(folder / "shards" / f"{shard}.json"))
    write_json(folder / "tokens.json", manifest)
    done = [read_json(folder / "done" / f"{s}.json") for s in shards]
    sizes = tokenizer.codec.codebook_sizes[: tokenizer.num_codebooks]
    write_json(folder / "summary.json", summarise(done, len(manifest), sizes))
