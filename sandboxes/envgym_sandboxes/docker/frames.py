"""Docker's framing of an attached stream without a terminal: eight bytes of header, then the payload."""

from __future__ import annotations

import struct

__all__ = ["Frames"]

_HEADER = struct.Struct(">BxxxI")
_STDERR = 2
_SAID_BYTES = 4096


class Frames:
    """Separates the runner's replies on standard output from its complaints on standard error."""

    def __init__(self) -> None:
        self._header = b""
        self._left = 0
        self._kind = 0
        self.said = b""
        """End of standard error; empty unless the runner itself failed."""

    def __call__(self, data: bytes) -> bytes:
        """Take the next bytes of the stream, cut anywhere, and return their payload of standard output."""
        payload = bytearray()
        view = memoryview(data)
        while view:
            if not self._left:
                need = _HEADER.size - len(self._header)
                self._header += bytes(view[:need])
                view = view[need:]
                if len(self._header) == _HEADER.size:
                    self._kind, self._left = _HEADER.unpack(self._header)
                    self._header = b""
                continue
            part = view[: self._left]
            view = view[len(part) :]
            self._left -= len(part)
            if self._kind == _STDERR:
                self.said = (self.said + bytes(part))[-_SAID_BYTES:]
            else:
                payload += part
        return bytes(payload)
