"""What every vector index promises, against the definition: sort everything and filter."""

import asyncio
import stat

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import AsyncQdrantClient, models

from app.adapters import qdrant_edge
from app.adapters.exact_scan import ByteProduct, ExactScan
from app.adapters.indexes import left_behind
from app.adapters.qdrant_edge import QdrantEdgeIndex
from app.adapters.qdrant_server import QdrantServerIndex, collection_name
from app.domain import SearchFilter
from app.errors import DependencyUnavailable
from tests.bundles import tiny_bundle
from tests.contract import qdrant_grpc
from tests.fakes import FakeVectorIndex
from training.model.bundle import Bundle
from training.store import Store

# qdrant-client's local engine says that it scans instead of building indexes.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect"),
    pytest.mark.filterwarnings("ignore:Local mode performs exact"),
    pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection"),
]

N_ITEMS = 500
NO_FILTER = SearchFilter()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("index") / "bundle"
    return Bundle.open(tiny_bundle(path, n_items=N_ITEMS, n_users=5))


@pytest.fixture(params=["fake", "edge", "edge-engine", "local", "server"])
async def index(request, bundle, monkeypatch):
    """An index of the bundle. "edge-engine": as if too large to be scanned. "local" is
    qdrant-client's own engine, "server" the same by gRPC."""
    if request.param == "fake":
        yield FakeVectorIndex(bundle)
    elif request.param == "edge":
        yield QdrantEdgeIndex(bundle)
    elif request.param == "edge-engine":
        monkeypatch.setattr(qdrant_edge, "SCAN_BYTES", bundle.item_vectors.nbytes - 1)
        yield QdrantEdgeIndex(bundle)
    elif request.param == "local":
        index = QdrantServerIndex(bundle, AsyncQdrantClient(":memory:"), timeout_s=30)
        yield index
        await index.close()
    else:
        async with qdrant_grpc.running("secret") as url:
            index = QdrantServerIndex.connect(bundle, url=url, api_key="secret", timeout_s=30)
            yield index
            await index.close()


@pytest.fixture
def users():
    """Three user vectors."""
    return np.random.default_rng(1).normal(size=(3, 128)).astype(np.float32)


def _matching(bundle, wanted):
    """item_idx that satisfy the filter, written as one would read it aloud."""
    items = bundle.items
    kept = []
    for i in range(len(items)):
        year, rating = items.years[i], items.avg_rating[i]
        if wanted.genres and not any(genre in items.genres[i] for genre in wanted.genres):
            continue
        if wanted.min_rating is not None and not rating >= np.float32(wanted.min_rating):
            continue
        if wanted.year_from is not None and (year is None or year < wanted.year_from):
            continue
        if wanted.year_to is not None and (year is None or year > wanted.year_to):
            continue
        if i not in wanted.exclude:
            kept.append(i)
    return np.array(kept, np.int32)


def _expected(bundle, vector, wanted, limit):
    matching = _matching(bundle, wanted)
    scores = bundle.item_vectors[matching] @ vector
    best = np.argsort(-scores)[:limit]
    return matching[best], scores[best]


async def _check(index, bundle, users, filters, limits):
    found = await index.search(users, filters, limits)
    assert found.items.dtype == np.int32
    assert found.scores.dtype == np.float32
    for b, (wanted, limit) in enumerate(zip(filters, limits, strict=True)):
        items, scores = _expected(bundle, users[b], wanted, limit)
        hits = found.items[b] >= 0
        assert found.items[b][hits].tolist() == items.tolist()
        np.testing.assert_allclose(found.scores[b][hits], scores, rtol=1e-4, atol=1e-4)
        assert not hits[len(items) :].any()
    return found


async def test_the_best_items_come_first(index, bundle, users):
    await _check(index, bundle, users, [NO_FILTER] * 3, [100] * 3)


async def test_each_row_has_its_own_limit_and_is_padded_at_the_end(index, bundle, users):
    found = await _check(index, bundle, users, [NO_FILTER] * 3, [1, 7, 300])
    assert found.items.shape == (3, 300)
    assert (found.items[0, 1:] == -1).all()
    assert (np.diff(found.scores[1, :7]) <= 0).all()
    assert np.isneginf(found.scores[1, 7:]).all()


