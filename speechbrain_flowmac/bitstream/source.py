"""Bytes of files, pipes and sockets, read forward."""

import os


class Source:
    """A binary file object that is read to its end.

    Arguments
    ---------
    fileobj : binary file object
        Only its ``read`` is needed. The stream begins where it stands.
    """

    def __init__(self, fileobj):
        self._fileobj = fileobj
        self._unread = b""
        self._received = 0
        self._size = self._bytes_left()

    @property
    def size(self) -> int:
        """Bytes of the stream: all of a file, what has come of a pipe."""
        return self._received if self._size is None else self._size

    @property
    def is_file(self) -> bool:
        """Whether the size is known from the beginning."""
        return self._size is not None

    def read(self, size: int) -> bytes:
        """Read ``size`` bytes, or fewer only if the stream ends.

        One read of a pipe may return less than was asked for.
        """
        pieces = [self._unread[:size]]
        self._unread = self._unread[size:]
        missing = size - len(pieces[0])
        while missing > 0:
            piece = self._fileobj.read(missing)
            if not isinstance(piece, (bytes, bytearray)):
                raise TypeError(
                    "fileobj must be open for blocking reads of bytes, its "
                    f"read() gave {type(piece).__name__}"
                )
            if not piece:
                break
            pieces.append(piece)
            missing -= len(piece)
            self._received += len(piece)
        return b"".join(pieces)

    def unread(self, data: bytes) -> None:
        """Give back bytes; the next read begins with them."""
        self._unread = data + self._unread

    def tail(self, size: int) -> bytes:
        """The last bytes of a file, which need not be read for them."""
        here = self._fileobj.tell()
        end = self._fileobj.seek(0, os.SEEK_END)
        start = self._fileobj.seek(max(here, end - size))
        data = self._fileobj.read(end - start)
        self._fileobj.seek(here)
        return data

    def _bytes_left(self) -> int | None:
        """How many bytes follow, or None if the file object cannot tell."""
        try:
            if not self._fileobj.seekable():
                return None
            here = self._fileobj.tell()
            end = self._fileobj.seek(0, os.SEEK_END)
            self._fileobj.seek(here)
        except (AttributeError, OSError, ValueError):
            return None
        return end - here


def write_all(fileobj, data: bytes) -> None:
    """Write all bytes; an unbuffered file may take fewer in one call."""
    view = memoryview(data)
    while view:
        taken = fileobj.write(view)
        if taken == 0:
            raise OSError(f"fileobj takes no more, {len(view)} bytes left")
        # Some file-like objects return nothing from a complete write.
        view = view[taken:] if taken is not None else view[:0]
