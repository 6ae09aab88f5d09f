"""What workers do in their tests; apart, because they import it."""

import os
import signal
import sys
import time
from pathlib import Path


def wait_and_tell(seconds, what):
    """Waits, returns an argument and the worker's number."""
    time.sleep(seconds)
    return what, os.getpid()


def end(how):
    """Ends in some way."""
    if how == "raise":
        raise ValueError("two\nlines")
    if how == "exit":
        sys.exit(7)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "strange":
        return lambda: None  # cannot be sent
    return how


def threads_here():
    """As the environment and torch have it."""
    import torch

    return os.environ["MKL_NUM_THREADS"], torch.get_num_threads()


def wait_for_end(process, seconds=60):
    """Waits until a process that is not a child of this one has ended."""
    limit = time.monotonic() + seconds
    while is_running(process):
        assert time.monotonic() < limit
        time.sleep(0.05)


def is_running(process):
    """Whether there is such a process, and it has not ended."""
    try:
        state = Path(f"/proc/{process}/stat").read_text()
        return state.rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class InProcess:
    """Stands for `Workers` where processes are not what is tested."""

    def __init__(self, count, threads):
        pass

    def __enter__(self):
        from speechbrain_flowmac.evaluation import scoring

        # a new process remembers nothing
        scoring._reference.cache_clear()
        scoring._system.cache_clear()
        return self

    def __exit__(self, *_):
        pass

    def map(self, function, tasks):
        """As that of `Workers`, without processes."""
        from speechbrain_flowmac.console import one_line
        from speechbrain_flowmac.evaluation.workers import TaskError

        for number, task in enumerate(tasks):
            try:
                yield number, function(*task)
            except Exception as error:
                yield number, TaskError(one_line(error))
