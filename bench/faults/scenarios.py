"""The faults: each hurts the service, waits and says when the cause was gone."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bench.faults import slow_clients, truth
from bench.faults.service import HOST, Served, command_line, kill
from bench.faults.two_nodes import WORKER
from bench.faults.verdict import Span
from bench.faults.versions import DAMAGED, OTHER, SOUND
from bench.processes import descendants
from training.store import Store

_PAUSE_S = 10.0
_FULL_S = 5.0
_JUNK, _JUNK_BYTES, _JUNK_KEYS = "junk:", 1_000_000, 200
_PROMOTIONS = 20
_SWITCH_S = 0.6
_HALF_REQUESTS = 20
_HALF_SILENT_S = 15.0
_SLOW_CLIENTS = 1000
_SLOW_S = 15.0


@dataclass(frozen=True)
class Scene:
    """What a fault may touch."""

    served: Served
    store: Store
    session: aiohttp.ClientSession

    def redis(self, name: str) -> Redis:
        """A client of the Valkey for "state" or "cache"."""
        return Redis(host=HOST, port=self.served.valkey_port(name), socket_timeout=5.0)


Hurt = Callable[[Scene], Awaitable[Span]]


async def kill_valkey(scene: Scene) -> Span:
    """kill -9 both Valkeys; the service starts them again."""
    victims = [scene.served.valkey("state"), scene.served.valkey("cache")]
    span = _now()
    kill(victims)
    return span


async def pause_valkey(scene: Scene) -> Span:
    """Both Valkeys stand still for ten seconds."""
    pids = [scene.served.valkey("state"), scene.served.valkey("cache")]
    hurt_at = time.monotonic()
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(_PAUSE_S)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    return Span(hurt_at, time.monotonic())


async def fill_valkey(scene: Scene) -> Span:
    """Both Valkeys have no memory left: the state refuses to write, the cache forgets."""
    hurt_at = time.monotonic()
    clients = [scene.redis("state"), scene.redis("cache")]
    before = [await client.config_get("maxmemory") for client in clients]
    for client in clients:
        used: Any = (await client.info("memory"))["used_memory"]
        await client.config_set("maxmemory", used + 5 * _JUNK_BYTES)
        await _fill(client)
    await asyncio.sleep(_FULL_S)
    for client, limits in zip(clients, before, strict=True):
        await client.config_set("maxmemory", limits["maxmemory"] or 0)
        await _empty(client)
        await client.aclose()
    return Span(hurt_at, time.monotonic())


async def _fill(client: Redis) -> None:
    """Smaller and smaller values, as long as each kind is taken: a command counts while it runs."""
    number = 0
    for size in (_JUNK_BYTES, _JUNK_BYTES // 100, 0):
        with suppress(RedisError):  # full for values of this size
            for _ in range(_JUNK_KEYS):
                await client.set(f"{_JUNK}{number}", b"x" * size)
                number += 1


async def _empty(client: Redis) -> None:
    await client.delete(*(f"{_JUNK}{number}" for number in range(3 * _JUNK_KEYS)))


def kill_replica(deployment: str, *, deadly: bool = False) -> Hurt:
    """kill -9 the first of a deployment's replicas. deadly: requests under way on it are lost."""

    async def hurt(scene: Scene) -> Span:
        victims = scene.served.replica(deployment)[:1]
        span = _now(deadly=deadly)
        kill(victims)
        return span

    hurt.__doc__ = f"kill -9 a replica of {deployment}."
    return hurt


async def kill_node(scene: Scene) -> Span:
    """kill -9 the second node of two: its raylet and every process below it."""
    (raylet,) = (pid for pid in scene.served.named("raylet/raylet") if WORKER in command_line(pid))
    victims = [*descendants(raylet), raylet]
    span = _now(deadly=True)
    kill(victims)
    return span


async def promote_damaged(scene: Scene) -> Span:
    """Promote the newest version, in which one byte is another; then the one before again."""
    hurt_at = time.monotonic()
    scene.store.promote(DAMAGED)
    await asyncio.sleep(_FULL_S)
    scene.store.rollback()
    return Span(hurt_at, time.monotonic())


async def promote_often(scene: Scene) -> Span:
    """Promote the other version and roll back, twenty times; each answers for a moment."""
    hurt_at = time.monotonic()
    for _ in range(_PROMOTIONS):
        scene.store.promote(OTHER)
        await truth.answers(scene.session, scene.served.url, OTHER)
        await asyncio.sleep(_SWITCH_S)
        scene.store.rollback()
        await truth.answers(scene.session, scene.served.url, SOUND)
        await asyncio.sleep(_SWITCH_S)
    return Span(hurt_at, time.monotonic())


async def send_half_requests(scene: Scene) -> Span:
    """Clients that send half a header or half a body; half of them hang up, half fall silent."""
    hurt_at = time.monotonic()
    port = scene.served.port
    await asyncio.gather(
        *(
            slow_clients.half_request(
                HOST, port, in_body=number % 2 == 0, silent_s=_HALF_SILENT_S * (number % 4 < 2)
            )
            for number in range(_HALF_REQUESTS)
        )
    )
    return Span(hurt_at, time.monotonic())


async def thousand_slow_clients(scene: Scene) -> Span:
    """A thousand clients that send a byte a second, half of them in the middle of a body."""
    hurt_at = time.monotonic()
    async with slow_clients.slow(HOST, scene.served.port, _SLOW_CLIENTS):
        await asyncio.sleep(_SLOW_S)
    return Span(hurt_at, time.monotonic())


def _now(*, deadly: bool = False) -> Span:
    now = time.monotonic()
    return Span(now, now, deadly)


NODE_KILLED = "node-killed"
SCENARIOS: dict[str, Hurt] = {
    "valkey-killed": kill_valkey,
    "valkey-paused": pause_valkey,
    "valkey-full": fill_valkey,
    "embed-killed": kill_replica("Embed"),
    "retrieve-killed": kill_replica("Retrieve"),
    "rank-killed": kill_replica("Rank"),
    "gateway-killed": kill_replica("Gateway", deadly=True),
    "bundle-damaged": promote_damaged,
    "promotions": promote_often,
    "half-request": send_half_requests,
    "slow-clients": thousand_slow_clients,
    NODE_KILLED: kill_node,
}
