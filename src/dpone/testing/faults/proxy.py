"""A TCP proxy that breaks connections at the byte it is told to.

    with Proxy(("127.0.0.1", 5432)) as proxy:
        proxy.cut_after(10_000, "down")     # the client gets 10,000 bytes of answers, then a reset
        connect(proxy.address)

Faults can be set at any moment, also while bytes flow, and hold until they are used up, replaced, or cleared.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeVar

T = TypeVar("T")
Direction = Literal["up", "down"]
"""Up is from the client to the server, down is what the server answers."""

_PIECE = 65536
_TICKS = 20  # a slow link passes its bytes in so many pieces a second
_LINGER_RESET = struct.pack("ii", 1, 0)  # close() then sends RST: https://man7.org/linux/man-pages/man7/socket.7.html


@dataclass(slots=True)
class _Limit:
    """What happens to a direction once `left` more bytes have passed. Counts anew, from `size`, up to `times` times."""

    kind: Literal["cut", "stall"]
    size: int
    times: int | None
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.size


class Proxy:
    """Listens on `address` and passes bytes to and from `server` while the `with` block lasts.

    `connections` counts the connections that came, `refused` and `cuts` those that were, `passed` the bytes that were
    passed on in each direction.
    """

    def __init__(self, server: tuple[str, int]) -> None:
        self.server = server
        self.connections = self.refused = self.cuts = 0
        self.passed: dict[Direction, int] = {"up": 0, "down": 0}
        self._guard = threading.Lock()
        self._limits: dict[Direction, _Limit] = {}
        self._refusals = 0
        self._swallow = False
        self._latency = 0.0
        self._rate = 0.0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.settimeout(0)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._loop = asyncio.new_event_loop()
        self._released = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name=f"proxy of {server[0]}:{server[1]}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Reset every connection that is left, and end the thread."""
        self._call(self._end())
        self._thread.join()

    # -- faults ------------------------------------------------------------------------------------------------

    def slow(self, *, latency: float = 0.0, rate: float = 0.0) -> None:
        """Hold back each piece of at most 64 KiB for `latency` seconds, and pass `rate` bytes/s each way (0: all)."""
        self._latency, self._rate = latency, rate

    def cut_after(self, size: int, direction: Direction, *, times: int | None = 1) -> None:
        """Reset the connection on which the `size`-th byte from now passes; that byte still arrives.

        Bytes of all connections count. 0 cuts when the next byte comes, and does not pass it. It strikes `times`
        times, each time counting anew; None is every time.
        """
        self._limit(direction, _Limit("cut", size, times))

    def stall_after(self, size: int, direction: Direction) -> None:
        """After `size` more bytes pass nothing in this direction, on any connection, until `clear`. Nothing is lost."""
        self._limit(direction, _Limit("stall", size, None))

    def refuse(self, count: int) -> None:
        """Reset the next `count` connections as soon as they are there."""
        with self._guard:
            self._refusals = count

    def black_hole(self) -> None:
        """Take new connections and their bytes, and never answer. They stay deaf, also after `clear`."""
        self._swallow = True

    def clear(self) -> None:
        """End every fault. Bytes that were stalled go on."""
        with self._guard:
            self._limits.clear()
            self._refusals = 0
        self._swallow = False
        self.slow()
        self._call(self._release())

    # -- plumbing: the loop's thread ---------------------------------------------------------------------------

    def _limit(self, direction: Direction, limit: _Limit) -> None:
        with self._guard:
            self._limits[direction] = limit
        self._call(self._release())

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _serve(self) -> None:
        with contextlib.closing(self._loop), self._listener:
            accepting = self._loop.create_task(self._accept())
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(accepting)
            self._loop.run_until_complete(asyncio.sleep(0))  # let the one who asked for the end hear of it

    async def _end(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()

    async def _release(self) -> None:
        """Wake what is stalled, to look at the limits again."""
        self._released.set()
        self._released = asyncio.Event()

    async def _accept(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                client, _ = await self._loop.sock_accept(self._listener)
                client.settimeout(0)
                self.connections += 1
                with self._guard:
                    refused = self._refusals > 0
                    self._refusals -= refused
                if refused:
                    self.refused += 1
                    _reset(client)
                elif self._swallow:
                    group.create_task(self._swallowed(client))
                else:
                    group.create_task(self._connection(client))

    async def _swallowed(self, client: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError):
                while await self._loop.sock_recv(client, _PIECE):
                    pass
        finally:
            _reset(client)

    async def _connection(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_INET6 if ":" in self.server[0] else socket.AF_INET, socket.SOCK_STREAM)
        server.settimeout(0)
        try:
            await self._loop.sock_connect(server, self.server)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(client, server, "up"))
                group.create_task(self._pump(server, client, "down"))
        except* (OSError, _Cut):
            pass  # one end is gone: so is the other
        else:
            client.close()
            server.close()
        finally:
            _reset(client)
            _reset(server)

    async def _pump(self, source: socket.socket, sink: socket.socket, direction: Direction) -> None:
        """Pass bytes on until the source has no more. Raises _Cut where a cut is due."""
        while piece := await self._loop.sock_recv(source, self._piece()):
            if self._latency:
                await asyncio.sleep(self._latency)
            if self._rate:
                await asyncio.sleep(len(piece) / self._rate)
            while piece:
                released = self._released  # before the limits are looked at: who lifts them then wakes us
                size, limit = self._allowed(len(piece), direction)
                await self._loop.sock_sendall(sink, piece[:size])
                piece = piece[size:]
                if limit == "cut":
                    while _unsent(sink):  # noqa: ASYNC110 - the system tells nobody; a reset takes it along
                        await asyncio.sleep(0.001)
                    self.cuts += 1
                    raise _Cut
                if limit == "stall":
                    await released.wait()
        sink.shutdown(socket.SHUT_WR)

    def _piece(self) -> int:
        return min(_PIECE, max(1, int(self._rate / _TICKS))) if self._rate else _PIECE

    def _allowed(self, size: int, direction: Direction) -> tuple[int, str]:
        """How many of so many bytes may pass now, and what is due after them."""
        with self._guard:
            limit = self._limits.get(direction)
            passing = size if limit is None else min(size, limit.left)
            self.passed[direction] += passing
            if limit is None:
                return passing, ""
            limit.left -= passing
            if limit.left:
                return passing, ""
            if limit.kind == "cut":
                limit.left = limit.size
                if limit.times is not None:
                    limit.times -= 1
                    if limit.times == 0:
                        del self._limits[direction]
            return passing, limit.kind


class _Cut(Exception):
    """The connection is to be reset here."""


def _reset(end: socket.socket) -> None:
    """Close with RST. Safe on a closed socket."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    end.close()


def _unsent(end: socket.socket) -> int:
    """Bytes not yet confirmed by the other end's system: SIOCOUTQ in https://man7.org/linux/man-pages/man7/tcp.7.html."""
    found: int = struct.unpack("i", fcntl.ioctl(end.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]
    return found
