"""Find, make and delete guest images by name: PyPANDA's ``Qcows``."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from ..errors import ImageError, UnknownImageError
from . import tiny
from .catalogue import SUPPORTED_IMAGES, Image

__all__ = ["DEFAULT_IMAGE", "Qcows"]

#: The image that is meant when no name is given.
DEFAULT_IMAGE = "i386"


class Qcows:
    """The guest images by name. All methods are static."""

    @staticmethod
    def get_qcow_info(name: str | None = None) -> Image:
        """The catalogue entry of an image; the case of the name does not matter.

        For a tiny guest that is there, the places of its files are filled in
        to ``extra_args``. UnknownImageError (a RuntimeError) if the name is
        unknown, or is the path of a file.
        """
        key = _resolve(name)
        image = SUPPORTED_IMAGES[key]
        if image.url is None and image.arch is not None:
            with contextlib.suppress(ImageError):  # not built: get_qcow tells
                return tiny.find_guest(image.arch).image
        return image

    @staticmethod
    def get_qcow(
        name: str | None = None,
        download: bool = True,
        _is_tty: bool = True,
        *,
        libpanda_path: str | os.PathLike[str] | None = None,
    ) -> str:
        """Path of an image's disk, which holds its ``root`` snapshot.

        The path of an existing file is returned as it is. The disk of a tiny
        guest is made on first use, which takes some seconds; ``download`` is
        for images that come from elsewhere.
        """
        if name is not None and Path(name).is_file():
            return name
        image = SUPPORTED_IMAGES[_resolve(name)]
        assert image.arch is not None
        return str(tiny.root_image(image.arch, libpanda_path))

    @staticmethod
    def qcow_from_arg(idx: int = 1) -> str:
        """``get_qcow`` for the program's argument number ``idx``, or the default image."""
        return Qcows.get_qcow(sys.argv[idx] if len(sys.argv) > idx else None)

    @staticmethod
    def remove_image(target: str) -> None:
        """Delete what is cached of an image; it is made again when it is needed."""
        image = SUPPORTED_IMAGES[_resolve(target)]
        assert image.arch is not None
        tiny.remove_images(image.arch)


def _resolve(name: str | None) -> str:
    """The catalogue's key for a name."""
    if name is None:
        import logging  # not at the top: it would double the time this takes to import

        logging.getLogger(__name__).warning("no image named: using %s", DEFAULT_IMAGE)
        return DEFAULT_IMAGE
    if Path(name).is_file():
        raise UnknownImageError(
            f"{name} is a file: nothing is known about it but its path; give Panda its "
            "arch, mem and expect_prompt together with qcow="
        )
    key = name.lower()
    if key not in SUPPORTED_IMAGES:
        raise UnknownImageError(
            f"no image is named {name!r}; there are: {', '.join(sorted(SUPPORTED_IMAGES))}"
        )
    return key
