"""A Python session: one process that runs cell after cell in the same namespace.

Two pipes connect the session's process with its driver. A cell goes in as eight bytes of length and its source;
one byte comes back when it is done, 1 if it raised. The program controls the session's process and can forge that
byte, so that it is worth no more than an exit code.
"""

from __future__ import annotations

import contextlib
import linecache
import os
import select
import struct
import sys
import time
from typing import Any

from envgym_sandboxes.inside.program import exit_code, flush, fresh_main, leave
from envgym_sandboxes.inside.watch import Stream, output_pipe
from envgym_sandboxes.inside.wire import FLOOD

__all__ = ["CELLS", "DONE", "Session", "open_pipes", "run_cells"]

CELLS, DONE = 3, 4
"""Descriptors of the two pipes in the session's process."""
_LENGTH = struct.Struct("<Q")
_SPLICE_NONBLOCK = 2


def open_pipes() -> tuple[list[int], list[int]]:
    """Make the pipes of a new session.

    Returns:
        the driver's ends, which do not block, in the order of ``Session``: cells, done, out, err; and those of the
        session's process in the order of its descriptors from 1 on: out, err, ``CELLS``, ``DONE``.
    """
    (cells_read, cells), (done, done_write) = os.pipe(), os.pipe()
    (out, out_write), (err, err_write) = output_pipe(), output_pipe()
    ours = [cells, done, out, err]
    for descriptor in ours:
        os.set_blocking(descriptor, False)
    return ours, [out_write, err_write, cells_read, done_write]


class Session:
    """The driver's end: feeds one cell at a time and watches the process.

    Args:
        process: a descriptor of the session's process.
        cells: where cells are written to.
        done: where the byte comes from.
        out: where the process's output comes from.
        err: where its error output comes from.

    No descriptor blocks, because the session's process can open the other ends of its pipes too, and fill or drain
    them at any time.
    """

    def __init__(self, process: int, cells: int, done: int, out: int, err: int) -> None:
        self.process = process
        self.cells = cells
        self.done = done
        self.outputs = (out, err)

    def run(self, body: int, size: int, cap: int, end: float, owner: int | None) -> tuple[str, list[Stream]]:
        """Run the cell in the file ``body``.

        Args:
            body: descriptor of a memory file, at its beginning.
            size: its length in bytes.
            cap: bytes kept of each output stream.
            end: deadline, on ``time.monotonic``.
            owner: a descriptor that hangs up when nobody waits for the result any more.

        Returns:
            ``"done"``, ``"raised"``, ``"ended"`` (the process), ``"late"``, ``"flood"`` or ``"abandoned"``, and
            the streams.
        """
        streams = [Stream(descriptor, cap) for descriptor in self.outputs]
        poller = select.poll()
        for stream in streams:
            poller.register(stream.descriptor, select.POLLIN)
        poller.register(self.done, select.POLLIN)
        poller.register(self.process, select.POLLIN)
        poller.register(self.cells, select.POLLOUT)
        if owner is not None:
            poller.register(owner, 0)  # no events asked for, so that poll reports only a hang-up
        state = "ended"
        with contextlib.suppress(OSError):  # the process closed, filled or drained its pipes: end it
            os.write(self.cells, _LENGTH.pack(size))
            state = self._watch(poller, streams, body, end, owner)
        for stream in streams:
            stream.drain(2 * FLOOD * cap)
        return state, streams

    def _watch(self, poller: Any, streams: list[Stream], body: int, end: float, owner: int | None) -> str:
        by_descriptor = {stream.descriptor: stream for stream in streams}
        while (left := end - time.monotonic()) > 0:
            for descriptor, _ in poller.poll(left * 1000 + 1):
                if descriptor == owner:
                    return "abandoned"
                if descriptor == self.process:
                    return "ended"
                if descriptor == self.done:
                    answer = os.read(self.done, 1)
                    return "ended" if not answer else "raised" if answer[0] else "done"
                if descriptor == self.cells:
                    if not os.splice(body, self.cells, 65536, flags=_SPLICE_NONBLOCK):
                        poller.unregister(self.cells)
                    continue
                stream = by_descriptor[descriptor]
                if not stream.absorb():
                    poller.unregister(descriptor)
                if stream.total > FLOOD * stream.cap:
                    return "flood"
        return "late"

    def close(self) -> None:
        """Close every descriptor."""
        for descriptor in (self.process, self.cells, self.done, *self.outputs):
            os.close(descriptor)


def run_cells() -> None:
    """Run cells until their pipe ends; this is the session's process."""
    names = fresh_main().__dict__
    number = 0
    with open(CELLS, "rb") as cells:
        while head := cells.read(_LENGTH.size):
            number += 1
            raised = _run_cell(cells.read(*_LENGTH.unpack(head)), f"cell {number}", names)
            flush()
            os.write(DONE, bytes([raised]))
    leave(0)


def _run_cell(source: bytes, name: str, names: dict[str, Any]) -> bool:
    """Run one cell and print the value of its last expression; return whether it raised."""
    import ast  # here, because otherwise every fork of the runner would carry it

    text = source.decode("utf-8", "replace")
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    try:
        tree = ast.parse(source, name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec", dont_inherit=True), names)  # noqa: S102 - in a sandbox
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), name, "eval", dont_inherit=True), names)  # noqa: S307
            if value is not None:
                print(repr(value))
    except SystemExit as request:
        leave(exit_code(request.code))
    except BaseException as error:  # noqa: BLE001 - a session outlives what its cells raise
        trace = error.__traceback__.tb_next if error.__traceback__ else None
        with contextlib.suppress(Exception):
            sys.excepthook(type(error), error.with_traceback(trace), trace)
        return True
    return False
