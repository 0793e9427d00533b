"""A Modbus server that we did not write: libmodbus 3.1 (C, LGPL) through ctypes, on TCP or on a pseudo-terminal.

What our source reads from it cannot be right only because both ends share a mistake.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import threading
from collections.abc import Mapping
from ctypes import POINTER, c_char_p, c_int, c_uint8, c_uint16, c_void_p
from types import TracebackType
from typing import Any, ClassVar, Self

import pytest

from simulator.serve_modbus import PtyPair

MAX_ADU_BYTES = 260
Words = Mapping[tuple[int, int], int]  # (function, wire address) -> word or bit, as registers.encode gives them


class Tables(ctypes.Structure):
    """modbus_mapping_t of modbus.h: the four tables, each with its first address."""

    _fields_: ClassVar[Any] = [
        *((name, c_int) for table in ("bits", "input_bits", "input_registers", "registers")
          for name in (f"nb_{table}", f"start_{table}")),
        ("tab_bits", POINTER(c_uint8)),
        ("tab_input_bits", POINTER(c_uint8)),
        ("tab_input_registers", POINTER(c_uint16)),
        ("tab_registers", POINTER(c_uint16)),
    ]  # fmt: skip


TABLE = {1: "bits", 2: "input_bits", 3: "registers", 4: "input_registers"}


def library() -> ctypes.CDLL:
    """libmodbus.so.5 with the signatures that are used here; the test fails without it."""
    try:
        found = ctypes.CDLL("libmodbus.so.5", use_errno=True)
    except OSError:
        pytest.fail("this test needs an independent Modbus server: apt-get install libmodbus5")
    for name, result, *arguments in (
        ("modbus_new_tcp", c_void_p, c_char_p, c_int),
        ("modbus_new_rtu", c_void_p, c_char_p, c_int, ctypes.c_char, c_int, c_int),
        ("modbus_mapping_new_start_address", POINTER(Tables), *[ctypes.c_uint] * 8),
        ("modbus_mapping_free", None, POINTER(Tables)),
        ("modbus_set_slave", c_int, c_void_p, c_int),
        ("modbus_set_socket", c_int, c_void_p, c_int),
        ("modbus_receive", c_int, c_void_p, c_char_p),
        ("modbus_reply", c_int, c_void_p, c_char_p, c_int, POINTER(Tables)),
        ("modbus_free", None, c_void_p),
    ):
        getattr(found, name).restype = result
        getattr(found, name).argtypes = arguments
    return found


class _Libmodbus:
    """A thread that lets libmodbus answer on file descriptors of ours.

    Args:
        words: what it holds; each table reaches from its lowest to its highest address, and is 0 where nothing was said.
        unit_id: of a serial line; by TCP, libmodbus answers for every unit.
    """

    def __init__(self, words: Words, unit_id: int = 1) -> None:
        self._words = dict(words)
        self._unit_id = unit_id
        self.n_requests = 0

    def set(self, words: Words) -> None:
        """Other words, at addresses that were there from the start."""
        for (function, address), word in words.items():
            first, table = self._tables[function]
            table[address - first] = word

    def __enter__(self) -> Self:
        self._library = library()
        self._mapping = self._new_mapping()
        self.set(self._words)
        self._stop_fd, self._stopper_fd = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="libmodbus", daemon=True)
        self._open()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.write(self._stopper_fd, b"x")
        self._thread.join(5.0)
        self._close()
        self._library.modbus_mapping_free(self._mapping)
        os.close(self._stop_fd)
        os.close(self._stopper_fd)

    def _new_mapping(self) -> Any:
        spans = []
        for function in TABLE:
            held = [address for f, address in self._words if f == function]
            spans.append((min(held), max(held) + 1 - min(held)) if held else (0, 0))
        bits, input_bits, registers, input_registers = spans
        mapping = self._library.modbus_mapping_new_start_address(*bits, *input_bits, *registers, *input_registers)
        self._tables = {
            function: (getattr(mapping.contents, f"start_{name}"), getattr(mapping.contents, f"tab_{name}"))
            for function, name in TABLE.items()
        }
        return mapping

    def _answer(self, context: int) -> bool:
        """One request; False where the connection is gone or holds no Modbus."""
        request = ctypes.create_string_buffer(MAX_ADU_BYTES)
        n_bytes = self._library.modbus_receive(context, request)
        if n_bytes > 0:
            self.n_requests += 1
            self._library.modbus_reply(context, request, n_bytes, self._mapping)
        return bool(n_bytes >= 0)  # 0: for another unit of the line

    def _serve(self) -> None:
        raise NotImplementedError

    def _open(self) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError


class LibmodbusTcp(_Libmodbus):
    """On a free port of 127.0.0.1, several clients at a time."""

    host = "127.0.0.1"

    def _open(self) -> None:
        self._listener = socket.create_server((self.host, 0))
        self.port = int(self._listener.getsockname()[1])
        self._context = self._library.modbus_new_tcp(self.host.encode(), self.port)

    def _serve(self) -> None:
        clients: dict[int, socket.socket] = {}
        while True:
            ready, _, _ = select.select([self._stop_fd, self._listener.fileno(), *clients], [], [])
            if self._stop_fd in ready:
                break
            for fd in ready:
                if fd == self._listener.fileno():
                    client, _ = self._listener.accept()
                    clients[client.fileno()] = client
                    continue
                self._library.modbus_set_socket(self._context, fd)
                if not self._answer(self._context):
                    clients.pop(fd).close()
        for client in clients.values():
            client.close()

    def _close(self) -> None:
        self._listener.close()
        self._library.modbus_free(self._context)


class LibmodbusRtu(_Libmodbus):
    """One unit on a pseudo-terminal; a client opens `device` as it would a serial port."""

    def _open(self) -> None:
        self._line = PtyPair()
        self.device = self._line.device
        self._context = self._library.modbus_new_rtu(self.device.encode(), 19200, b"N", 8, 1)
        self._library.modbus_set_slave(self._context, self._unit_id)
        self._library.modbus_set_socket(self._context, self._line.fd)

    def _serve(self) -> None:
        while self._stop_fd not in select.select([self._stop_fd, self._line.fd], [], [])[0]:
            self._answer(self._context)

    def _close(self) -> None:
        self._library.modbus_free(self._context)
        self._line.close()
