"""Images by name: the package's catalogue, then the user's own."""

from __future__ import annotations

from pathlib import Path

from ..errors import ImageError, UnknownImageError
from . import user_images
from .catalogue import Entry, Image, builtin

__all__ = ["DEFAULT_IMAGE", "entry", "everything", "supported"]

#: The image that is meant when no name is given.
DEFAULT_IMAGE = "i386"


def entry(name: str | None) -> Entry:
    """What is known of an image; the case of the name does not matter.

    UnknownImageError (a RuntimeError) if the name is unknown or the path of a
    file; ImageError if it may be in a file of the user that cannot be read.
    """
    known = builtin()
    if name is None:
        import logging  # not at the top: it would double the time this takes to import

        logging.getLogger(__name__).warning("no image named: using %s", DEFAULT_IMAGE)
        return known[DEFAULT_IMAGE]
    if _is_file(name):
        raise UnknownImageError(
            f"{name} is a file: nothing is known about it but its path; give Panda its "
            "arch, mem and expect_prompt together with qcow=, or name it with "
            "`python -m pandalite.qcows add`"
        )
    key = name.lower()
    if key in known:
        return known[key]
    own = user_images.find(key)
    if own is not None:
        return own
    entries, _ = user_images.load_all()
    names = sorted([*known, *entries])
    raise UnknownImageError(
        f"no image is named {name!r}{_close(key, names)}; there are: {', '.join(names)}"
    )


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # no path at all
        return False


def _close(name: str, names: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, names, 2, 0.75)
    return f" (do you mean {' or '.join(near)}?)" if near else ""


def everything() -> tuple[dict[str, Entry], list[ImageError]]:
    """All images by name, and what is wrong with files of the user that cannot be read."""
    own, errors = user_images.load_all()
    return {**own, **builtin()}, errors


def supported() -> dict[str, Image]:
    """The fields of all images by name; files that cannot be read are passed over."""
    entries, errors = everything()
    if errors:
        from ..utils import warn

        for error in errors:
            warn(f"passed over: {error}")
    return {name: found.image for name, found in entries.items()}
