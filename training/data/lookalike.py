"""A data set of a published one's size and proportions, made in seconds, to measure with.

Unlike synthetic.py it plants no taste to be learnt; it has what makes preparing hard: a Zipf
distribution of items, log-normal activity, tastes that drift from old items to new ones, ratings
in the order of ids and not of time, and nobody who rates an item twice.
"""

import itertools
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from training.data.output import staged_directory
from training.data.synthetic import GENRES, LAST_MOMENT, MARKER, YEAR_S
from training.data.titles import invent_titles
from training.errors import UserError

USERS_AT_ONCE = 4_000
LEAST_EVENTS = 20  # of a user, as in MovieLens
BORN_AT_FIRST = 0.25  # share of the items that are there when the first user comes
NEW_SHARE = 0.3  # of a user's events that go to what has just come out
ZIPF_EXPONENT = 1.0
ROUNDS_BY_POPULARITY = 4  # of drawing until a user has enough different items
ACTIVITY_SIGMA = 1.1  # of the logarithm of events per user


@dataclass(frozen=True)
class Shape:
    """How much of everything, and over how many years."""

    users: int
    items: int
    events: int
    years: int


SHAPES = {
    "ml-1m": Shape(6_040, 3_883, 1_000_209, 3),
    "ml-25m": Shape(162_541, 62_423, 25_000_095, 24),
}


@dataclass(frozen=True)
class _Items:
    """Items in the order in which they came out."""

    ids: np.ndarray  # int64 [I], ascending
    favour: np.ndarray  # int64 [I]: the item of each rank of popularity
    rank_share: np.ndarray  # float64 [I]: cumulative share of the ranks
    quality: np.ndarray  # float32 [I]


def write_lookalike(out: Path, like: str, *, scale: float = 1.0, seed: int = 0) -> Shape:
    """Write ratings.csv and movies.csv to the directory `out`; returns how much is in them.

    scale: that many times the users and events of the published data set, with all its items.
    """
    if like not in SHAPES:
        raise UserError(f"--like {like!r} is unknown: choose one of {', '.join(SHAPES)}")
    whole = SHAPES[like]
    shape = Shape(
        max(round(whole.users * scale), 1),
        whole.items,
        max(round(whole.events * scale), LEAST_EVENTS),
        whole.years,
    )
    rng = np.random.default_rng(seed)
    items = _items(shape, rng)
    lengths = _lengths(shape, rng)
    with staged_directory(out, marker=MARKER) as staging:
        with (staging / "ratings.csv").open("wb") as file:
            file.write(b"userId,movieId,rating,timestamp\n")
            for first in range(0, shape.users, USERS_AT_ONCE):
                part = lengths[first : first + USERS_AT_ONCE]
                _write_rows(file, _events(shape, items, first, part, rng))
        _write_items(staging / "movies.csv", shape, items, rng)
        record = {"like": like, "scale": scale, "seed": seed, **asdict(shape)}
        (staging / MARKER).write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    return shape


def _items(shape: Shape, rng: np.random.Generator) -> _Items:
    share = np.arange(1, shape.items + 1) ** -ZIPF_EXPONENT
    return _Items(
        ids=np.cumsum(rng.integers(1, 6, shape.items)),
        favour=rng.permutation(shape.items),
        rank_share=np.cumsum(share) / share.sum(),
        quality=rng.normal(0.0, 0.45, shape.items).astype(np.float32),
    )


