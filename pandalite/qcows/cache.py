"""The cache directory: where it is, locks between processes, whole files only.

Nothing appears under its final name before it is complete: files are written
under a temporary name in the same directory and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import ImageError, TimeoutExpired

__all__ = [
    "atomic_file",
    "check_space",
    "clone",
    "file_digest",
    "file_sha256",
    "hold",
    "home",
    "images_dir",
    "is_held",
    "lock",
    "make_directory",
    "new_disk",
    "private_copy",
    "remember_digest",
    "remove_leftovers",
]

_TEMPORARY = ".part"


def home() -> Path:
    """The cache directory, which need not exist.

    ``PANDALITE_HOME``, else ``$XDG_CACHE_HOME/pandalite``, else
    ``~/.cache/pandalite``.
    """
    given = os.environ.get("PANDALITE_HOME")
    if given:
        return Path(given).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    # The XDG specification says to ignore a relative path.
    root = Path(base) if base and Path(base).is_absolute() else Path("~/.cache").expanduser()
    return root / "pandalite"


def images_dir() -> Path:
    """Where finished guest images are kept."""
    return home() / "images"


def make_directory(path: Path) -> Path:
    """Create a directory of the cache; ImageError if that is not possible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(
            f"cannot create the cache directory {path}: {error.strerror}; "
            "set PANDALITE_HOME to a directory that can be written"
        ) from error
    return path


@contextlib.contextmanager
def lock(path: Path, timeout: float) -> Iterator[None]:
    """Hold an exclusive lock between processes and threads, by a lock file.

    The lock ends with the process that holds it, however that ends. Raises
    TimeoutExpired when another process holds it for longer than ``timeout``
    seconds, and ImageError when the lock file cannot be made.
    """
    make_directory(path.parent)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise ImageError(
            f"cannot write to the cache ({path}: {error.strerror}); "
            "set PANDALITE_HOME to a directory that can be written"
        ) from error
    try:
        deadline = time.monotonic() + timeout
        pause = 0.005
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EINTR):
                    raise ImageError(
                        f"the file system of {path} has no file locks ({error.strerror}); "
                        "set PANDALITE_HOME to a directory on a local disk"
                    ) from error
                if time.monotonic() >= deadline:
                    raise TimeoutExpired(
                        f"another process has been holding {path} for {timeout:.0f} s; "
                        "end it, or wait and try again"
                    ) from None
            time.sleep(pause)
            pause = min(pause * 2, 0.1)
        yield
    finally:
        os.close(handle)  # which ends the lock


@contextlib.contextmanager
def atomic_file(final: Path) -> Iterator[Path]:
    """Give a temporary path beside ``final``; rename it there when all went well.

    The body writes the file at the path it is given. On an exception the file
    is removed and ``final`` stays as it was.
    """
    make_directory(final.parent)
    partial = final.with_name(f".{final.name}.{os.getpid()}.{time.monotonic_ns():x}{_TEMPORARY}")
    try:
        yield partial
        descriptor = os.open(partial, os.O_RDONLY)
        try:
            # Without this a crash of the host can leave an empty file under
            # the final name on some file systems.
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        partial.replace(final)
    except OSError as error:
        raise ImageError(f"cannot write {final}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def remove_leftovers(directory: Path) -> None:
    """Delete temporary files of writers that were killed; call it under the lock."""
    for path in directory.glob(f".*{_TEMPORARY}"):
        with contextlib.suppress(OSError):
            path.unlink()


def file_sha256(path: Path, *, again: bool = False) -> str:
    """SHA-256 of a file, in hexadecimal.

    Remembered in the cache by size, time and inode, so that big files are not
    read again at each start. A cache that cannot be written is no error.
    ``again`` reads the file in any case.
    """
    return file_digest(path, "sha256", again=again)


def file_digest(path: Path, algorithm: str, *, again: bool = False) -> str:
    """Like :func:`file_sha256`, with another algorithm of :mod:`hashlib`."""
    import hashlib

    total = hashlib.new(algorithm)
    memo = _memo(path, algorithm)
    stamp = _stamp(path)
    if not again:
        with contextlib.suppress(OSError, ValueError):
            known, digest = memo.read_text().rsplit(" ", 1)
            if known == stamp and len(digest) == 2 * total.digest_size:
                return digest
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            total.update(chunk)
    _remember(memo, stamp, total.hexdigest())
    return total.hexdigest()


def remember_digest(path: Path, algorithm: str, digest: str) -> None:
    """Note a digest that was computed while the file was written."""
    _remember(_memo(path, algorithm), _stamp(path), digest)


def _memo(path: Path, algorithm: str) -> Path:
    import hashlib

    name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:32]
    return home() / "digests" / (name if algorithm == "sha256" else f"{name}.{algorithm}")


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def _remember(memo: Path, stamp: str, digest: str) -> None:
    with contextlib.suppress(ImageError), atomic_file(memo) as partial:
        partial.write_text(f"{stamp} {digest}")


