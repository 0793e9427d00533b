"""Orders from a person: whole or not at all, once, bounded, and never in the agent's way."""

from __future__ import annotations

import pytest

from agent.orders import FOLDER, MAX_ORDERS, OrderRefused, Relearn, give, taken


def test_orders_are_taken_once_and_in_the_order_given(tmp_path) -> None:
    """The agent may have been down: the order waits for it, and is not carried out twice."""
    orders = [Relearn("M-1", "sensor moved"), Relearn("M-2", "new bearing", although_sick=True)]
    for order in orders:
        give(tmp_path, order)
    assert list(taken(tmp_path)) == orders
    assert list(taken(tmp_path)) == []


def test_no_orders_folder_is_no_orders(tmp_path) -> None:
    """Most gateways never see one."""
    assert list(taken(tmp_path / "nowhere")) == []


def test_a_file_that_is_no_order_is_put_away_and_the_next_one_taken(tmp_path) -> None:
    """Somebody's editor, or half a disk: it must not stand in the way for ever."""
    folder = tmp_path / FOLDER
    folder.mkdir()
    (folder / "0.json").write_text("{not json")
    (folder / "00.json").write_bytes(b'{"type":"relearn","machine":"M","reason":"' + b"x" * 9000 + b'"}')
    give(tmp_path, Relearn("M-1", "sensor moved"))
    assert [order.machine for order in taken(tmp_path)] == ["M-1"]
    assert not list(folder.iterdir())


def test_orders_that_nobody_takes_do_not_fill_the_disk(tmp_path) -> None:
    """An agent that is down for months, and a script that goes on."""
    for _ in range(MAX_ORDERS):
        give(tmp_path, Relearn("M-1", "sensor moved"))
    with pytest.raises(OrderRefused, match="start the agent"):
        give(tmp_path, Relearn("M-1", "sensor moved"))
