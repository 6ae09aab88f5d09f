"""Processes that work on tasks; one that dies takes only its task with it.

`concurrent.futures` gives up on all tasks when a process is killed, and does
not say which one it had; the pool of Pebble leaves semaphores behind when it is
killed itself. Processes are spawned: forked ones would share the threads and the
locks of torch.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait

from speechbrain_flowmac.console import one_line

SECONDS_TO_STOP = 5.0
# Read by OpenMP, MKL and OpenBLAS when they load: torch, numpy, scipy
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)


class TaskError(RuntimeError):
    """A task that failed; the message is that of its error, in one line.

    `where` is the traceback of the process; empty if it died."""

    def __init__(self, text, where=""):
        super().__init__(text)
        self.where = where


class Workers:
    """Spawned processes, to be used in a `with` statement.

    They ignore Ctrl-C, which is for whoever started them, and end with that
    process however it ends. What they print goes to stderr.

    Arguments
    ---------
    count : int
        How many; each starts with its first task.
    threads : int
        CPU threads of each.

    Example
    -------
    >>> with Workers(count=1, threads=1) as workers:
    ...     sorted(workers.map(abs, [(-1,), ("a",)]))[0]
    (0, 1)
    """

    def __init__(self, count, threads):
        self.count = count
        self.threads = threads
        self._context = multiprocessing.get_context("spawn")
        self._processes = {}  # by the connection to each

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self._processes.values():
            process.terminate()
        limit = time.monotonic() + SECONDS_TO_STOP
        for connection, process in self._processes.items():
            process.join(max(0.0, limit - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
            connection.close()
        self._processes.clear()

    def map(self, function, tasks):
        """Works on tasks, tuples of arguments, on as many at a time as there are
        processes. The function must be of a module, which the processes import.

        Yields the number of the task, and what the function returned or a
        `TaskError`, in the order in which they end.
        """
        waiting = iter(enumerate(tasks))
        idle, busy = list(self._processes), {}
        while True:
            while len(busy) < self.count:
                number, task = next(waiting, (None, None))
                if number is None:
                    break
                connection = idle.pop() if idle else self._start()
                busy[connection] = number
                with suppress(OSError):  # it died: found out below
                    connection.send((function, task))
            if not busy:
                return
            for connection in wait(list(busy)):
                number = busy.pop(connection)
                try:
                    result = connection.recv()
                    idle.append(connection)
                except (EOFError, OSError):
                    result = self._bury(connection)
                yield number, result

    def _start(self):
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs,))
        with _environment(dict.fromkeys(THREAD_VARIABLES, str(self.threads))):
            process.start()
        theirs.close()
        self._processes[ours] = process
        return ours

    def _bury(self, connection):
        process = self._processes.pop(connection)
        connection.close()
        process.join()
        code = process.exitcode
        if code >= 0:
            return TaskError(f"its process ended with exit code {code}")
        more = " (out of memory?)" if code == -signal.SIGKILL else ""
        return TaskError(f"its process was killed by signal {-code}{more}")


@contextmanager
def _environment(variables):
    """Sets environment variables, which new processes inherit."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(connection):
    """What a process does until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # an exception, so that temporary files are removed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with suppress(EOFError, OSError):
        while True:
            function, task = connection.recv()
            try:
                result = function(*task)
            except Exception as error:
                where = "".join(traceback.format_exception(error))
                result = TaskError(one_line(error), where)
            connection.send(result)


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)