def check_space(directory: Path, needed: int, what: str) -> None:
    """ImageError if a directory's file system has no room for ``needed`` bytes."""
    try:
        status = os.statvfs(directory)
    except OSError:
        return
    free = status.f_bavail * status.f_frsize
    if free < needed:
        raise ImageError(
            f"there is no room for {what}: {needed / 1e6:.0f} MB are needed in {directory}, "
            f"{free / 1e6:.0f} MB are free; make room (python -m pandalite.qcows gc), or set "
            "PANDALITE_HOME to a directory on a bigger disk"
        )


def clone(source: Path, target: Path) -> bool:
    """Copy a file by sharing its blocks; False where the file system cannot.

    ``target`` is replaced; it is empty after a failure.
    """
    ficlone = 0x40049409
    with source.open("rb") as file, target.open("wb") as out:
        try:
            fcntl.ioctl(out.fileno(), ficlone, file.fileno())
        except OSError:
            return False
    return True


def hold(directory: Path) -> int | None:
    """Mark a directory of the cache as in use by this process; returns a descriptor.

    The mark lasts until the descriptor is closed, or the process ends. It works
    in a cache that is read-only. None if the directory cannot be opened.
    """
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for _ in range(100):  # somebody may be asking whether it is held
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                break
            time.sleep(0.01)
        return handle
    return None


def is_held(path: Path) -> bool:
    """Whether any process holds a :func:`lock` file, or a directory with :func:`hold`."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def new_disk(image: Path, where: Path) -> Path:
    """Make an empty file in a directory, for the disk of one run of an image."""
    import tempfile

    try:
        handle, name = tempfile.mkstemp(".qcow2", f"{image.stem}-{os.getpid()}-", where)
    except OSError as error:
        raise ImageError(f"cannot write to {where}: {error.strerror}") from error
    os.close(handle)
    return Path(name)


def private_copy(source: Path, directory: Path | None = None) -> Path:
    """Copy an image so that one run can change it; returns the copy's path.

    QEMU locks an image it writes to, so processes that run the same guest at
    the same time need a copy each. Where the file system can share the blocks
    this takes no time and no space. The caller deletes the copy; it may do so
    as soon as QEMU has opened it. Default directory: the cache's ``run``.
    """
    import shutil

    copy = new_disk(source, make_directory(home() / "run" if directory is None else directory))
    try:
        with copy.open("wb") as out, source.open("rb") as file:
            try:
                left = os.fstat(file.fileno()).st_size
                while left > 0:
                    done = os.copy_file_range(file.fileno(), out.fileno(), left)
                    if done == 0:
                        break
                    left -= done
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
                file.seek(0)
                out.seek(0)
                shutil.copyfileobj(file, out, 1 << 20)
    except BaseException as error:
        with contextlib.suppress(OSError):
            copy.unlink()
        if isinstance(error, OSError):
            raise ImageError(f"cannot copy {source} to {copy}: {error.strerror}") from error
        raise
    return copy
