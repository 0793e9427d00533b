"""A small raw Modbus TCP server in a thread, for answers that no decent server gives: short, wrong, late or none."""

from __future__ import annotations

import socketserver
import struct
import threading
from collections.abc import Callable, Mapping
from typing import Any

Answer = Callable[[int, int, int, int], bytes | None]  # unit, function, address, count -> PDU, or None for silence


def registers_pdu(function: int, words: list[int]) -> bytes:
    """The PDU of a register answer."""
    return struct.pack(">BB", function, 2 * len(words)) + struct.pack(f">{len(words)}H", *words)


def image_answer(image: Mapping[int, Mapping[tuple[int, int], int]], gaps: int | None = None) -> Answer:
    """Answers from {unit: {(function, address): word}}; a unit that is not there is silent.

    An address that is not there is `gaps`, or exception 02 where that is None.
    """

    def answer(unit: int, function: int, address: int, count: int) -> bytes | None:
        if unit not in image:
            return None
        words = [image[unit].get((function, address + i), gaps) for i in range(count)]
        if any(word is None for word in words):
            return struct.pack(">BB", function | 0x80, 2)
        if function <= 2:
            n_bytes = (count + 7) // 8
            bits = sum((word or 0) << i for i, word in enumerate(words))
            return struct.pack(">BB", function, n_bytes) + bits.to_bytes(n_bytes, "little")
        return registers_pdu(function, [word or 0 for word in words])

    return answer


class ModbusServer:
    """On 127.0.0.1; `answer` may be changed while it runs. `requests` holds (unit, function, address, count)."""

    host = "127.0.0.1"

    def __init__(self, answer: Answer, port: int = 0) -> None:
        self.answer = answer
        self.requests: list[tuple[int, int, int, int]] = []
        self.raw = b""  # every byte that arrived
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                outer.sockets.append(self.request)
                while header := self._exactly(7):
                    tid, _, length, unit = struct.unpack(">HHHB", header)
                    pdu = self._exactly(length - 1)
                    outer.raw += header + pdu
                    function, address, count = struct.unpack(">BHH", pdu[:5])
                    outer.requests.append((unit, function, address, count))
                    reply = outer.answer(unit, function, address, count)
                    if reply is not None:
                        self.request.sendall(struct.pack(">HHHB", tid, 0, len(reply) + 1, unit) + reply)

            def _exactly(self, n: int) -> bytes:
                data = b""
                while len(data) < n:
                    try:
                        more = self.request.recv(n - len(data))
                    except OSError:
                        return b""
                    if not more:
                        return b""
                    data += more
                return data

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self.sockets: list[Any] = []
        self._server = Server((self.host, port), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        """Stop listening and cut every connection."""
        self._server.shutdown()
        self._server.server_close()
        for connection in self.sockets:
            connection.close()

    def __enter__(self) -> ModbusServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
