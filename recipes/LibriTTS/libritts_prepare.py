"""LibriTTS manifests for SpeechBrain.

LibriTTS (Zen et al., 2019, https://arxiv.org/abs/1904.02882) is 585 hours of
English read speech at 24 kHz, laid out as
``<split>/<speaker>/<chapter>/<utterance>.wav`` with the normalised text beside
each file in ``<utterance>.normalized.txt``. ``prepare_libritts`` writes one
JSON manifest for training, validation and test. The audio is only read: nothing
is resampled, converted or moved. A split that is not there is downloaded from
OpenSLR (resource 60) first.
"""

import gzip
import hashlib
import http.client
import json
import logging
import os
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import soundfile
from tqdm import tqdm

logger = logging.getLogger(__name__)

LIBRITTS_URL = "https://www.openslr.org/resources/60"

# SHA-256 of the archive of each official split.
LIBRITTS_SHA256 = {
    "dev-clean": "da0864e1bd26debed35da8a869dd5c04dfc27682921936de7cff9c8a254dbe1a",
    "dev-other": "d413eda26f3a152ac7c9cf3658ef85504dfb1b625296e5fa83727f5186cca79c",
    "test-clean": "234ea5b25859102a87024a4b9b86641f5b5aaaf1197335c95090cde04fe9a4f5",
    "test-other": "33a5342094f3bba7ccc2e0500b9e72d558f72eb99328ac8debe1d9080402f10d",
    "train-clean-100": "c5608bf1ef74bb621935382b8399c5cdd51cd3ee47cec51f00f885a64c6c7f6b",
    "train-clean-360": "ce7cff44dcac46009d18379f37ef36551123a1dc4e5c8e4eb73ae57260de4886",
    "train-other-500": "e35f7e34deeb2e2bdfe4403d88c8fdd5fbf64865cae41f027a185a6965f0a5df",
}

_ARGUMENTS_FILE = "libritts_prepare.json"
_ARCHIVE_FOLDER = "LibriTTS"
_BLOCK = 1 << 20
_TIMEOUT_SECONDS = 60
_BAR = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}


class MissingDataError(FileNotFoundError):
    """A split is not on disk and could not be fetched."""


class CorruptArchiveError(ValueError):
    """A downloaded archive is damaged or does not hold the expected files."""


class EmptySplitError(ValueError):
    """A manifest would list no utterance."""


class UnreadableAudioError(ValueError):
    """Some audio files of a split cannot be read."""


