"""Stops a program before each of its system calls that leave a mark outside its memory, and asks what to do.

It is seccomp's user notification (https://man7.org/linux/man-pages/man2/seccomp_unotify.2.html): a filter in the
program hands the call to a supervisor, which lets it go on, or kills. Unlike `strace --inject ... when=N`, which
counts every kind of call of every thread apart, it sees one sequence, knows the file, and needs no tool and no
privilege. It imports nothing of dpone: started as a program (`python trap.py FD NAMES -- ARGUMENTS...`) it sets the
trap and becomes the command.

Not seen: stores into mapped memory (SQLite's -shm file, which is no truth of its own) and io_uring.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# name: (number on x86_64, number on aarch64 or None, what the first arguments are). Numbers are in the kernel's
# arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
#   fd: a descriptor; path: a path; at: a descriptor of a folder and a path; open, openat: the same, then flags
_CALLS: dict[str, tuple[int, int | None, str]] = {
    "write": (1, 64, "fd"),
    "pwrite64": (18, 68, "fd"),
    "writev": (20, 66, "fd"),
    "pwritev": (296, 70, "fd"),
    "pwritev2": (328, 287, "fd"),
    "sendfile": (40, 71, "fd"),
    "copy_file_range": (326, 285, "copy"),
    "sendto": (44, 206, "fd"),
    "sendmsg": (46, 211, "fd"),
    "sendmmsg": (307, 269, "fd"),
    "connect": (42, 203, "fd"),
    "fsync": (74, 82, "fd"),
    "fdatasync": (75, 83, "fd"),
    "sync_file_range": (277, 84, "fd"),
    "ftruncate": (77, 46, "fd"),
    "fallocate": (285, 47, "fd"),
    "truncate": (76, 45, "path"),
    "open": (2, None, "open"),
    "openat": (257, 56, "openat"),
    "creat": (85, None, "path"),
    "mkdir": (83, None, "path"),
    "mkdirat": (258, 34, "at"),
    "rmdir": (84, None, "path"),
    "unlink": (87, None, "path"),
    "unlinkat": (263, 35, "at"),
    "rename": (82, None, "path"),
    "renameat": (264, 38, "at"),
    "renameat2": (316, 276, "at"),
    "link": (86, None, "path"),
    "linkat": (265, 37, "at"),
}
MUTATING = tuple(_CALLS)
"""The calls that change a file, a folder or what another process was told."""

# machine: (AUDIT_ARCH of linux/audit.h, number of seccomp(2), column of _CALLS)
_MACHINES = {"x86_64": (0xC000003E, 317, 0), "aarch64": (0xC00000B7, 277, 1)}

_CREATES = os.O_CREAT | os.O_TRUNC
_AT_FDCWD = -100
_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER = 1
_NEW_LISTENER, _WAIT_KILLABLE = 1 << 3, 1 << 5
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_RECEIVE, _SEND, _CONTINUE = 0xC0502100, 0xC0182101, 1
_HAND_OVER = 1000  # the descriptor on which the listener leaves: a number that nobody else uses, let through


class TrapUnavailable(RuntimeError):
    """System calls cannot be trapped on this kernel or machine; the message says why."""


@dataclass(frozen=True, slots=True)
class Calls:
    """Which calls are points: those on files below `below` (None: all, terminals and pipes too), and on sockets."""

    below: Path | None = None
    sockets: bool = True
    names: Sequence[str] = MUTATING


# -- in the program -----------------------------------------------------------------------------------------------


def set_trap(names: Sequence[str], channel: socket.socket) -> None:
    """Trap these calls of this process and its children from now on; the supervisor gets the listener on `channel`.

    Raises TrapUnavailable.
    """
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _MACHINES:
        raise TrapUnavailable(f"system calls are trapped on Linux x86_64 and aarch64, this is {sys.platform} {machine}")
    arch, seccomp, _ = _MACHINES[machine]
    os.dup2(channel.fileno(), _HAND_OVER, inheritable=False)
    channel.close()
    code = _filter(arch, _numbers(names), _numbers(["sendmsg"])["sendmsg"])
    instructions = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    program = Program(len(code) // 8, ctypes.addressof(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)  # the right to filter without being root
    listener = -1
    for flags in (_NEW_LISTENER | _WAIT_KILLABLE, _NEW_LISTENER):  # the first since Linux 5.19
        listener = libc.syscall(seccomp, _SET_MODE_FILTER, flags, ctypes.byref(program))
        if listener >= 0:
            break
    if listener < 0:
        raise TrapUnavailable(f"seccomp(2) with a listener: {os.strerror(ctypes.get_errno())}; it needs Linux 5.5")
    with socket.socket(fileno=_HAND_OVER) as out:
        socket.send_fds(out, [b"."], [listener])
    os.close(listener)


def _numbers(names: Sequence[str]) -> dict[str, int]:
    column = _MACHINES[platform.machine()][2]
    found = {name: _CALLS[name][column] for name in names}
    return {name: number for name, number in found.items() if number is not None}  # type: ignore[misc]


def _filter(arch: int, numbers: dict[str, int], sendmsg: int) -> bytes:
    """The BPF program: notify of the given calls, but for sendmsg on the channel of the trap itself.

    Instructions are (code, jump if true, jump if false, value): https://docs.kernel.org/networking/filter.html
    """
    load, equal, give = 0x20, 0x15, 0x06
    head = [
        (load, 0, 0, 4),  # data.arch
        (equal, 1, 0, arch),
        (give, 0, 0, _ALLOW),
        (load, 0, 0, 0),  # data.nr
        (equal, 0, 4, sendmsg),
        (load, 0, 0, 16),  # the low half of its first argument
        (equal, 0, 1, _HAND_OVER),
        (give, 0, 0, _ALLOW),
        (load, 0, 0, 0),
    ]
    count = len(numbers)
    tests = [(equal, count - place, 0, number) for place, number in enumerate(numbers.values())]
    tail = [(give, 0, 0, _ALLOW), (give, 0, 0, _NOTIFY)]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in [*head, *tests, *tail])


# -- in the supervisor --------------------------------------------------------------------------------------------


def receive(channel: socket.socket) -> int:
    """The listener of a program that set its trap. Raises TrapUnavailable when the program ended without one."""
    _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    if not descriptors:
        raise TrapUnavailable("the program ended before it could set the trap")
    return descriptors[0]


@dataclass
class Supervisor:
    """Answers the trapped calls of one program.

    `seen` are those that count, in their order, as "pwrite64 /path". Before each, `strike` is called with its number,
    from 1; when it returns False the call is never answered, which is for a program that was just killed.
    """

    listener: int
    calls: Calls
    strike: Callable[[int], bool]
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = {number: name for name, number in _numbers(self.calls.names).items()}
        self._kinds = {number: (name, _CALLS[name][2]) for number, name in names.items()}
        self._below = None if self.calls.below is None else os.path.realpath(self.calls.below)
        self._poll = select.poll()
        self._poll.register(self.listener, select.POLLIN)

    def serve(self, seconds: float) -> bool:
        """Answer the call that comes within so many seconds, if one does. False once the program is gone."""
        for _, event in self._poll.poll(seconds * 1000):
            if not event & select.POLLIN:
                return False
            self._answer()
        return True

    def _answer(self) -> None:
        notice = bytearray(80)  # struct seccomp_notif
        try:
            fcntl.ioctl(self.listener, _RECEIVE, notice)
            identity, pid, _, number, _, _, *arguments = struct.unpack("QIIiIQ6Q", notice)
            name, kind = self._kinds[number]
            place = self._place(pid, kind, arguments)
            if place is not None:
                self.seen.append(f"{name} {place}")
                if not self.strike(len(self.seen)):
                    return
            fcntl.ioctl(self.listener, _SEND, struct.pack("QqiI", identity, 0, 0, _CONTINUE))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINTR, errno.ESRCH):  # the caller died before our answer
                raise

    def _place(self, pid: int, kind: str, arguments: list[int]) -> str | None:
        """What the call is about, when it counts."""
        flags = {"open": 1, "openat": 2}.get(kind)
        if flags is not None and not arguments[flags] & _CREATES:
            return None
        if kind in ("fd", "copy"):
            found = _link(f"/proc/{pid}/fd/{ctypes.c_int(arguments[2 if kind == 'copy' else 0]).value}")
        else:
            at = kind in ("at", "openat")
            folder = ctypes.c_int(arguments[0]).value if at else _AT_FDCWD
            path = _text(pid, arguments[1 if at else 0])
            base = "cwd" if folder == _AT_FDCWD else f"fd/{folder}"
            found = os.path.normpath(Path(_link(f"/proc/{pid}/{base}"), path))
        if self._below is None or found == self._below or found.startswith(f"{self._below}{os.sep}"):
            return found
        return "socket" if self.calls.sockets and found.startswith("socket:") else None


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""


def _text(pid: int, address: int) -> str:
    """The path at an address of the program."""
    descriptor = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    try:
        return os.fsdecode(os.pread(descriptor, 4096, address).partition(b"\0")[0])
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    _, number, names, _, *command = sys.argv
    set_trap(names.split(","), socket.socket(fileno=int(number)))
    os.execvp(command[0], command)  # noqa: S606 - the command under test, from the caller
