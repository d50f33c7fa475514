"""The online feature store against the offline definition, and what a slate makes of it."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from app.domain import EventType, Query, SearchFilter, StoredUser, UserEvents
from app.stages import rerank
from app.stages.history import batch_histories, known
from app.stages.user_features import Sums, stored_inputs
from training.data.event_log import positives
from training.data.features import UserSums, user_features
from training.model.ranking import USER_INPUTS, ranker_features

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
    assert stored_inputs([Sums.of(state.stored, state)])[0].tolist() == pytest.approx(
        expected, rel=1e-6, nan_ok=True
    )


def test_a_store_that_is_newer_than_the_bundle_gives_the_history_and_an_older_one_nothing(bundle):
    user = int(bundle.user_ids[0])
    item_ids = tuple(bundle.items.ids[:2])
    state = UserEvents(stored=replace(stored_of([1], [4.0], "0-0"), item_ids=item_ids))
    manifest = bundle.manifest

    def now(time_range):
        data = manifest.data.model_copy(update={"statistics": {"time_range": time_range}})
        dated = replace(bundle, manifest=manifest.model_copy(update={"data": data}))
        found = known(dated, Query(user), state)
        return found.history.tolist(), found.sums is not None

    of_bundle = bundle.history(user).tolist()
    assert now([0, AS_OF - 1]) == ([0, 1], True)
    assert now([0, AS_OF]) == (of_bundle, True)
    assert now([0, AS_OF + 1]) == (of_bundle, False)
    assert now(None) == (of_bundle, False)


async def test_the_ranker_reads_the_stored_features_of_those_who_have_them(
    world, bundle, monkeypatch
):
    read = []

    def noting(*inputs):
        read.append(inputs[-1].copy())
        return ranker_features(*inputs)

    monkeypatch.setattr(rerank, "ranker_features", noting)
    queries = [Query(int(user)) for user in bundle.user_ids[:2]]
    plain = batch_histories([known(bundle, query, UserEvents()) for query in queries])
    assert plain.features is None
    stored = np.arange(len(USER_INPUTS), dtype=np.float32)
    both = replace(plain, features=np.stack([stored, np.full_like(stored, np.nan)]))
    vectors = await world.stages.embed("1", plain)
    candidates = await world.stages.retrieve("1", vectors, [SearchFilter()] * 2, [9, 9])
    for histories in (plain, both):
        await world.stages.rank("1", histories, candidates)
    assert np.array_equal(read[0], bundle.user_features[:2])
    assert np.array_equal(read[1], [stored, bundle.user_features[1]])
