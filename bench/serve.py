"""What the served bundle costs beside an endpoint that does nothing, on the same ingress.

The service is started as `marquee serve` starts it; the empty endpoint is a second Serve
application in it, and the load comes from a process of its own (bench/load.py) on the same
machine, so all of them share its cores. Three modes:

empty      the same requests to the endpoint that does nothing
uncached   `Cache-Control: no-cache`: every slate is computed
cached     after every request was asked once: every slate comes from the cache

and a realistic stream (bench/stream.py) that begins with none of its slates in the cache. Beside
them: an open loop at two rates, what each stage costs in this machine's hands (bench/stages.py)
and the memory of all processes. bench/comparison.py measures the same with other settings.

A figure is the median over rounds, in which the modes take turns, so that a machine that slows
down or speeds up meanwhile treats them alike. An answer that is not a 200, or that had to do
without a part of the service, is an error.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from urllib.request import urlopen

import numpy as np

from app.adapters.store import bundle_store
from app.free_ports import free_port
from app.local import LocalService
from app.settings import Settings
from bench import stages
from bench.load import Plan, Sample, measure
from bench.memory import tree_memory
from bench.stream import FEEDBACK_SHARE, http_post, realistic_bodies
from training.model.bundle import Bundle

MODES = ("empty", "uncached", "cached")

_HOST = "127.0.0.1"
_EMPTY_PREFIX = "/empty"
_REQUESTS = 20_000
_ZIPF_EXPONENT = 1.0
_WARMUP_S = 1.0
_WARM_CLIENTS = 32
_WARM_LIMIT_S = 300.0
_DEGRADED = "marquee_degraded_total"
_ANSWERED = 'marquee_requests_total{route="/recommend",status="200"}'
_WHOLE_ANSWER = '"degraded":[]'
_MEASURED = ("rps", "p50_ms", "p95_ms", "p99_ms")

Figures = dict[str, Any]


@dataclass(frozen=True)
class Workload:
    """How long and how hard the service is asked."""

    duration_s: float = 5.0
    rounds: int = 2
    clients: tuple[int, ...] = (1, 16, 64, 128)
    arrivals_per_s: float = 100.0
    stress_arrivals_per_s: float = 500.0
    stream_clients: int = 64
    modes: tuple[str, ...] = MODES
    closed_only: bool = False
    seed: int = 0


def bench_serve(
    settings: Settings,
    workload: Workload,
    report: Callable[[str], None],
    *,
    accelerated: bool = True,
) -> dict[str, Any]:
    """Start the service, measure, end it. Raises app.local.StartError when it does not start.

    report: told what is measured now. accelerated: see app.local.LocalService.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="marquee-bench-") as state:
        report("starting the service")
        service = LocalService(
            settings,
            port=port,
            host=_HOST,
            state_dir=Path(state),
            extra_apps={_EMPTY_PREFIX: _empty_application(settings)},
            accelerated=accelerated,
        )
        since = perf_counter()
        with service:
            started_s = round(perf_counter() - since, 1)
            bundle = production(settings)
            figures = _Bench(port, bundle, workload, report).run()
            memory = tree_memory(os.getpid())
        report("stages by themselves")
        return (
            figures
            | ({} if workload.closed_only else {"stages": stages.measure(bundle.path)})
            | {
                "memory": memory,
                "started_s": started_s,
                "bundle": {
                    "version": bundle.version,
                    "n_users": bundle.manifest.n_users,
                    "n_items": bundle.manifest.n_items,
                },
                "topology": settings.topology,
                "workload": asdict(workload) | {"zipf_exponent": _ZIPF_EXPONENT},
                "machine": machine(),
            }
        )


def zipf_order(n_users: int, length: int, seed: int) -> np.ndarray:
    """Rows of users in the order in which they ask, int64 [length].

    The r-th busiest of the users, in a random order of them, asks in proportion to 1 / r.
    """
    rng = np.random.default_rng(seed)
    weight = 1.0 / np.arange(1, n_users + 1) ** _ZIPF_EXPONENT
    rank = rng.choice(n_users, size=length, p=weight / weight.sum())
    return rng.permutation(n_users)[rank]


def http_request(path: str, user_id: int | str, *, cached: bool, slate: int = 10) -> str:
    """A whole POST for one user's slate of that many items."""
    body = {"user_id": user_id, "num_recommendations": slate}
    return http_post(_HOST, path, body, *(() if cached else ("Cache-Control: no-cache",)))


