"""paho's client with bounds: a message of any size takes no more memory than allowed, and no packet ends its thread.

With MQTT 5 the broker is told the largest packet and keeps to it; 3.1.1 has no such word, and paho would take 200 MiB into
memory (600 MiB measured). Here a longer packet is cut while it comes in: its beginning (topic and message id) stays, so that
it is acknowledged and not sent again, and `is_cut` says that its payload is worth nothing.

This touches three private methods of paho 2 (`_sock_recv`, `_packet_handle`, `_in_packet`), and nothing else does; a test
with a real broker watches over them.
"""

from __future__ import annotations

import struct
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode

RECEIVE_BYTES = 65_536


class BoundedClient(paho.Client):
    """A client that takes packets up to `max_packet_bytes`.

    Attributes:
        is_cut: in a message's callback: the message was longer, what is there is its beginning.
        network_error: why the connection broke, as the socket said; None while nothing is known.
    """

    def __init__(self, *args: Any, max_packet_bytes: int, **more: Any) -> None:
        self.is_cut = False
        self.network_error: OSError | None = None
        self._max_packet_bytes = max_packet_bytes
        super().__init__(*args, **more)

    def _sock_recv(self, bufsize: int) -> bytes:
        """In pieces, and never more of a packet than allowed."""
        del self._in_packet["packet"][self._max_packet_bytes :]
        try:
            return super()._sock_recv(min(bufsize, RECEIVE_BYTES))
        except BlockingIOError:  # nothing there yet
            raise
        except OSError as error:
            self.network_error = error
            raise

    def _packet_handle(self) -> MQTTErrorCode:
        """A packet that makes no sense ends the connection, not the thread."""
        self.is_cut = self._in_packet["remaining_length"] > self._max_packet_bytes
        del self._in_packet["packet"][self._max_packet_bytes :]
        try:
            return super()._packet_handle()
        except (struct.error, IndexError, KeyError, ValueError):
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
