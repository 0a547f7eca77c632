"""Clients are shared while they have room, and made where they have none."""

from __future__ import annotations

import contextlib

import httpx
import pytest

from envgym.web.clients import Clients


async def test_no_client_has_many_requests_and_a_free_one_is_used_again() -> None:
    clients = Clients({"X-From": "here"})
    with contextlib.ExitStack() as under_way:
        taken = [under_way.enter_context(clients.with_room()) for _ in range(100)]
        assert max(map(taken.count, taken)) == 16
        assert len(set(map(id, taken))) == 7
    with pytest.raises(ZeroDivisionError):
        fail_in(clients)
    with contextlib.ExitStack() as under_way:
        again = [under_way.enter_context(clients.with_room()) for _ in range(100)]
    assert again == taken, "a request that fails leaves its place, and the first with room comes first"
    assert taken[0].headers["X-From"] == "here"
    await clients.aclose()
    assert all(isinstance(client, httpx.AsyncClient) and client.is_closed for client in taken)


def fail_in(clients: Clients) -> None:
    with clients.with_room():
        raise ZeroDivisionError
