"""What an ingress replica keeps of the online state between requests: item windows, erased users.

Both are small, change slowly and are the same for all requests, so they are read every couple of
seconds instead of by every request. When Redis is away they stay as they were; their age is a
metric.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import numpy as np

from app import logs
from app.domain import Float32s, ItemId, UserId
from app.errors import DependencyUnavailable
from app.metrics import Metrics
from app.ports import Erasures, WindowCounts
from app.windows import ItemWindow, SlotCounts, slots_at, sum_slots
from training.model.bundle import Bundle

_log = logs.get("live")

# Counts may still be added to these: a request takes a moment from its clock to the store.
_UNSETTLED = 2


class Live:
    """The shared online state of one ingress replica."""

    def __init__(
        self,
        counts: WindowCounts,
        erasures: Erasures,
        metrics: Metrics,
        *,
        loaded_at: Callable[[], Awaitable[int | None]],
        every_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """loaded_at: when the online features were loaded, unix seconds; None: never."""
        self._counts = counts
        self._loaded_at = loaded_at
        self._erasures = erasures
        self._metrics = metrics
        self._every_s = every_s
        self._clock = clock
        self._slots: dict[int, SlotCounts] = {}
        self._erased: frozenset[str] = frozenset()
        self._looked_at = clock()
        self._heat: dict[str, Float32s | None] = {}
        self.windows: Mapping[ItemId, ItemWindow] = {}
        self.is_current = False  # whether the last look found everything

    def is_erased(self, user_id: UserId) -> bool:
        """Whether the user was erased, as of the last look."""
        return str(user_id) in self._erased

    def heat(self, bundle: Bundle) -> Float32s | None:
        """How fast each item gathers events just now, float32[I] in 0..1; None when none does.

        log(1 + velocity), relative to the fastest item.
        """
        if bundle.version not in self._heat:
            self._heat[bundle.version] = self._heat_of(bundle)
        return self._heat[bundle.version]

    def _heat_of(self, bundle: Bundle) -> Float32s | None:
        velocity = np.zeros(len(bundle.items), np.float32)
        for item_id, window in self.windows.items():
            item = bundle.item_index(item_id)
            if item >= 0:
                velocity[item] = window.velocity
        fastest = velocity.max(initial=0)
        if not fastest:
            return None
        heat: Float32s = np.log1p(velocity) / np.log1p(fastest)
        return heat

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Look again and again inside the block."""
        following = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            following.cancel()

    async def _follow(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self._every_s)

    async def look(self) -> None:
        """Read what may have changed; a store that is away leaves everything as it was."""
        now = self._clock()
        wanted = slots_at(int(now * 1000))
        asked = [s for s in wanted if s not in self._slots or s > wanted[-1] - _UNSETTLED]
        try:
            counts = await self._counts.read(asked)
            self._erased = frozenset(await self._erasures.all())
            loaded_at = await self._loaded_at()
        except DependencyUnavailable as error:
            _log.warning("online state not read", reason=error.message)
            self.is_current = False
        else:
            self.is_current = True
            self._slots = {s: c for s, c in self._slots.items() if s in wanted}
            self._slots |= dict(zip(asked, counts, strict=True))
            self._looked_at = now
            if loaded_at is not None:
                self._metrics.feature_age("user", now - loaded_at)
        # Slots grow old by themselves, whether or not the store answers.
        self.windows = sum_slots([self._slots.get(slot, {}) for slot in wanted])
        self._heat = {}
        self._metrics.feature_age("item_window", self._clock() - self._looked_at)
