"""An authorised call on an event loop: what we add to a request on a kept connection."""

import asyncio
from time import perf_counter
from typing import Any, Final

import httpx2
from django.conf import settings
from django.contrib.auth.models import User

from airisk_oauth import AsyncAIRiskClient

from .calls import HOUR, PATH
from .contenders import Measure, Measurement
from .people import connected_users, migrated

#: The first calls do what later ones need not do again.
WARM_UP: Final = 50


def prepare(calls: str) -> Measure:
    migrated()
    (user,) = connected_users(1, expires_in=HOUR)
    return lambda: asyncio.run(measured(user, int(calls)))


async def measured(user: User, calls: int) -> Measurement:
    seconds: Measurement = {}
    async with (
        httpx2.AsyncClient(headers={"Authorization": "Bearer a-token"}) as bare,
        AsyncAIRiskClient.for_user(user) as ours,
    ):
        for name, client, url in (("httpx2", bare, settings.AIRISK_URL + PATH), ("ours", ours, PATH)):
            await _time(client, url, WARM_UP)
            seconds[name] = await _time(client, url, calls)
    return seconds


async def _time(client: Any, url: str, calls: int) -> float:
    start = perf_counter()
    for _ in range(calls):
        await client.get(url)
    return (perf_counter() - start) / calls
