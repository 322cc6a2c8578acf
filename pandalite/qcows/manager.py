"""Find, make and delete guest images by name: PyPANDA's ``Qcows``."""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import ImageError
from . import lookup, roots, store, tiny
from .catalogue import Image
from .lookup import DEFAULT_IMAGE

__all__ = ["DEFAULT_IMAGE", "DownloadError", "Qcows"]


class DownloadError(ImageError, RuntimeError):
    """A file could not be downloaded."""


class Qcows:
    """The guest images by name. All methods are static."""

    @staticmethod
    def get_qcow_info(name: str | None = None) -> Image:
        """The catalogue entry of an image; the case of the name does not matter.

        The places of its files, where they are or will be, are filled in to
        ``extra_args``. UnknownImageError (a RuntimeError) if the name is
        unknown, or is the path of a file.
        """
        entry = lookup.entry(name)
        if entry.kind == "tiny":
            with contextlib.suppress(ImageError):  # not built: get_qcow tells
                return tiny.find_guest(entry.guest).image
        return store.image_at(entry)

    @staticmethod
    def get_qcow(
        name: str | None = None,
        download: bool = True,
        _is_tty: bool = True,
        *,
        libpanda_path: str | os.PathLike[str] | None = None,
    ) -> str:
        """Path of an image's disk.

        The path of an existing file is returned as it is. The disk of a tiny
        guest holds its ``root`` snapshot and is made on first use, which takes
        some seconds. The files of other images are downloaded if one is missing;
        with ``download=False`` that is a MissingImageError (a ValueError).
        """
        if name is not None and Path(name).is_file():
            return name
        entry = lookup.entry(name)
        if entry.kind == "tiny":
            return str(tiny.root_image(entry.guest, libpanda_path))
        return str(store.ensure(entry, download=download, progress=_progress(_is_tty)).disk)

    @staticmethod
    def get_file(
        urls: str | Sequence[str],
        output_path: str | os.PathLike[str],
        sha1hash: str | None = None,
        do_retry: bool = True,
        _is_tty: bool = True,
    ) -> None:
        """Download a file; it appears under its name whole and verified, or not at all.

        Cuts are retried and several addresses tried in any case, so ``do_retry``
        changes nothing. DownloadError (a RuntimeError) if it cannot be done.
        """
        from . import download

        path = Path(output_path).absolute()
        places = [urls] if isinstance(urls, str) else list(urls)
        # One at random, as PyPANDA does, the others in reserve.
        random.shuffle(places)
        file = download.RemoteFile(path.name, tuple(places), sha1=sha1hash)
        with _download_errors():
            download.fetch(file, path.parent, progress=_progress(_is_tty))

    @staticmethod
    def download_qcow(
        image_data: Image,
        output_path: str | os.PathLike[str],
        _is_retry: bool = False,
        _is_tty: bool = True,
    ) -> None:
        """Download an image's disk to a path, and its extra files beside it."""
        if image_data.url is None:
            raise DownloadError("this image has no url: there is nothing to download")
        hashes = image_data.hashes or {}
        urls = [image_data.url, *(image_data.alternate_urls or [])]
        path = Path(output_path).absolute()
        base = image_data.url.rsplit("/", 1)[1]
        Qcows.get_file(urls, path, hashes.get(base) or hashes.get(path.name), _is_tty=_is_tty)
        for name in image_data.extra_files or []:
            places = [f"{url.rsplit('/', 1)[0]}/{name}" for url in urls]
            Qcows.get_file(places, path.with_name(name), hashes.get(name), _is_tty=_is_tty)

    @staticmethod
    def qcow_from_arg(idx: int = 1) -> str:
        """``get_qcow`` for the program's argument number ``idx``, or the default image."""
        return Qcows.get_qcow(sys.argv[idx] if len(sys.argv) > idx else None)

    @staticmethod
    def remove_image(target: str) -> None:
        """Delete what is cached of an image; it is made or fetched again when it is needed.

        Files of the user, and those in ``~/.panda``, are not deleted.
        """
        entry = lookup.entry(target)
        if entry.kind == "tiny":
            tiny.remove_images(entry.guest)
        else:
            roots.remove(f"root-{entry.name}")
            store.remove(entry)


@contextlib.contextmanager
def _download_errors() -> Iterator[None]:
    """Have what the download layer raises be what PyPANDA raises, too."""
    try:
        yield
    except ImageError as error:
        if isinstance(error, RuntimeError):
            raise
        raise DownloadError(str(error)) from error


def _progress(is_tty: bool) -> bool | None:
    """Whether a bar is shown: never where the caller says that there is no terminal."""
    return None if is_tty else False
