"""Files that appear under their names only when they are complete."""

import os
from contextlib import contextmanager, suppress


@contextmanager
def atomic_write(path, mode: str = "wb"):
    """Open a file that appears under its name only when it is complete.

    Writes to a temporary name in the same folder and renames at the end. If
    the body raises, the temporary file is removed and what was under
    ``path`` before is untouched. Permissions are those of a new file.

    Arguments
    ---------
    path : str or path-like
        Where the file shall be; links are followed.
    mode : str
        "wb", or "w" for UTF-8 text.

    Yields
    ------
    file object
        Open for writing.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    OSError
        If ``path`` is a folder, a device or a pipe.
    ValueError
        If ``mode`` is something else.

    Example
    -------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_write(f"{folder}/a.bin") as file:
    ...         _ = file.write(b"all of it")
    ...     os.listdir(folder)
    ['a.bin']
    """
    if mode not in ("wb", "w"):
        raise ValueError(f"mode must be 'wb' or 'w', found {mode!r}")
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"folder {folder} of {path} does not exist")
    if os.path.exists(target) and not os.path.isfile(target):
        raise OSError(f"{path} exists and is not a regular file")
    # Mode "x" lets the umask decide on permissions, as for any new file.
    partial = os.path.join(folder, f".{name[:32]}.{os.urandom(8).hex()}.tmp")
    encoding = "utf-8" if mode == "w" else None
    try:
        with open(partial, mode.replace("w", "x"), encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    except BaseException:
        if os.path.exists(partial):
            os.unlink(partial)
        raise


@contextmanager
def new_folder(folder):
    """Makes a folder; takes it away again on an error, unless it is used.

    Arguments
    ---------
    folder : Path
        Made with its parents; may exist.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for path in made:
            with suppress(OSError):
                path.rmdir()
        raise
