"""The event stream in Kafka: a copy of the one in Redis, for those who follow it there.

    topic, partition 0    key    user id
                          value  {"event_id", "user_id", "item_id", "event_type", "timestamp_ms"}

One partition, because ids ascend over the whole stream, and an id is found by bisection. A topic
with more partitions works; the others stay empty.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from app.domain import Event, EventType, StreamEntry, event_order
from app.errors import DependencyUnavailable

P = ParamSpec("P")
T = TypeVar("T")

TOPIC = "marquee-events"
_PARTITION = 0
_NOTHING = "0-0"
# Far below what the client keeps in memory before it refuses more.
_IN_FLIGHT = 10_000


class KafkaEventStream:
    """The EventStream port on Kafka. One writer at a time, as the port has it."""

    def __init__(
        self,
        servers: str,
        *,
        timeout_s: float,
        topic: str = TOPIC,
        config: Mapping[str, str] | None = None,
    ) -> None:
        """servers: host:port,... to begin with. config: more of librdkafka's settings, such as
        those of TLS and SASL. Opens no connection yet. ValueError for a setting that it refuses.
        """
        self._topic = topic
        self._timeout_s = timeout_s
        # What goes wrong is raised; the client would print it as well.
        self._config = {"log_level": "0", **(config or {}), "bootstrap.servers": servers}
        copying = {
            "group.id": f"{topic}-copy",
            "enable.auto.commit": "false",
            # Only what is there is asked for: nothing is gained by waiting for more.
            "fetch.wait.max.ms": "1",
        }
        try:
            self._producer = self._new_producer()
            self._consumer = Consumer(self._config | copying)
        except KafkaException as error:
            raise ValueError(error.args[0].str()) from error

    async def read(self, after: str, limit: int) -> list[StreamEntry]:
        """See the port."""
        return await _in_thread(self._read, after, limit)

    async def append(self, entries: Sequence[StreamEntry]) -> None:
        """See the port."""
        await _in_thread(self._append, entries)

    async def newest_id(self) -> str:
        """The id of the newest entry, "0-0" when there is none."""
        return await _in_thread(self._newest_id)

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.to_thread(self._consumer.close)

    def _read(self, after: str, limit: int) -> list[StreamEntry]:
        low, high = self._bounds()
        offsets = range(low, high)
        sought = event_order(after)
        start = bisect_right(offsets, sought, key=self._order_at) if after != _NOTHING else 0
        return self._fetch(low + start, min(limit, len(offsets) - start))

    def _append(self, entries: Sequence[StreamEntry]) -> None:
        newest = event_order(self._newest_id())
        fresh = [entry for entry in entries if event_order(entry.event_id) > newest]
        for start in range(0, len(fresh), _IN_FLIGHT):
            self._produce(fresh[start : start + _IN_FLIGHT])

    def _produce(self, entries: Sequence[StreamEntry]) -> None:
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failures.append(error)

        for entry in entries:
            self._producer.produce(
                self._topic,
                partition=_PARTITION,
                key=str(entry.event.user_id),
                value=_packed(entry),
                timestamp=event_order(entry.event_id)[0],
                on_delivery=delivered,
            )
        waiting = self._producer.flush(self._timeout_s)
        if waiting or failures:
            # What is still in its memory must not be written behind a later copy's entries.
            self._producer.purge()
            self._producer = self._new_producer()
            reason = failures[0].str() if failures else "no answer in time"
            raise DependencyUnavailable(f"event stream: Kafka: {reason}")

    def _newest_id(self) -> str:
        low, high = self._bounds()
        return self._fetch(high - 1, 1)[0].event_id if high > low else _NOTHING

    def _bounds(self) -> tuple[int, int]:
        """The first offset and the one behind the last; equal when there are no entries."""
        # Asked for by name: what the client remembers of a topic that was not there yet is old.
        described = self._consumer.list_topics(self._topic, timeout=self._timeout_s)
        if _PARTITION not in described.topics[self._topic].partitions:
            return 0, 0
        bounds: tuple[int, int] = self._consumer.get_watermark_offsets(
            TopicPartition(self._topic, _PARTITION), timeout=self._timeout_s
        )
        return bounds

    def _order_at(self, offset: int) -> tuple[int, int]:
        return event_order(self._fetch(offset, 1)[0].event_id)

    def _fetch(self, offset: int, count: int) -> list[StreamEntry]:
        """Exactly `count` entries, which must be there."""
        if count < 1:
            return []
        self._consumer.assign([TopicPartition(self._topic, _PARTITION, offset)])
        entries: list[StreamEntry] = []
        deadline = time.monotonic() + self._timeout_s
        while len(entries) < count:
            messages = self._consumer.consume(
                count - len(entries), timeout=max(0.0, deadline - time.monotonic())
            )
            if not messages:
                raise DependencyUnavailable("event stream: Kafka: no answer in time")
            entries += [_entry(message) for message in messages]
        return entries

    def _new_producer(self) -> Producer:
        return Producer(
            self._config
            | {
                "enable.idempotence": "true",
                "message.timeout.ms": str(int(self._timeout_s * 1000)),
            }
        )


async def _in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    with _translated():
        return await asyncio.to_thread(work, *args, **kwargs)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        raise DependencyUnavailable(f"event stream: Kafka: {error.args[0].str()}") from error


def _packed(entry: StreamEntry) -> bytes:
    event = entry.event
    return orjson.dumps(
        {
            "event_id": entry.event_id,
            "user_id": str(event.user_id),
            "item_id": str(event.item_id),
            "event_type": event.event_type.value,
            "timestamp_ms": event.timestamp_ms,
        }
    )


def _entry(message: Message) -> StreamEntry:
    error, value = message.error(), message.value()
    if error is not None:
        raise KafkaException(error)
    if value is None:
        raise DependencyUnavailable(f"event stream: Kafka: offset {message.offset()} is no event")
    fields = orjson.loads(value)
    event = Event(
        user_id=fields["user_id"],
        item_id=fields["item_id"],
        event_type=EventType(fields["event_type"]),
        timestamp_ms=fields["timestamp_ms"],
    )
    return StreamEntry(fields["event_id"], event)