def prepare_libritts(
    data_folder,
    save_folder,
    train_splits=("train-clean-100",),
    valid_splits=("dev-clean",),
    test_splits=("test-clean",),
    download=True,
    min_duration=0.5,
    skip_prep=False,
    url=LIBRITTS_URL,
    checksums=LIBRITTS_SHA256,
):
    """Write ``train.json``, ``valid.json`` and ``test.json``.

    Each manifest maps an utterance name to ``wav`` (a path that starts with
    ``{data_root}``, to be replaced by ``data_folder``), ``duration`` in
    seconds, ``spk_id`` and ``label`` (the normalised text, or an empty string).
    Nothing is done when the manifests exist and were made with the same
    arguments.

    Arguments
    ---------
    data_folder : str
        Folder that holds the splits, or a folder ``LibriTTS`` of splits.
        Missing official splits are downloaded into it; existing files are
        never changed.
    save_folder : str
        Folder where the manifests are written.
    train_splits : str or list of str
        Splits of the training set. Any folder of the right layout will do; it
        need not be one of the official ones.
    valid_splits : str or list of str
        Splits of the validation set.
    test_splits : str or list of str
        Splits of the test set.
    download : bool
        Whether to download official splits that are missing.
    min_duration : float
        Training utterances shorter than this, in seconds, are left out. The
        validation and test sets are always complete.
    skip_prep : bool
        If True, return at once.
    url : str
        Address of the folder of archives ``<split>.tar.gz``.
    checksums : dict
        SHA-256 of the archives by split. Archives without an entry are checked
        for integrity and layout only.

    Returns
    -------
    None

    Raises
    ------
    MissingDataError
        If a split is not there and cannot be downloaded.
    CorruptArchiveError
        If a downloaded archive is damaged. It is removed.
    EmptySplitError
        If a set has no split, or a split no utterance.
    UnreadableAudioError
        If audio files cannot be read.

    Example
    -------
    >>> prepare_libritts("/path/to/LibriTTS", "results/save")  # doctest: +SKIP
    """
    if skip_prep:
        return
    data_folder, save_folder = Path(data_folder), Path(save_folder)
    sets = {
        "train": _as_list(train_splits),
        "valid": _as_list(valid_splits),
        "test": _as_list(test_splits),
    }
    arguments = {
        "data_folder": str(data_folder.absolute()),
        "min_duration": float(min_duration),
        **{f"{name}_splits": splits for name, splits in sets.items()},
    }
    if _is_prepared(save_folder, sets, arguments):
        logger.info("LibriTTS is already prepared in %s", save_folder)
        return
    for name, splits in sets.items():
        if not splits:
            raise EmptySplitError(f"{name}_splits names no split")
    _require_splits(data_folder, sets, download, url.rstrip("/"), checksums)

    manifests = {
        name: _manifest(
            data_folder, splits, min_duration if name == "train" else 0.0
        )
        for name, splits in sets.items()
    }
    save_folder.mkdir(parents=True, exist_ok=True)
    # The arguments are written last: their presence vouches for the manifests.
    (save_folder / _ARGUMENTS_FILE).unlink(missing_ok=True)
    for name, manifest in manifests.items():
        _write_json(save_folder / f"{name}.json", manifest)
    _write_json(save_folder / _ARGUMENTS_FILE, arguments)


def list_libritts(data_folder, splits, download=True):
    """List the utterances of splits without opening their audio.

    Arguments
    ---------
    data_folder : str
        As for ``prepare_libritts``.
    splits : str or list of str
        Splits, which are downloaded if need be.
    download : bool
        Whether to download official splits that are missing.

    Returns
    -------
    dict
        As the manifests of ``prepare_libritts``, without durations: broken
        files are in it.
    """
    data_folder, splits = Path(data_folder), _as_list(splits)
    _require_splits(
        data_folder, {"all": splits}, download, LIBRITTS_URL, LIBRITTS_SHA256
    )
    utterances = {}
    for split in splits:
        wavs = _find_wavs(_split_folder(data_folder, split))
        if not wavs:
            raise _empty(data_folder, split)
        for wav in wavs:
            _check_new(utterances, wav)
            utterances[wav.stem] = _description(data_folder, wav)
    return utterances


def _as_list(splits):
    """Splits as a list, whether one name or several were given."""
    return [splits] if isinstance(splits, str) else list(splits)


def _is_prepared(save_folder, sets, arguments):
    """Whether the manifests exist and were made with these arguments."""
    if not all((save_folder / f"{name}.json").is_file() for name in sets):
        return False
    try:
        text = (save_folder / _ARGUMENTS_FILE).read_text(encoding="utf-8")
        return json.loads(text) == arguments
    except (FileNotFoundError, json.JSONDecodeError):
        return False


def _write_json(path, content):
    """Write a JSON file under a temporary name, then rename it."""
    partial = path.with_name(path.name + ".part")
    text = json.dumps(content, indent=2, ensure_ascii=False)
    partial.write_text(text + "\n", encoding="utf-8")
    os.replace(partial, path)


# Manifests


def _manifest(data_folder, splits, min_duration):
    """List the utterances of several splits."""
    manifest, unreadable = {}, []
    for split in splits:
        wavs = _find_wavs(_split_folder(data_folder, split))
        if not wavs:
            raise _empty(data_folder, split)
        for wav in tqdm(wavs, desc=f"Reading {split}", unit="file"):
            _check_new(manifest, wav)
            try:
                manifest[wav.stem] = _entry(data_folder, wav)
            except soundfile.SoundFileError:
                unreadable.append(wav)
    if unreadable:
        raise UnreadableAudioError(
            f"{len(unreadable)} audio files cannot be read or are empty, "
            f"starting with {', '.join(map(str, unreadable[:3]))}"
        )
    return _long_enough(manifest, splits, min_duration)


