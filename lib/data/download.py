"""Downloads by torchvision's own classes, which know the addresses and check what comes."""

import errno
import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from http.client import HTTPException
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

from lib.data.store import DataMissing, cache_dir, cache_error, make_cache_folder
from lib.data.torchvision_import import import_torchvision

TIMEOUT = 10.0  # seconds without an answer
CANNOT_WRITE = {errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EFBIG}


def downloads_dir() -> Path:
    """Where downloaded archives are kept, in torchvision's folders. It may not exist yet."""
    return cache_dir() / "downloads"


def download_files(data_set: str, files: Sequence[str], fetch: Callable[[ModuleType, str], Any]) -> None:
    """Download a data set and keep only `files`, paths below torchvision's root, in `downloads_dir()`. One try.

    fetch(datasets, root): makes torchvision's class, of the module `torchvision.datasets`, download into `root`.
    Raises DataMissing if that fails, DataError if the cache folder cannot be written.
    """
    datasets = import_torchvision().datasets
    folder = make_cache_folder(downloads_dir())
    timeout = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(TIMEOUT)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as root:
            with redirect_stdout(StringIO()):  # it prints each mirror that failed
                fetch(datasets, root)
            for file in files:
                make_cache_folder((folder / file).parent)
                os.replace(Path(root, file), folder / file)
    except (OSError, HTTPException, RuntimeError) as error:
        if getattr(error, "errno", None) in CANNOT_WRITE:
            raise cache_error(folder, error) from error
        raise DataMissing(
            f"{data_set} is not here and could not be downloaded ({error}). Try again with a network, "
            f"or set BOOK_DATA_DIR to a folder that holds {' and '.join(files)}."
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)
