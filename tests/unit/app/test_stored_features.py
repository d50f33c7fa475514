"""The online feature store against the offline definition, and what a slate makes of it."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from app.domain import EventType, Query, StoredUser, UserEvents
from app.stages.history import batch_histories, known
from app.stages.user_features import stored_inputs
from training.data.event_log import positives
from training.data.features import UserSums, user_features
from training.model.ranking import USER_INPUTS

AS_OF = 1_700_000_000
ITEMS = 40


def offline(times, ratings, now):
    """USER_INPUTS of one user with these events, as training computes them."""
    size = len(times)
    table = user_features(
        np.zeros(size, np.int32), np.zeros(size, np.int32), np.array(ratings, np.float32),
        np.array(times), n_users=1, genre_names=[], genres=np.zeros((1, 0), bool), now=now,
    )  # fmt: skip
    return [table[name][0].as_py() for name in USER_INPUTS]


def stored_of(times, ratings, position):
    sums = UserSums.of(
        np.zeros(len(times), np.int32), np.zeros(len(times), np.int32),
        np.array(ratings, np.float32), np.array(times), n_users=1, genres=np.zeros((1, 0), bool),
    )  # fmt: skip
    totals = tuple(column[0].as_py() for column in sums.totals().columns)
    return StoredUser(AS_OF, position, totals, ())


@pytest.mark.parametrize("seed", range(20))
def test_online_features_are_those_of_training_over_the_same_events(seed):
    rng = np.random.default_rng(seed)
    n_old = int(rng.integers(1, 30))
    times = np.sort(rng.integers(AS_OF - 10**8, AS_OF, n_old)).tolist()
    ratings = rng.integers(1, 11, n_old) / 2
    ratings[rng.random(n_old) < 0.3] = np.nan
    kinds = [EventType(kind) for kind in rng.choice(list(EventType), 25)]
    items = rng.integers(0, 8, 25).astype(str).tolist()
    event_ids = [f"{(AS_OF + 3_600 * n) * 1000 + 7}-{n}" for n in range(25)]
    position = event_ids[9]  # the first ten are in the data already

    found = positives(
        pa.table({"event_id": event_ids, "user_id": ["1"] * 25, "item_id": items,
                  "event_type": [kind.value for kind in kinds]})
    )  # fmt: skip
    counted = [event_ids.index(event_id) for event_id in found["event_id"].to_pylist()]
    old = [AS_OF + 3_600 * n for n in counted if n <= 9]
    new = [AS_OF + 3_600 * n for n in counted if n > 9]

    unrated = [np.nan] * len(old)
    state = UserEvents(
        events=tuple(zip(items, kinds, strict=True)),
        event_ids=tuple(event_ids),
        stored=stored_of([*times, *old], [*ratings, *unrated], position),
    )
    every = [*times, *old, *new]
    expected = offline(every, [*ratings, *[np.nan] * len(old + new)], max([AS_OF, *new]))
    assert stored_inputs(state).tolist() == pytest.approx(expected, rel=1e-6, nan_ok=True)


def test_a_store_that_is_newer_than_the_bundle_gives_the_history(bundle):
    user = int(bundle.user_ids[0])
    item_ids = tuple(bundle.items.ids[:2])
    state = UserEvents(stored=replace(stored_of([1], [4.0], "0-0"), item_ids=item_ids))
    manifest = bundle.manifest

    def history(time_range):
        data = manifest.data.model_copy(update={"statistics": {"time_range": time_range}})
        dated = replace(bundle, manifest=manifest.model_copy(update={"data": data}))
        return known(dated, Query(user), state).history.tolist()

    assert history([0, AS_OF - 1]) == [0, 1]
    assert history([0, AS_OF]) == bundle.history(user).tolist()
    assert history(None) == bundle.history(user).tolist()


async def test_the_ranker_reads_the_stored_features_of_those_who_have_them(world, bundle):
    users = [int(user) for user in bundle.user_ids[:2]]
    row = bundle.user_features[0]
    queries = [Query(user) for user in users]
    plain = batch_histories([known(bundle, query, UserEvents()) for query in queries])
    assert plain.features is None
    same = replace(plain, features=np.stack([row, np.full_like(row, np.nan)]))
    other = replace(plain, features=np.stack([row + 5, np.full_like(row, np.nan)]))
    candidates = await world.stages.retrieve(
        bundle.version, await world.stages.embed(bundle.version, plain), [_all(), _all()], [9, 9]
    )
    scores = [await world.stages.rank("1", histories, candidates) for histories in
              (plain, same, other)]  # fmt: skip
    assert np.array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0][0], scores[2][0])
    assert np.array_equal(scores[0][1], scores[2][1])


def _all():
    from app.domain import SearchFilter

    return SearchFilter()