def _empty(data_folder, split):
    """The error of a split without audio."""
    folder = _split_folder(data_folder, split)
    return EmptySplitError(
        f"No <speaker>/<chapter>/<utterance>.wav in {folder}"
    )


def _check_new(manifest, wav):
    """Refuse a second utterance of the same name."""
    if wav.stem in manifest:
        raise ValueError(
            f"Two utterances are called {wav.stem}; one is {wav}, the "
            f"other {manifest[wav.stem]['wav']}"
        )


def _find_wavs(folder):
    """Audio files of a split in a fixed order, without hidden ones."""
    wavs = folder.glob("*/*/*.wav")
    return sorted(wav for wav in wavs if not wav.name.startswith("."))


def _entry(data_folder, wav):
    """Manifest entry of one utterance; an empty file counts as unreadable."""
    info = soundfile.info(str(wav))
    if info.frames == 0:
        raise soundfile.SoundFileError(f"{wav} holds no samples")
    return {
        **_description(data_folder, wav),
        "duration": info.frames / info.samplerate,
    }


def _description(data_folder, wav):
    """What is known of an utterance without its audio."""
    text = wav.with_suffix(".normalized.txt")
    return {
        "wav": "{data_root}/" + wav.relative_to(data_folder).as_posix(),
        "spk_id": wav.parent.parent.name,
        "label": text.read_text(encoding="utf-8").strip()
        if text.is_file()
        else "",
    }


def _long_enough(manifest, splits, min_duration):
    """Leave out the utterances that are too short, and say how many."""
    kept = {
        name: entry
        for name, entry in manifest.items()
        if entry["duration"] >= min_duration
    }
    if not kept:
        raise EmptySplitError(
            f"All {len(manifest)} utterances of {', '.join(splits)} are "
            f"shorter than min_duration={min_duration} s"
        )
    if len(kept) < len(manifest):
        logger.info(
            "%d utterances of %s are shorter than %g s and left out",
            len(manifest) - len(kept),
            ", ".join(splits),
            min_duration,
        )
    return kept


# Splits on disk


def _home(data_folder):
    """Folder that new splits are put into."""
    inner = data_folder / _ARCHIVE_FOLDER
    return inner if inner.is_dir() else data_folder


def _split_folder(data_folder, split):
    """Folder of a split in either layout, None if there is none."""
    for parent in (data_folder, data_folder / _ARCHIVE_FOLDER):
        if (parent / split).is_dir():
            return parent / split
    return None


def _require_splits(data_folder, sets, download, url, checksums):
    """Download the splits that are missing, or say which they are."""
    wanted = dict.fromkeys(
        split for splits in sets.values() for split in splits
    )
    missing = [s for s in wanted if _split_folder(data_folder, s) is None]
    unknown = [s for s in missing if s not in LIBRITTS_SHA256]
    if unknown:
        raise _missing(
            data_folder,
            unknown,
            "These are not official splits, so they cannot be downloaded; the "
            f"official ones are {', '.join(LIBRITTS_SHA256)}.",
        )
    if missing and not download:
        raise _missing(data_folder, missing, "Downloading is switched off.")
    for i, split in enumerate(missing):
        archive = _home(data_folder) / f"{split}.tar.gz.part"
        try:
            _download(f"{url}/{split}.tar.gz", archive)
        except (OSError, http.client.HTTPException) as error:
            reason = f"Downloading from {url} failed: {error}."
            if archive.exists():
                reason += f" {archive} is kept; another run continues it."
            raise _missing(data_folder, missing[i:], reason) from error
        _unpack(archive, split, checksums.get(split))


