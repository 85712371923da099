"""Tiny image folders, made anew for every test that asks for one."""

import errno
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from shapes import SHAPES, draw_shape, write_classes

MakeFolder = Callable[..., Path]

HERE = {"localhost", "127.0.0.1", "::1", "0.0.0.0", socket.gethostname(), None, ""}
"""This machine, to which processes of a test may talk."""


@pytest.fixture
def class_folder(tmp_path: Path) -> MakeFolder:
    """Makes a folder of class folders: ``class_folder(per_class=10)``."""

    def make(per_class: int = 10, name: str = "shapes") -> Path:
        return write_classes(tmp_path / name, per_class)

    return make


@pytest.fixture
def split_folder(tmp_path: Path) -> MakeFolder:
    """Makes a folder of split folders with classes inside: ``split_folder(train=6, val=2, test=2)``, per class."""

    def make(name: str = "split_shapes", **per_class: int) -> Path:
        start = 0
        for split, count in (per_class or {"train": 6, "val": 2, "test": 2}).items():
            write_classes(tmp_path / name / split, count, start)
            start += count
        return tmp_path / name

    return make


@pytest.fixture
def flat_folder(tmp_path: Path) -> MakeFolder:
    """Makes a folder of images without labels: ``flat_folder(count=20)``."""

    def make(count: int = 20, name: str = "flat_shapes") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for number in range(count):
            Image.fromarray(draw_shape(SHAPES[number % len(SHAPES)], number)).save(folder / f"{number:03d}.png")
        return folder

    return make


@pytest.fixture(autouse=True, scope="session")
def refused_network() -> Iterator[list[str]]:
    """Refuses the network, as on a cluster's nodes; lists what asked for it."""
    asked: list[str] = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def connect_here(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in HERE:
            asked.append(f"connect to {address}")
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        connect(self, address)

    def look_up_here(host: Any, *arguments: Any, **settings: Any) -> Any:
        if host not in HERE:
            asked.append(f"look up {host}")
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return look_up(host, *arguments, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_here)
        patch.setattr(socket, "getaddrinfo", look_up_here)
        yield asked


@pytest.fixture(autouse=True)
def no_network(refused_network: list[str]) -> Iterator[list[str]]:
    """Fails a test whose code asked for the network, even if it went on without; a test that means it empties the list."""
    yield refused_network
    asked = list(refused_network)
    refused_network.clear()
    assert not asked, "the code asked for the network"
