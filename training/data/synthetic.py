"""A MovieLens-shaped data set with planted taste, so that a model's quality can be checked.

Every item lies in one cluster (a niche within a genre) at a place in the cluster's order. A user
has a few tastes, which are clusters, and watches one item after another:

- mostly the next items of the cluster just watched, a little further on in its order (so the
  recent items predict the next one);
- now and then another item of the same cluster, drawn by Zipf popularity;
- sometimes an item of another of the user's tastes (so the whole history matters);
- sometimes anything popular (noise that no model can predict).

Nobody watches an item twice. Popularity alone thus explains little of the next item, history a
lot. The parameters are written to planted.json.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from training.data.output import staged_directory
from training.data.titles import invent_titles
from training.errors import UserError

GENRES = (  # noqa: SIM905 (a literal would take a line for each word)
    "Action Adventure Animation Comedy Crime Documentary Drama Fantasy Horror Musical Mystery "
    "Romance Sci-Fi Thriller War Western"
).split()
LAST_MOMENT = 1_704_067_200  # 2024-01-01, so that the same seed gives the same file for ever
YEAR_S = 31_557_600
MARKER = "planted.json"
USERS_AT_ONCE = 4_000  # bounds the memory for who has seen what


@dataclass(frozen=True)
class Planted:
    """The parameters of the planted structure; shares are probabilities of one event."""

    users: int
    items: int
    events: int
    seed: int
    clusters: int
    tastes_per_user: int = 4
    next_in_order_share: float = 0.45
    same_cluster_share: float = 0.25
    own_taste_share: float = 0.2  # the rest is drawn by popularity alone
    longest_step: int = 3  # how far on in the order the next item may be
    zipf_exponent: float = 0.8
    least_events_per_user: int = 5
    years: int = 6


@dataclass(frozen=True)
class World:
    """The items. Items of one cluster are consecutive: start[c] + place."""

    cluster: np.ndarray  # int64 [I]
    start: np.ndarray  # int64 [C + 1]
    popularity: np.ndarray  # float64 [I], sums to 1
    genres: list[list[str]]
    year: np.ndarray  # int64 [I]
    quality: np.ndarray  # float64 [I] in stars around 0


def write_synthetic(
    out: Path, *, users: int = 2_000, items: int = 1_500, events: int = 150_000, seed: int = 0
) -> Planted:
    """Write ratings.csv, movies.csv and planted.json to the directory `out`.

    UserError when the numbers cannot be met: every user watches at least a few items, and no
    more than half of all.
    """
    planted = _planted(users, items, events, seed)
    with staged_directory(out, marker=MARKER) as staging:
        rng = np.random.default_rng(seed)
        world = _world(planted, rng)
        lengths = _lengths(planted, rng)
        user, item, on_taste = _watch(planted, world, lengths, rng)
        ratings = _ratings(user, item, on_taste, world, rng)
        timestamps = _timestamps(lengths, planted.years, rng)
        published = rng.permutation(items) + 1  # ids say nothing of clusters
        _write_csv(
            staging / "ratings.csv",
            {
                "userId": user + 1,
                "movieId": published[item],
                "rating": ratings,
                "timestamp": timestamps,
            },
        )
        _write_movies(staging / "movies.csv", world, published, rng)
        (staging / MARKER).write_text(json.dumps(asdict(planted), indent=2) + "\n", "utf-8")
    return planted


def _planted(users: int, items: int, events: int, seed: int) -> Planted:
    planted = Planted(users, items, events, seed, clusters=int(np.clip(items // 40, 2, 400)))
    if users < 2 or items < 20:
        raise UserError(
            f"{users} users and {items} items are too few: use at least --users 2 --items 20"
        )
    least, most = planted.least_events_per_user * users, items // 2 * users
    if not least <= events <= most:
        raise UserError(
            f"{events} events do not fit {users} users and {items} items: "
            f"use --events from {least} to {most}"
        )
    return planted


def _world(planted: Planted, rng: np.random.Generator) -> World:
    size = rng.dirichlet(np.full(planted.clusters, 8.0)) * (planted.items - 5 * planted.clusters)
    sizes = np.floor(size).astype(np.int64) + 5
    sizes[: planted.items - sizes.sum()] += 1
    cluster = np.repeat(np.arange(planted.clusters), sizes)
    popularity = rng.permutation(np.arange(1, planted.items + 1) ** -planted.zipf_exponent)
    main = rng.permutation(planted.clusters) % len(GENRES)
    genres = [
        sorted({GENRES[main[c]], *rng.choice(GENRES, size=extra)})
        for c, extra in zip(cluster, rng.integers(0, 3, planted.items), strict=True)
    ]
    age = np.minimum(rng.exponential(15.0, planted.items), 80.0).astype(np.int64)
    return World(
        cluster=cluster,
        start=np.concatenate([[0], np.cumsum(sizes)]),
        popularity=popularity / popularity.sum(),
        genres=genres,
        year=2023 - planted.years - age,
        quality=rng.normal(0.0, 0.4, planted.items),
    )


def _lengths(planted: Planted, rng: np.random.Generator) -> np.ndarray:
    """Events of each user, int64 [U], log-normal, adding up to the number asked for."""
    least, most = planted.least_events_per_user, planted.items // 2
    share = rng.lognormal(0.0, 0.8, planted.users)
    lengths = np.full(planted.users, least)
    while missing := planted.events - int(lengths.sum()):
        room = np.where(lengths < most, share, 0.0)
        wanted = np.floor(room / room.sum() * missing).astype(np.int64)
        if not wanted.any():  # the last few, one each to the most active who have room
            wanted[np.argsort(-room, kind="stable")[:missing]] = 1
        lengths = np.minimum(lengths + wanted, most)
    return lengths


def _watch(
    planted: Planted, world: World, lengths: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Who watches what: user, item int64 [E] and whether it is of the user's taste bool [E].

    Events are ordered by user and then by time.
    """
    parts = []
    for first in range(0, planted.users, USERS_AT_ONCE):
        part = lengths[first : first + USERS_AT_ONCE]
        tastes = rng.random((len(part), planted.clusters)).argsort(axis=1)
        items, on_taste = _walk(planted, world, part, tastes[:, : planted.tastes_per_user], rng)
        taken = np.arange(items.shape[1]) < part[:, None]
        users = np.repeat(np.arange(first, first + len(part)), part)
        parts.append((users, items[taken], on_taste[taken]))
    user, item, on_taste = (np.concatenate(column) for column in zip(*parts, strict=True))
    return user, item, on_taste