def _missing(data_folder, splits, reason):
    """The one message about missing data."""
    places = f"{data_folder}/ and {data_folder / _ARCHIVE_FOLDER}/"
    return MissingDataError(
        f"LibriTTS splits not found: {', '.join(splits)}. Looked in {places}. "
        f"{reason} Pass the folder that holds the splits, for example "
        "--data_folder=/path/to/LibriTTS"
    )


# Download


def _download(url, archive):
    """Fetch a file, continuing from what is there for as long as it grows."""
    complete = False
    while not complete:
        before = _size(archive)
        complete = _fetch(url, archive)
        if not complete and _size(archive) <= before:
            raise ConnectionError("the connection ended before the file did")


def _size(path):
    """Size of a file in bytes, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def _fetch(url, archive):
    """Make one request for the rest of a file; return if it is complete."""
    start = _size(archive)
    headers = {"Range": f"bytes={start}-"} if start else {}
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        # All of it is here, or something else is: the check will tell.
        return True
    with response:
        # A server that ignores the range sends the file from its beginning.
        if response.status != http.client.PARTIAL_CONTENT:
            start = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        archive.parent.mkdir(parents=True, exist_ok=True)
        with (
            archive.open("ab" if start else "wb") as file,
            tqdm(
                desc=f"Downloading {url}", initial=start, total=total, **_BAR
            ) as bar,
        ):
            for block in _blocks(response):
                file.write(block)
                bar.update(len(block))
    return total is None or _size(archive) == total


def _blocks(response):
    """Blocks of a response until it ends or the connection is lost."""
    while True:
        try:
            block = response.read(_BLOCK)
        except (OSError, http.client.HTTPException) as error:
            logger.warning("The connection was lost: %s", error)
            return
        if not block:
            return
        yield block


# Archive


def _unpack(archive, split, checksum):
    """Check an archive, unpack it, and move the split to its place.

    The split appears under its name only when all of it has been unpacked.
    """
    try:
        if checksum is not None:
            _check_sha256(archive, checksum)
        with tempfile.TemporaryDirectory(
            dir=archive.parent, prefix=f".{split}."
        ) as scratch:
            _extract(archive, scratch)
            folder = _split_folder(Path(scratch), split)
            if folder is None or not _find_wavs(folder):
                raise CorruptArchiveError(
                    f"it holds no {split}/<speaker>/<chapter>/<utterance>.wav"
                )
            os.replace(folder, archive.parent / split)
    except (
        CorruptArchiveError,
        EOFError,
        gzip.BadGzipFile,
        tarfile.TarError,
        zlib.error,
    ) as error:
        archive.unlink()
        raise CorruptArchiveError(
            f"The archive downloaded for {split} is damaged and was removed: "
            f"{error}. Run again to download it anew."
        ) from error
    archive.unlink()


def _check_sha256(archive, expected):
    """Compare the SHA-256 of a file with the expected one."""
    digest = hashlib.sha256()
    with (
        archive.open("rb") as file,
        tqdm(
            desc=f"Checking {archive.name}", total=_size(archive), **_BAR
        ) as bar,
    ):
        while block := file.read(_BLOCK):
            digest.update(block)
            bar.update(len(block))
    if digest.hexdigest() != expected:
        raise CorruptArchiveError(
            f"its SHA-256 is {digest.hexdigest()}, not {expected}"
        )


def _extract(archive, folder):
    """Unpack a tar.gz that may hold only regular files and folders."""
    size = _size(archive)
    with (
        archive.open("rb") as file,
        tqdm.wrapattr(
            file, "read", desc=f"Unpacking {archive.name}", total=size, **_BAR
        ) as counted,
        gzip.GzipFile(fileobj=counted) as stream,
    ):
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                if not (member.isfile() or member.isdir()):
                    raise CorruptArchiveError(
                        f"{member.name} is neither a file nor a folder"
                    )
                tar.extract(member, folder, filter="data")
        # gzip compares its checksum only once it has been read to the end.
        while stream.read(_BLOCK):
            pass