def median_figures(samples: Sequence[Sample]) -> Figures:
    """Rounds of the same measurement as one: medians, and the sum of the errors."""
    figures: Figures = {}
    for name in _MEASURED:
        values = [value for sample in samples if (value := getattr(sample, name)) is not None]
        figures[name] = round(median(values), 3) if values else None
    figures["errors"] = sum(sample.errors for sample in samples)
    problems = [sample.first_error for sample in samples if sample.first_error]
    return figures | ({"first_error": problems[0]} if problems else {})


def machine() -> dict[str, Any]:
    """Where the figures are from."""
    import ray

    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": model[0] if model else platform.machine(),
        "memory_gib": round(memory_bytes / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "ray": ray.__version__,
    }


class _Bench:
    """The measurements on a service that answers."""

    def __init__(
        self,
        port: int,
        bundle: Bundle,
        workload: Workload,
        report: Callable[[str], None],
    ) -> None:
        self._port = port
        self._workload = workload
        self._report = report
        self._bundle = bundle
        user_ids = bundle.user_ids
        users, order = np.unique(
            zipf_order(len(user_ids), _REQUESTS, workload.seed), return_inverse=True
        )
        self._order = order.tolist()
        self._users = [
            user.decode() if isinstance(user, bytes) else user
            for user in np.asarray(user_ids)[users].tolist()
        ]

    def run(self) -> dict[str, Any]:
        if "cached" in self._workload.modes:
            self._fill_cache()
        samples: dict[tuple[int, str], list[Sample]] = {}
        hit_rates: dict[str, list[float]] = {mode: [] for mode in self._modes[1:]}
        computed: dict[str, list[float]] = {}
        steps = list(product(self._workload.clients, self._modes))
        for number in range(self._workload.rounds):
            # There and back, so that a drift weighs on no mode more than on another.
            for clients, mode in steps if number % 2 == 0 else reversed(steps):
                self._report(
                    f"round {number + 1}/{self._workload.rounds}: {mode}, {clients} clients"
                )
                before, slates = self._lookups(), self._slates()
                samples.setdefault((clients, mode), []).append(
                    measure(self._plan(mode, clients=clients))
                )
                if mode in hit_rates:
                    hit_rates[mode].append(_hit_rate(before, self._lookups()))
                if mode == "uncached":
                    computed.setdefault(str(clients), []).append(_share(slates, self._slates()))
        closed = {
            mode: {str(n): median_figures(samples[n, mode]) for n in self._workload.clients}
            for mode in self._modes
        }
        figures: dict[str, Any] = {
            "closed": closed,
            "ratios": self._ratios(closed),
            "cache_hit_rate": {mode: round(median(rates), 4) for mode, rates in hit_rates.items()},
            # The others shared what was being computed for somebody who asked the same.
            "computed_of_uncached": {n: round(median(part), 3) for n, part in computed.items()},
        }
        if not self._workload.closed_only:
            rates = (self._workload.arrivals_per_s, self._workload.stress_arrivals_per_s)
            figures["open"] = {f"{rate:g}": self._open_loop(rate) for rate in rates}
            figures["realistic"] = self._realistic()
        return figures

    def _realistic(self) -> Figures:
        """The stream beside the empty endpoint, in turns; hit rates of its first and last round."""
        plan = self._stream_plan()
        samples: list[Sample] = []
        empty: list[Sample] = []
        hit_rates: list[float] = []
        clients = self._workload.stream_clients
        degraded = self._counts(_DEGRADED)
        for number in range(self._workload.rounds + 1):
            self._report(f"realistic stream, {clients} clients, part {number + 1}")
            empty.append(measure(self._plan("empty", clients=clients)))
            before = self._lookups()
            samples.append(measure(plan))
            hit_rates.append(_hit_rate(before, self._lookups()))
            sent = samples[-1].answers + samples[-1].errors  # the stream goes on where it was
            plan = replace(plan, order=plan.order[sent:] + plan.order[:sent])
        cell, idle = median_figures(samples), median_figures(empty)
        return cell | {
            "clients": clients,
            "feedback_share": FEEDBACK_SHARE,
            "cache_hit_rate": round(hit_rates[-1], 4),
            "cache_hit_rate_from_cold": round(hit_rates[0], 4),
            "degraded_batches": sum(self._counts(_DEGRADED).values()) - sum(degraded.values()),
            "of_empty": round(cell["rps"] / idle["rps"], 3) if idle["rps"] else None,
        }

    def _stream_plan(self) -> Plan:
        item_ids = [self._bundle.items.ids[i] for i in self._bundle.popularity[:2000].tolist()]
        bodies = realistic_bodies(self._users, self._order, item_ids, seed=self._workload.seed)
        return Plan(
            host=_HOST,
            port=self._port,
            requests=[http_post(_HOST, path, body) for path, body in bodies],
            order=list(range(len(bodies))),
            duration_s=self._workload.duration_s,
            clients=self._workload.stream_clients,
        )

    @property
    def _modes(self) -> tuple[str, ...]:
        return self._workload.modes

    def _open_loop(self, rate: float) -> Figures:
        """Every mode's figures; those at the top are uncached's, the hardest."""
        by_mode = {}
        for mode in self._modes:
            self._report(f"open loop: {mode}, {rate:g} requests per second")
            by_mode[mode] = median_figures([measure(self._plan(mode, arrivals_per_s=rate))])
        return by_mode["uncached"] | by_mode

    def _ratios(self, closed: dict[str, dict[str, Figures]]) -> dict[str, float]:
        """Throughput as a share of the empty endpoint's at as many clients."""
        return {
            f"{mode}_{n}": round(closed[mode][n]["rps"] / closed["empty"][n]["rps"], 3)
            for mode in self._modes[1:]
            for n in map(str, self._workload.clients)
            if closed["empty"][n]["rps"]
        }

    def _plan(
        self, mode: str, *, clients: int | None = None, arrivals_per_s: float | None = None
    ) -> Plan:
        return Plan(
            host=_HOST,
            port=self._port,
            requests=self._requests(mode),
            order=self._order,
            duration_s=self._workload.duration_s,
            warmup_s=min(_WARMUP_S, self._workload.duration_s),
            clients=clients,
            arrivals_per_s=arrivals_per_s,
            must_contain="" if mode == "empty" else _WHOLE_ANSWER,
            seed=self._workload.seed,
        )

    def _requests(self, mode: str) -> list[str]:
        path = _EMPTY_PREFIX if mode == "empty" else "/recommend"
        return [http_request(path, user, cached=mode == "cached") for user in self._users]

    def _fill_cache(self) -> None:
        self._report(f"filling the cache for {len(self._users)} users")
        measure(
            Plan(
                host=_HOST,
                port=self._port,
                requests=self._requests("cached"),
                order=list(range(len(self._users))),
                duration_s=_WARM_LIMIT_S,
                once=True,
                clients=_WARM_CLIENTS,
            )
        )

    def _lookups(self) -> dict[str, float]:
        """The service's own count of cache hits and misses."""
        return self._counts("marquee_cache_lookups_total")

    def _slates(self) -> tuple[float, float]:
        """The service's own count of slates: computed, and answered."""
        computed = self._counts("marquee_batch_size_sum")
        return sum(computed.values()), sum(self._counts(_ANSWERED).values())

    def _counts(self, name: str) -> dict[str, float]:
        """A counter's values by its first label, "" where it has none."""
        with urlopen(f"http://{_HOST}:{self._port}/metrics", timeout=10) as response:
            text = response.read().decode()
        counts: dict[str, float] = defaultdict(float)
        for line in text.splitlines():
            if line.startswith(name):
                labels, count = line.rsplit(" ", 1)
                counts[labels.split('"')[1] if '"' in labels else ""] += float(count)
        return dict(counts)


def _hit_rate(before: dict[str, float], after: dict[str, float]) -> float:
    hits, misses = (after.get(k, 0.0) - before.get(k, 0.0) for k in ("hit", "miss"))
    return hits / (hits + misses) if hits + misses else 0.0


def _share(before: tuple[float, float], after: tuple[float, float]) -> float:
    computed, answered = (new - old for old, new in zip(before, after, strict=True))
    return computed / answered if answered else 0.0


def production(settings: Settings) -> Bundle:
    """The bundle that a started service answers with."""
    store = bundle_store(settings)
    version = store.production()
    assert version is not None  # the service has started with it
    return Bundle.open(store.locate(version), verify=False)


def _empty_application(settings: Settings) -> Any:
    """A Serve application that answers at once, with the room that the service's ingress has."""
    from ray import serve
    from starlette.requests import Request
    from starlette.responses import Response

    class Empty:
        async def __call__(self, request: Request) -> Response:
            return Response(b'{"status":"ok"}', media_type="application/json")

    return serve.deployment(
        name="Empty",
        max_ongoing_requests=settings.max_ongoing_requests,
        ray_actor_options={"num_cpus": settings.replica_cpus},
    )(Empty).bind()