def _walk(
    planted: Planted,
    world: World,
    lengths: np.ndarray,
    tastes: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """All users take one step at a time: items int64 and on_taste bool, both [U, longest]."""
    n_users, n_steps = len(lengths), int(lengths.max())
    items = np.zeros((n_users, n_steps), dtype=np.int64)
    on_taste = np.zeros((n_users, n_steps), dtype=bool)
    seen = np.zeros((n_users, len(world.cluster)), dtype=bool)
    draw = _ItemDraw(planted, world, rng)
    last = draw.in_cluster(tastes[:, 0])
    for step in range(n_steps):
        active = np.flatnonzero(lengths > step)
        choice = draw.next_items(last[active], tastes[active])
        for _ in range(6):
            again = np.flatnonzero(seen[active, choice])
            if not again.size:
                break
            choice[again] = draw.next_items(choice[again], tastes[active[again]])
        again = np.flatnonzero(seen[active, choice])
        choice[again] = _first_unseen(seen[active[again]], choice[again])
        seen[active, choice] = True
        last[active] = items[active, step] = choice
        on_taste[active, step] = (world.cluster[choice][:, None] == tastes[active]).any(axis=1)
    return items, on_taste


class _ItemDraw:
    """Draws of items, for many users at once."""

    def __init__(self, planted: Planted, world: World, rng: np.random.Generator) -> None:
        self._planted, self._world, self._rng = planted, world, rng
        # Popularity summed up in item order is, within a cluster's range, its own distribution.
        self._cumulative = np.concatenate([[0.0], np.cumsum(world.popularity)])

    def next_items(self, last: np.ndarray, tastes: np.ndarray) -> np.ndarray:
        """The next item after `last` int64 [N] of users with `tastes` int64 [N, T]."""
        planted, rng = self._planted, self._rng
        taste = tastes[np.arange(len(last)), rng.integers(0, tastes.shape[1], len(last))]
        kinds = (
            self.after(last),
            self.in_cluster(self._world.cluster[last]),
            self.in_cluster(taste),
            self.anywhere(len(last)),
        )
        bounds = np.cumsum(
            [planted.next_in_order_share, planted.same_cluster_share, planted.own_taste_share]
        )
        return np.choose(np.searchsorted(bounds, rng.random(len(last)), side="right"), kinds)

    def after(self, last: np.ndarray) -> np.ndarray:
        """One to `longest_step` places on in the cluster's order, which is a ring."""
        cluster = self._world.cluster[last]
        start = self._world.start[cluster]
        size = self._world.start[cluster + 1] - start
        step = self._rng.integers(1, self._planted.longest_step + 1, len(last))
        chosen: np.ndarray = start + (last - start + step) % size
        return chosen

    def in_cluster(self, cluster: np.ndarray) -> np.ndarray:
        """By popularity within each cluster."""
        low = self._cumulative[self._world.start[cluster]]
        high = self._cumulative[self._world.start[cluster + 1]]
        return self._at(low + (high - low) * self._rng.random(len(cluster)))

    def anywhere(self, size: int) -> np.ndarray:
        return self._at(self._rng.random(size))

    def _at(self, quantile: np.ndarray) -> np.ndarray:
        index = np.searchsorted(self._cumulative, quantile, side="right") - 1
        return np.minimum(index, len(self._world.cluster) - 1)


def _first_unseen(seen: np.ndarray, item: np.ndarray) -> np.ndarray:
    """For each row of `seen` bool [N, I] the first unseen item from `item` on, as a ring."""
    n_items = seen.shape[1]
    ring = (item[:, None] + np.arange(n_items)) % n_items
    fresh: np.ndarray = (item + np.take_along_axis(seen, ring, axis=1).argmin(axis=1)) % n_items
    return fresh


def _ratings(
    user: np.ndarray,
    item: np.ndarray,
    on_taste: np.ndarray,
    world: World,
    rng: np.random.Generator,
) -> np.ndarray:
    """Half stars 0.5-5: the user's habit, the item's quality, taste, and noise."""
    habit = rng.normal(0.0, 0.35, user.max() + 1)
    stars = 3.1 + habit[user] + world.quality[item] + 0.9 * on_taste
    stars += rng.normal(0.0, 0.6, len(user))
    rounded: np.ndarray = np.clip(np.round(stars * 2) / 2, 0.5, 5.0)
    return rounded


def _timestamps(lengths: np.ndarray, years: int, rng: np.random.Generator) -> np.ndarray:
    """Unix seconds [E], ascending within each user: sittings of minutes, with days between."""
    n_events = int(lengths.sum())
    gap = rng.exponential(180.0, n_events) + 20.0
    pause = rng.random(n_events) < 0.12
    gap[pause] += rng.exponential(12 * 86_400.0, int(pause.sum()))
    total = np.cumsum(gap)
    first = np.cumsum(lengths) - lengths
    elapsed = total - np.repeat(total[first], lengths)
    span = years * YEAR_S
    duration = elapsed[first + lengths - 1]
    # A history longer than the whole period is squeezed into it.
    squeeze = np.minimum(1.0, 0.95 * span / np.maximum(duration, 1.0))
    begin = LAST_MOMENT - span + rng.random(len(lengths)) * (span - duration * squeeze)
    moment: np.ndarray = (np.repeat(begin, lengths) + elapsed * np.repeat(squeeze, lengths)).astype(
        np.int64
    )
    return moment


def _write_movies(
    path: Path, world: World, published: np.ndarray, rng: np.random.Generator
) -> None:
    order = np.argsort(published)
    titles = invent_titles(len(order), rng)
    _write_csv(
        path,
        {
            "movieId": published[order],
            "title": [f"{titles[i]} ({world.year[i]})" for i in order],
            "genres": ["|".join(world.genres[i]) for i in order],
        },
    )


def _write_csv(path: Path, columns: dict[str, object]) -> None:
    options = pacsv.WriteOptions(include_header=False, quoting_style="needed")
    with path.open("wb") as file:
        file.write((",".join(columns) + "\n").encode())  # the writer would quote the names
        pacsv.write_csv(pa.table(columns), file, options)