def _lengths(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Events of each user, int64 [U], log-normal, adding up to the number asked for."""
    most = shape.items // 10
    weight = rng.lognormal(0.0, ACTIVITY_SIGMA, shape.users)
    lengths = np.full(shape.users, min(LEAST_EVENTS, shape.events // shape.users))
    while missing := shape.events - int(lengths.sum()):
        room = np.where(lengths < most, weight, 0.0)
        wanted = np.floor(room / room.sum() * missing).astype(np.int64)
        if not wanted.any():  # the last few, one each
            wanted[np.argsort(-room, kind="stable")[:missing]] = 1
        lengths = np.minimum(lengths + wanted, most)
    return lengths


def _events(
    shape: Shape, items: _Items, first: int, lengths: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Columns of the events of the users from `first` on, by user and item."""
    arrival = rng.random(len(lengths))  # as a share of all years
    born = (shape.items * (BORN_AT_FIRST + (1 - BORN_AT_FIRST) * arrival)).astype(np.int64)
    key = np.zeros(0, np.int64)  # user * I + item, distinct and ascending
    missing = lengths
    for drawn_before in itertools.count():
        if not missing.any():
            break
        # The most active meet the popular items again and again: in the end, any item will do.
        surplus = missing // 2 + 2 if drawn_before == 0 else missing
        user = np.repeat(np.arange(len(lengths)), missing + surplus)
        if drawn_before < ROUNDS_BY_POPULARITY:
            drawn = _draw(items, born[user], rng)
        else:
            drawn = rng.integers(0, born[user], len(user))
        key = _distinct(np.concatenate([key, user * shape.items + drawn]))
        have = np.bincount(key // shape.items, minlength=len(lengths))
        missing = np.maximum(lengths - have, 0)
    key = _drop_surplus(key, key // shape.items, lengths, rng)
    user, item = key // shape.items, key % shape.items
    stay = rng.exponential(0.08, len(lengths))  # most come for weeks, some for years
    moment = arrival[user] + stay[user] * rng.random(len(user)) ** 2
    moment = np.minimum(moment, 1.0) * shape.years * YEAR_S
    habit = rng.normal(0.0, 0.4, len(lengths)).astype(np.float32)
    stars = 3.5 + habit[user] + items.quality[item] + 0.8 * rng.standard_normal(len(user), "f4")
    return {
        "userId": first + user + 1,
        "movieId": items.ids[item],
        "rating": np.clip(np.round(stars * 2) / 2, 0.5, 5.0).astype(np.float64),
        "timestamp": (LAST_MOMENT - shape.years * YEAR_S + moment).astype(np.int64),
    }


def _draw(items: _Items, born: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An item for each event, int64 [E], of the first `born` (int64 [E]) that have come out."""
    rank = np.searchsorted(items.rank_share, rng.random(len(born), "f4"))
    rank = np.minimum(rank, len(items.ids) - 1)
    lasting = items.favour[rank] % born
    newest = born - 1 - rank % born
    drawn: np.ndarray = np.where(rng.random(len(born), "f4") < NEW_SHARE, newest, lasting)
    return drawn


def _distinct(key: np.ndarray) -> np.ndarray:
    """Ascending; sorting is several times faster here than numpy's unique, which hashes."""
    key.sort()
    distinct: np.ndarray = key[np.concatenate([[True], key[1:] != key[:-1]])]
    return distinct


def _drop_surplus(
    key: np.ndarray, user: np.ndarray, lengths: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """`key` with as many of each user's as `lengths` says, drawn at random."""
    order = np.argsort(user + rng.random(len(user)), kind="stable")
    have = np.bincount(user, minlength=len(lengths))
    rank = np.arange(len(user)) - np.repeat(np.cumsum(have) - have, have)
    kept = np.zeros(len(user), dtype=bool)
    kept[order[rank < lengths[user]]] = True
    return key[kept]


def _write_rows(file: object, columns: dict[str, np.ndarray]) -> None:
    pacsv.write_csv(pa.table(columns), file, pacsv.WriteOptions(include_header=False))


def _write_items(path: Path, shape: Shape, items: _Items, rng: np.random.Generator) -> None:
    titles = invent_titles(shape.items, rng)
    year = 2023 - shape.years + np.arange(shape.items) * shape.years // shape.items
    extra = rng.integers(1, 4, shape.items)
    genres = ["|".join(sorted(rng.choice(GENRES, size, replace=False))) for size in extra]
    table = pa.table(
        {
            "movieId": items.ids,
            "title": [f"{title} ({y})" for title, y in zip(titles, year.tolist(), strict=True)],
            "genres": genres,
        }
    )
    with path.open("wb") as file:
        file.write(b"movieId,title,genres\n")
        options = pacsv.WriteOptions(include_header=False, quoting_style="needed")
        pacsv.write_csv(table, file, options)