async def test_a_limit_beyond_the_catalogue_returns_the_catalogue(index, bundle, users):
    found = await index.search(users[:1], [NO_FILTER], [5 * N_ITEMS])
    assert sorted(found.items[0]) == list(range(N_ITEMS))


@pytest.mark.parametrize(
    "wanted",
    [
        SearchFilter(genres=("Drama",)),
        SearchFilter(genres=("Drama", "Horror")),
        SearchFilter(min_rating=3.5),
        SearchFilter(year_from=1980),
        SearchFilter(year_to=1980),
        SearchFilter(year_from=1975, year_to=1975),
        SearchFilter(genres=("Comedy",), min_rating=3.0, year_from=1960, year_to=2000),
    ],
    ids=str,
)
async def test_filters_hold_and_the_number_asked_for_is_met(index, bundle, users, wanted):
    matching = len(_matching(bundle, wanted))
    assert matching > 0
    found = await _check(index, bundle, users, [wanted, NO_FILTER, wanted], [matching, 10, 5])
    assert (found.items[0, :matching] >= 0).all()
    assert (found.items[2, :5] >= 0).all()


async def test_rows_with_and_without_conditions_share_a_batch(index, bundle, users):
    excluded = np.arange(0, N_ITEMS, 3, dtype=np.int32)
    filters = [SearchFilter(exclude=excluded), SearchFilter(genres=("Drama",)), NO_FILTER]
    await _check(index, bundle, users, filters, [60, 5, 40])


@pytest.fixture(scope="module")
def edge(bundle):
    """One engine for many examples."""
    return QdrantEdgeIndex(bundle)


