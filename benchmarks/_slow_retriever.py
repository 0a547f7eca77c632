"""A slow server of ``/retrieve`` in Search-R1's shape: ``python _slow_retriever.py PORT SECONDS``."""

from __future__ import annotations

import asyncio
import json
import sys

_BACKLOG = 4096


async def serve(port: int, seconds: float) -> None:
    """Answer every post after ``seconds``, and anything else at once."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                _, _, length = head.lower().partition("content-length:")
                body = await reader.readexactly(int(length.split("\r\n")[0] or 0))
                if head.startswith("POST"):
                    await asyncio.sleep(seconds)
                    query = json.loads(body)["queries"][0]
                    found = {"document": {"contents": f'"A title"\nA document about {query}.'}, "score": 1.0}
                    answer = json.dumps({"result": [[found]]}).encode()
                else:
                    answer = b"{}"
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", port, backlog=_BACKLOG)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
