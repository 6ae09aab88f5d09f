"""Processes that work on tasks; one that dies takes only its task with it.

`concurrent.futures` gives up on all tasks when a process is killed; Pebble's
pool starts another one. Processes are spawned: forked ones would share the
threads and the locks of torch.
"""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from concurrent.futures import as_completed

from pebble import ProcessExpired, ProcessPool

from speechbrain_flowmac.console import one_line

# Read by OpenMP, MKL and OpenBLAS when they load: torch, numpy, scipy
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)


class TaskError(RuntimeError):
    """A task that failed; the message is that of its error, in one line.

    `where` is the traceback of the process; empty if it died.
    """

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
        How many.
    threads : int
        CPU threads of each.

    Example
    -------
    >>> with Workers(count=1, threads=1) as workers:
    ...     sorted(workers.map(abs, [(-1,), ("a",)]))[0]
    (0, 1)
    """

    def __init__(self, count, threads):
        variables = dict.fromkeys(THREAD_VARIABLES, str(threads))
        self._pool = ProcessPool(
            count,
            initializer=_begin,
            initargs=(variables,),
            context=multiprocessing.get_context("spawn"),
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._pool.stop()
        self._pool.join()

    def map(self, function, tasks):
        """Works on tasks, on as many at a time as there are processes.

        Arguments
        ---------
        function : callable
            Of a module, so that the processes can import it.
        tasks : iterable of tuple
            Arguments of each call.

        Yields
        ------
        tuple
            The number of the task, and what the function returned or a
            `TaskError`; in the order in which they end.
        """
        numbers = {
            self._pool.schedule(_call, (function, task)): number
            for number, task in enumerate(tasks)
        }
        for future in as_completed(numbers):
            try:
                result = future.result()
            except ProcessExpired as error:
                result = TaskError(_ending(error.exitcode))
            except Exception as error:  # of the pool: what cannot be sent
                result = TaskError(one_line(error))
            yield numbers.pop(future), result


def _ending(code):
    if code >= 0:
        return f"its process ended with exit code {code}"
    more = " (out of memory?)" if code == -signal.SIGKILL else ""
    return f"its process was killed by signal {-code}{more}"


def _begin(variables):
    """What a process does first, before anything large is imported."""
    os.environ.update(variables)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # an exception, so that temporary files are removed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


def _call(function, task):
    try:
        return function(*task)
    except SystemExit as error:  # the pool would take it for a result
        os._exit(error.code)
    except Exception as error:
        where = "".join(traceback.format_exception(error))
        return TaskError(one_line(error), where)


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)