@pytest.mark.parametrize("in_bytes", [False, True])
@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), limit=st.integers(0, N_ITEMS + 9), rows=st.integers(0, 4))
def test_the_scan_finds_what_the_engine_finds(bundle, edge, in_bytes, seed, limit, rows):
    rng = np.random.default_rng(seed)
    users = rng.normal(size=(rows, 128)).astype(np.float32)
    sizes = rng.integers(0, N_ITEMS + 1, rows)
    excluded = [rng.permutation(N_ITEMS)[:n].astype(np.int32) for n in sizes]
    limits = [max(1, limit - row) for row in range(rows)]
    scan = ExactScan(bundle.item_vectors, in_bytes=in_bytes)
    scanned = scan.search(users, excluded, limits)
    engine = edge._ask_engine(users, [SearchFilter(exclude=e) for e in excluded], limits)
    assert scanned.items.tolist() == engine.items.tolist()
    np.testing.assert_allclose(scanned.scores, engine.scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_bytes_overlook_nothing_in_a_catalogue_of_many_groups(spread):
    """Vectors of like lengths, and some far longer than others."""
    rng = np.random.default_rng(6)
    items = rng.normal(size=(9_000, 32)).astype(np.float32)
    items *= spread ** rng.uniform(-1, 1, size=(len(items), 1)).astype(np.float32)
    users = rng.normal(size=(8, 32)).astype(np.float32)
    users[7] = 0
    excluded = [rng.permutation(len(items))[: 40 * row].astype(np.int32) for row in range(8)]
    limits = [1, 10, 100, 100, 100, 3_000, 9_000, 5]
    found = ExactScan(items, in_bytes=True).search(users, excluded, limits)
    scores = users.astype(np.float64) @ items.T.astype(np.float64)
    for row, limit in enumerate(limits):
        scores[row, excluded[row]] = -np.inf
        present = min(limit, len(items) - len(excluded[row]))
        best = np.sort(scores[row])[::-1][:present]
        ids = found.items[row, :present]
        assert len(set(ids.tolist())) == present
        assert (found.items[row, present:] == -1).all()
        np.testing.assert_allclose(scores[row, ids], best, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.scores[row, :present], best, rtol=1e-4, atol=1e-5)


def test_of_items_with_a_large_bias_few_are_scored_again(monkeypatch):
    """As trained ones are: most coordinates small, one great and almost the same for all."""
    rng = np.random.default_rng(6)
    items = rng.normal(scale=0.01, size=(9_000, 128)).astype(np.float32)
    items[:, -1] = rng.normal(2.0, 0.5, size=len(items))
    users = rng.normal(scale=10, size=(8, 128)).astype(np.float32)
    users[:, -1] = 1.0
    again = []
    exactly = ByteProduct.exactly

    def counted(self, vector, among, compared):
        again.append(len(among))
        return exactly(self, vector, among, compared)

    monkeypatch.setattr(ByteProduct, "exactly", counted)
    found = ExactScan(items, in_bytes=True).search(users, [np.empty(0, np.int32)] * 8, [50] * 8)
    best = np.argsort(-(users.astype(np.float64) @ items.T.astype(np.float64)), axis=1)[:, :50]
    assert [set(row) for row in found.items.tolist()] == [set(row) for row in best.tolist()]
    assert max(again) < len(items) / 5


async def test_hundreds_of_items_can_be_excluded(index, bundle, users):
    watched = np.random.default_rng(2).choice(N_ITEMS, 400, replace=False).astype(np.int32)
    filters = [
        SearchFilter(exclude=watched),
        SearchFilter(genres=("Action",), exclude=watched[:200]),
        NO_FILTER,
    ]
    found = await _check(index, bundle, users, filters, [90, 50, 50])
    assert not np.isin(found.items[0], watched).any()


async def test_a_rating_as_it_is_shown_finds_the_item(index, bundle, users):
    item = int(np.nanargmax(bundle.items.avg_rating))
    shown = float(str(bundle.items.avg_rating[item]))  # the shortest decimal for the float32
    found = await index.search(users[:1], [SearchFilter(min_rating=shown)], [10])
    assert item in found.items[0]


async def test_what_nothing_satisfies_is_an_empty_row(index, bundle, users):
    everything = np.arange(N_ITEMS, dtype=np.int32)
    filters = [SearchFilter(genres=("Western",)), SearchFilter(exclude=everything), NO_FILTER]
    found = await index.search(users, filters, [10, 10, 10])
    assert (found.items[:2] == -1).all()
    assert (found.items[2] >= 0).all()


async def test_an_empty_batch_is_an_empty_answer(index):
    found = await index.search(np.zeros((0, 128), np.float32), [], [])
    assert found.items.shape[0] == found.scores.shape[0] == 0


async def test_an_item_finds_itself_among_its_own_kind(index, bundle):
    vectors = np.eye(128, dtype=np.float32)[:1] * 3
    found = await index.search(vectors, [NO_FILTER], [1])
    assert found.items[0, 0] == int(np.argmax(bundle.item_vectors[:, 0]))


async def test_the_edge_engine_leaves_the_bundles_files_as_they_were(tmp_path, users):
    path = tiny_bundle(tmp_path / "bundle")
    first, second = (QdrantEdgeIndex(Bundle.open(path)) for _ in range(2))
    for index in (first, second):
        await index.search(users, [NO_FILTER] * 3, [10] * 3)
    del first, second, index
    Bundle.open(path, verify=True)


async def test_the_edge_engine_serves_a_store_it_may_not_write(tmp_path, users, monkeypatch):
    bundle = Bundle.open(tiny_bundle(tmp_path / "bundle"))
    expected = await QdrantEdgeIndex(bundle).search(users, [NO_FILTER] * 3, [10] * 3)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    for file in bundle.index_path.rglob("*"):
        file.chmod(file.stat().st_mode & ~0o222)
    # The tests may run as root, whom no mode stops: answer as a read-only file system would.
    monkeypatch.setattr("os.access", lambda *_: False)
    index = QdrantEdgeIndex(bundle)
    copies = list(scratch.rglob("index/**/*"))
    assert copies
    assert all(copy.stat().st_mode & stat.S_IWUSR for copy in copies)
    found = await index.search(users, [NO_FILTER] * 3, [10] * 3)
    assert found.items.tolist() == expected.items.tolist()
    del index
    assert not list(scratch.iterdir())


def test_an_edge_index_the_engine_refuses_is_a_dependency_unavailable(tmp_path):
    bundle = Bundle.open(tiny_bundle(tmp_path / "bundle"))
    (bundle.index_path / "edge_config.json").write_text("{")
    with pytest.raises(DependencyUnavailable, match="cannot load"):
        QdrantEdgeIndex(bundle)


async def test_collections_left_behind_go_once_the_new_one_is_filled(bundle, tmp_path):
    store = Store.open(str(tmp_path))
    for version in ("1", "2", "3"):
        tiny_bundle(
            tmp_path / "bundles" / version,
            version=version,
            seed=int(version),
            n_items=12,
            n_users=3,
        )
        store.promote(version)
    old, previous, current = (Bundle.open(tmp_path / "bundles" / v) for v in ("1", "2", "3"))
    own = [collection_name(known.manifest) for known in (old, previous, current)]
    async with qdrant_grpc.running("secret") as url:
        indexes = [
            QdrantServerIndex.connect(
                known, url=url, api_key="secret", timeout_s=30,
                left_behind=lambda names: left_behind(store, names),
            )
            for known in (bundle, previous, current)
        ]  # fmt: skip
        client = AsyncQdrantClient(
            url=url, api_key="secret", prefer_grpc=True, check_compatibility=False,
            grpc_port=int(url.rsplit(":", 1)[1]) + 1,
        )  # fmt: skip
        size = models.VectorParams(size=128, distance=models.Distance.DOT)
        await client.create_collection(own[0], vectors_config=size)
        await indexes[0].search(
            np.zeros((1, 128), np.float32), [NO_FILTER], [1]
        )  # not this store's
        for index in indexes[1:]:
            await index.prepare()
        names = {known.name for known in (await client.get_collections()).collections}
        for each in (*indexes, client):
            await each.close()
    assert names == {own[1], own[2], indexes[0].collection}


async def test_a_server_that_is_away_is_a_dependency_unavailable(bundle, users, free_port):
    index = QdrantServerIndex.connect(
        bundle, url=f"http://127.0.0.1:{free_port}", api_key=None, timeout_s=0.5
    )
    with pytest.raises(DependencyUnavailable, match="Qdrant"):
        await index.search(users, [NO_FILTER] * 3, [10] * 3)
    await index.prepare()  # the service starts all the same, and degrades
    await index.close()


async def test_a_wrong_api_key_is_a_dependency_unavailable(bundle, users):
    async with qdrant_grpc.running("secret") as url:
        index = QdrantServerIndex.connect(bundle, url=url, api_key="wrong", timeout_s=30)
        with pytest.raises(DependencyUnavailable, match="Invalid API key"):
            await index.search(users, [NO_FILTER] * 3, [10] * 3)
        await index.close()


async def test_replicas_that_fill_at_the_same_time_end_with_one_whole_collection(bundle, users):
    async with qdrant_grpc.running("secret") as url:
        replicas = [
            QdrantServerIndex.connect(bundle, url=url, api_key="secret", timeout_s=30)
            for _ in range(3)
        ]
        await asyncio.gather(*(replica.prepare() for replica in replicas))
        for replica in replicas:
            await _check(replica, bundle, users, [NO_FILTER] * 3, [10] * 3)
            await replica.close()


async def test_a_half_filled_collection_is_completed_before_it_answers(bundle, users):
    client = AsyncQdrantClient(":memory:")
    whole = QdrantServerIndex(bundle, client, timeout_s=30)
    await whole.prepare()
    assert (await client.count(whole.collection)).count == N_ITEMS
    await client.delete(whole.collection, points_selector=list(range(0, N_ITEMS, 2)))
    again = QdrantServerIndex(bundle, client, timeout_s=30)
    await _check(again, bundle, users, [NO_FILTER] * 3, [20] * 3)
    await client.close()


async def test_a_collection_that_the_server_lost_is_filled_again(bundle, users):
    client = AsyncQdrantClient(":memory:")
    index = QdrantServerIndex(bundle, client, timeout_s=30)
    await index.prepare()
    await client.delete_collection(index.collection)
    # A server answers "not found", the local engine raises its own ValueError.
    with pytest.raises((DependencyUnavailable, ValueError)):
        await index.search(users, [NO_FILTER] * 3, [10] * 3)
    await _check(index, bundle, users, [NO_FILTER] * 3, [10] * 3)
    await client.close()


async def test_two_bundles_of_one_version_do_not_share_a_collection(tmp_path):
    client = AsyncQdrantClient(":memory:")
    paths = [tiny_bundle(tmp_path / str(seed), seed=seed) for seed in (1, 2)]
    names = {QdrantServerIndex(Bundle.open(p), client, timeout_s=1).collection for p in paths}
    assert len(names) == 2
    assert all(name.startswith("items-1-") for name in names)
    await client.close()
