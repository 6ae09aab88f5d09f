"""Fixtures of all tests, and the guard that keeps them offline."""

import ipaddress
import socket

import pytest
import torch
from corpus import make_libritts
from speechbrain.utils.importutils import LazyModule

# Models here are tiny: threads would only wait for each other
torch.set_num_threads(1)


def _lazy_file(self, name, found=LazyModule.__getattr__):
    """Hypothesis asks every module for its file; a lazy one has none yet."""
    if name == "__file__" and self.lazy_module is None:
        raise AttributeError(name)
    return found(self, name)


LazyModule.__getattr__ = _lazy_file


def pytest_addoption(parser):
    """Add ``--device``, as SpeechBrain's own tests have it."""
    parser.addoption("--device", action="store", default="cpu")


@pytest.fixture(scope="session")
def device(request):
    """Device that the tests run on, a string such as ``cpu`` or ``cuda:0``."""
    return request.config.getoption("--device")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Folder of a small synthetic corpus in the layout of LibriTTS."""
    return make_libritts(tmp_path_factory.mktemp("LibriTTS"))


class NetworkUsedError(AssertionError):
    """A test tried to reach another machine."""


def _is_local(address):
    """Whether a socket address is this machine."""
    if not isinstance(address, tuple):
        return True  # a Unix socket
    host = address[0]
    if isinstance(host, bytes):
        host = host.decode()
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True, scope="session")
def offline():
    """Make every connection or name look-up beyond loopback an error."""

    def guarded(function, address_of):
        def call(*args, **kwargs):
            address = address_of(*args)
            if not _is_local(address):
                raise NetworkUsedError(f"a test tried to reach {address}")
            return function(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            method = getattr(socket.socket, name)
            patch.setattr(socket.socket, name, guarded(method, lambda _, a: a))
        patch.setattr(
            socket,
            "getaddrinfo",
            guarded(socket.getaddrinfo, lambda host, *_: (host or "",)),
        )
        yield
