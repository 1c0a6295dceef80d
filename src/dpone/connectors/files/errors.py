"""What the operating system and the file libraries raise, as errors of dpone: one table."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import Literal

import pyarrow as pa

from dpone.errors import (
    DataError,
    DponeError,
    PermissionDenied,
    ResourceError,
    SchemaError,
    SinkUnavailable,
    SourceUnavailable,
)

_BY_ERRNO: dict[int, tuple[type[DponeError], str]] = {
    errno.ENOENT: (SchemaError, "check the path; a relative one starts at the folder of the manifest"),
    errno.ENOTDIR: (SchemaError, "check the path"),
    errno.EISDIR: (SchemaError, "name a file, or set the path to the folder"),
    errno.ENAMETOOLONG: (SchemaError, "give a shorter name"),
    errno.EACCES: (PermissionDenied, "give this user the right to read (source) or write (sink) it"),
    errno.EPERM: (PermissionDenied, "give this user the right to read (source) or write (sink) it"),
    errno.EROFS: (PermissionDenied, "the file system is mounted read-only; choose another path"),
    errno.ENOSPC: (ResourceError, "free disk space; staged slices are kept, the rerun continues"),
    errno.EDQUOT: (ResourceError, "raise the disk quota; staged slices are kept, the rerun continues"),
    errno.EMFILE: (ResourceError, "raise the limit of open files (ulimit -n)"),
    errno.ENFILE: (ResourceError, "raise the system's limit of open files"),
    errno.ENOMEM: (ResourceError, "give the process more memory"),
}


@contextlib.contextmanager
def mapped(act: str, side: Literal["source", "sink"]) -> Iterator[None]:
    """Map exceptions of a block that does `act`. Texts of the libraries may quote values and are not passed on."""
    try:
        yield
    except DponeError:
        raise
    except (pa.ArrowMemoryError, MemoryError) as error:
        raise ResourceError(f"{act}: out of memory", remedy="give the process more memory") from error
    except OSError as error:
        found = _BY_ERRNO.get(error.errno or 0)
        if found is not None:
            kind, remedy = found
            raise kind(f"{act}: {errno.errorcode[error.errno or 0]}", remedy=remedy) from error
        if error.errno:
            unavailable = SourceUnavailable if side == "source" else SinkUnavailable
            code = errno.errorcode.get(error.errno, str(error.errno))
            raise unavailable(f"{act}: {code}", remedy="check the disk", retryable=True) from error
        raise DataError(f"{act}: the file is cut off or damaged", remedy="write the file again") from error
    except pa.ArrowException as error:
        raise DataError(
            f"{act}: the file is damaged, or is not in the format its name or `format` says",
            remedy="check the file and the setting format",
        ) from error
