"""What is known before the cut-off depends on nothing after it."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.chunks import prepare_inline
from training.data import dataset
from training.data.features import interaction_features
from training.data.movielens import detect

N_USERS, N_ITEMS = 4, 6
GENRES = ("Comedy", "Drama", "War|Drama", "(no genres listed)", "Western|Comedy", "War")
MAX_TIME = 10**9

event = st.tuples(
    st.integers(1, N_USERS),
    st.integers(1, N_ITEMS),
    st.sampled_from([0.5, 2.0, 3.5, 5.0]),
    st.integers(0, MAX_TIME // 2),
)
changes = st.tuples(
    st.integers(1, N_ITEMS), st.sampled_from([0.5, 1.0, 4.5]), st.integers(0, MAX_TIME // 2)
)


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Prepares events (user, item, rating, time) and returns the directory."""
    prepare = prepare_inline(monkeypatch)
    raw = tmp_path / "raw"
    raw.mkdir()
    lines = [f"{item},Item {item},{genres}" for item, genres in enumerate(GENRES, start=1)]
    (raw / "movies.csv").write_text("\n".join(["movieId,title,genres", *lines]))

    def run(events):
        lines = [",".join(map(str, event)) for event in events]
        header = "userId,movieId,rating,timestamp"
        (raw / "ratings.csv").write_text("\n".join([header, *lines]))
        prepare(detect(raw), tmp_path / "data", max_rejects=1.0, events_per_bucket=8)
        return tmp_path / "data"

    return run


def held_out(events):
    """Positions of each user's last fifth, by time and then by place."""
    found = []
    for user in range(1, N_USERS + 1):
        own = [i for i, each in enumerate(events) if each[0] == user]
        own.sort(key=lambda i: (events[i][3], i))
        found += own[len(own) - len(own) // 5 :]
    return found


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    events=st.lists(event, min_size=10, max_size=40, unique_by=lambda e: (e[0], e[1], e[3])),
    data=st.data(),
)
def test_changing_events_after_the_cut_off_changes_no_training_feature(prepared, events, data):
    after = held_out(events)
    changed = list(events)
    for position in after:
        if data.draw(st.booleans()):
            item, rating, later = data.draw(changes)
            user, _, _, time = events[position]
            # Another item at the same time could be a repeat, which is no event: move on a little.
            changed[position] = (user, item, rating, time + 1 + later)
    before = _known_before(prepared(events))
    assert _known_before(prepared(changed)) == before


def _known_before(path):
    return [
        dataset.read_features(path, name).to_pylist() for name in ("user_features", "item_features")
    ]


def test_features_before_the_cut_off_are_those_of_the_events_before_it(prepared):
    rng = np.random.default_rng(0)
    events = [
        (int(user), int(item), 3.5, int(time))
        for user, item, time in zip(
            rng.integers(1, N_USERS + 1, 60),
            rng.integers(1, N_ITEMS + 1, 60),
            rng.permutation(60) * 86_400,
            strict=True,
        )
    ]
    kept = [each for i, each in enumerate(events) if i not in set(held_out(events))]
    path = prepared(events)
    statistics = dataset.read_statistics(path)
    assert statistics["split"]["held_out"] == len(events) - len(kept)
    features = dataset.read_features(path, "item_features")
    for item, count in zip(
        features["item_id"].to_pylist(), features["n_events"].to_pylist(), strict=True
    ):
        assert count == sum(each[1] == item for each in kept)
    assert features["genre:War"].to_pylist() == ["War" in genres for genres in GENRES]


def test_interactions_are_described_by_the_past_of_their_users(prepared):
    path = prepared([(1, item, 0.5 + item / 2, item * 3600) for item in range(1, 7)])
    data, users = dataset.load(path), dataset.read_features(path, "user_features")
    columns = interaction_features(
        data.user,
        data.rating,
        data.timestamp,
        users["rating_mean"].to_numpy(),
        users["rating_std"].to_numpy(),
    )
    first_five = np.arange(1, 6) / 2 + 0.5
    expected = (3.5 - first_five.mean()) / first_five.std()
    assert columns["rating_z"][5] == pytest.approx(expected)
    assert columns["hour"].tolist() == [1, 2, 3, 4, 5, 6]
    assert pa.array(columns["day_of_week"]).unique().to_pylist() == [3]
