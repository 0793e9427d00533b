"""Retained MQTT topics: every standing alarm and every machine's present state, for dashboards and other systems.

It uses the delivery thread's connection; what cannot be sent now is sent at the next one, in its last value only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from agent.decision.alarm import State
from agent.notifiers import MachineName, alarm_message
from agent.vocabulary import AlarmEvent
from firmware_bridge.upstream import topic_alarm, topic_state


class MqttNotifier:
    """Puts alarms and states on their topics.

    Args:
        machines: names and types by tag.
        retain: sets a topic's retained payload, empty to clear (`Deliverer.retain`).
    """

    def __init__(
        self, site: str, gateway: str, machines: Mapping[str, MachineName], retain: Callable[[str, bytes], None]
    ) -> None:
        self._site = site
        self._gateway = gateway
        self._machines = dict(machines)
        self._retain = retain

    def notify(self, event: AlarmEvent) -> None:
        topic = topic_alarm(self._site, self._gateway, event.machine, event.alarm_id)
        machine = self._machines.get(event.machine, MachineName(event.machine, ""))
        message = alarm_message(event, self._site, self._gateway, machine)
        self._retain(topic, b"" if event.state == State.NORMAL else msgspec.json.encode(message))

    def state(self, machine: str, mapping: Mapping[str, Any]) -> None:
        self._retain(topic_state(self._site, self._gateway, machine), msgspec.json.encode({"v": 1, **mapping}))
