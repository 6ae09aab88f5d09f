"""Ratings of MUSHRA tests, from the CSV files that webMUSHRA writes.

Its service/write.php writes one row a rating: session_test_id, one column for
each question to the listener, session_uuid (since 2022), trial_id,
rating_stimulus, rating_score, rating_time, rating_comment. pymushra, the
Python server, exports the same under other names. What people make of such
files is read, too: semicolons or tabs, decimal commas, a byte order mark,
empty lines, columns in another order, files pasted together.
"""

import csv
import io
import math
from pathlib import Path
from typing import NamedTuple

from speechbrain_flowmac.evaluation.mushra import (
    LOW_ANCHOR,
    MID_ANCHOR,
    TRAINING,
)

REQUIRED = ("trial_id", "rating_stimulus", "rating_score")

# Names of pymushra, and those of questions with a prefix that some had
ALIASES = {
    "wm_id": "trial_id",
    "wm_testid": "session_test_id",
    "wm_type": "type",
    "responses_stimulus": "rating_stimulus",
    "responses_score": "rating_score",
    "questionaire_uuid": "session_uuid",
}
PREFIXES = ("questionaire_", "participant_")

# Questions that say who listened, the best first
LISTENER_COLUMNS = ("listener", "email", "name", "id", "code")

# What webMUSHRA calls the anchors that it makes itself
OWN_ANCHORS = {"anchor35": LOW_ANCHOR, "anchor70": MID_ANCHOR}


class RatingsError(ValueError):
    """Ratings that do not fit; the message says where."""


class Rating(NamedTuple):
    """What a listener thinks of an item as a system had it: a score of 0 to 100."""

    listener: str
    item: str
    system: str
    score: float


def read_ratings(paths, key=None, listener_column=None):
    """Reads the ratings of a test from its CSV files: `Rating` of each listener,
    item and system, in the order of the files.

    A listener is who gives the same answer in the column that asks for it:
    `listener_column`, or else the first of `LISTENER_COLUMNS` that is there.
    Without an answer every session counts as a listener. What a listener
    rated in several sessions is averaged. Ratings of the page for practice
    are left out. Without the `Key` of the test, stimuli are taken for systems.
    """
    scores, sessions = {}, _Sessions()
    for path in paths:
        for where, row in read_rows(path):
            if row.get("type", "mushra") != "mushra":
                continue
            session = sessions.of(path, where, row)
            listener = _listener(where, row, listener_column)
            what = (listener or f"session {session}", *_what(where, row, key))
            # by session: one that was sent twice counts once
            scores.setdefault(what, {})[session] = _score(where, row)
    ratings = [
        Rating(*what, math.fsum(rated.values()) / len(rated))
        for what, rated in scores.items()
        if what[1].lower() != TRAINING
    ]
    if not ratings:
        names = ", ".join(str(path) for path in paths)
        raise RatingsError(f"no ratings in {names}")
    return ratings


def read_rows(path):
    """Yields the rows of a CSV file, without empty ones.

    The header may be repeated, with columns in another order. A row comes
    with where it is ("FILE line N"), as a dict of its cells."""
    # lines end as csv has it, not where str.splitlines() ends them, too
    lines = list(io.StringIO(_text(path), newline=""))
    first = next(filter(str.strip, lines))
    for delimiter in ",;\t":
        try:
            columns = _header(next(csv.reader([first], delimiter=delimiter)))
        except csv.Error as error:  # a cell of 131072 characters
            raise RatingsError(f"{path} line 1: {error}") from error
        if columns:
            break
    else:
        raise RatingsError(
            f"{path}: its first line does not name the columns "
            f"{', '.join(REQUIRED)}"
        )
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        where = f"{path} line {reader.line_num + 1}"
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            raise RatingsError(f"{where}: {error}") from error
        if not any(cells):
            continue
        header = _header(cells)
        if header:
            columns = header
        elif len(cells) != len(columns):
            raise RatingsError(
                f"{where}: {len(cells)} cells, but {len(columns)} columns"
            )
        else:
            yield where, dict(zip(columns, cells, strict=True))


def _text(path):
    data = Path(path).read_bytes()
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise RatingsError(f"{path} line {line}: not UTF-8 text") from error
    if not text.strip():
        raise RatingsError(f"{path} is empty")
    return text.replace("\ufeff", "")  # of files pasted together


def _header(cells):
    """Names of columns, or None if these are no names of columns."""
    names = [cell.strip().lower() for cell in cells]
    names = [ALIASES.get(name, name) for name in names]
    for prefix in PREFIXES:
        names = [name.removeprefix(prefix) for name in names]
    return names if set(REQUIRED) <= set(names) else None


class _Sessions:
    """Tells sessions apart, also where nothing identifies them.

    webMUSHRA writes a session in one go, so without an identifier a new one
    begins where answers change, or where a stimulus comes again.
    """

    def __init__(self):
        self.identified = {}  # scores by identifier and stimulus
        self.count = 0  # of those without an identifier
        self.answers = None
        self.heard = set()

    def of(self, path, where, row):
        """The session of a row: its identifier, or a number."""
        what = (row["trial_id"], row["rating_stimulus"])
        uuid = row.get("session_uuid")
        if uuid:
            score = row["rating_score"]
            before = self.identified.setdefault((uuid, *what), score)
            if before != score:
                raise RatingsError(
                    f"{where}: {what[1]!r} of {what[0]!r} was rated {before} "
                    "before, in the same session"
                )
            return uuid
        answers = {
            name: cell
            for name, cell in row.items()
            if not name.startswith(("rating_", "trial_"))
        }
        if (path, answers) != self.answers or what in self.heard:
            self.count += 1
            self.answers = (path, answers)
            self.heard = set()
        self.heard.add(what)
        return self.count


def _listener(where, row, column):
    if column is None:
        answers = [row.get(name) for name in LISTENER_COLUMNS]
        return next((x.lower() for x in answers if x), None)
    name = column.lower()
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    if name not in row:
        raise RatingsError(f"{where}: there is no column {column!r}")
    return row[name].lower()


def _score(where, row):
    text = row["rating_score"]
    try:
        score = float(text.replace(",", "."))
    except ValueError:
        score = math.nan
    if not 0 <= score <= 100:
        raise RatingsError(
            f"{where}: the score must be a number in 0..100, found {text!r}"
        )
    return score


def _what(where, row, key):
    """Item and system of a row."""
    item, stimulus = row["trial_id"], row["rating_stimulus"]
    if not item or not stimulus:
        raise RatingsError(f"{where}: trial_id or rating_stimulus is empty")
    if key is None:
        return item, OWN_ANCHORS.get(stimulus, stimulus)
    test_id = row.get("session_test_id", key.test_id)
    if test_id != key.test_id:
        raise RatingsError(
            f"{where}: the test is {test_id!r}, the key is of {key.test_id!r}"
        )
    if item not in key.items:
        raise RatingsError(f"{where}: the key has no item {item!r}")
    stimuli = key.items[item].stimuli
    if stimulus not in stimuli:
        raise RatingsError(
            f"{where}: the key has no stimulus {stimulus!r} of {item!r}"
        )
    return item, stimuli[stimulus].system
