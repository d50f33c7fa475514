"""One tiny bundle, its stages in process, and stores in memory: the pipeline without a network."""

from dataclasses import dataclass, field

import pytest

from app.adapters.local_stages import LocalStages
from app.adapters.none import never_loaded
from app.adapters.qdrant_edge import QdrantEdgeIndex
from app.erasing import Eraser
from app.live import Live
from app.metrics import Metrics
from app.models import Model
from app.pages import Pages
from app.pipeline import Limits, Recommender
from app.service import Service
from app.write_behind import WriteBehindCache
from tests.bundles import tiny_bundle
from tests.fakes import FakeEventStream, FakeSlateCache, FakeUserState, FakeWindowCounts
from training.model.bundle import Bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """60 items, 40 users, integer ids."""
    return Bundle.open(tiny_bundle(tmp_path_factory.mktemp("bundle") / "1"))


@dataclass
class World:
    """A recommender and everything it leans on."""

    model: Model
    stages: LocalStages
    state: FakeUserState = field(default_factory=FakeUserState)
    cache: FakeSlateCache = field(default_factory=FakeSlateCache)
    metrics: Metrics = field(default_factory=Metrics)
    counts: FakeWindowCounts = field(default_factory=FakeWindowCounts)
    stream: FakeEventStream = field(default_factory=FakeEventStream)

    def __post_init__(self):
        self.slates = WriteBehindCache(self.cache, self.metrics, timeout_s=0.5)
        self.live = Live(self.counts, self.state, self.metrics, loaded_at=never_loaded, every_s=60)

    def recommender(self, **replaced):
        """The recommender, with some of its parts replaced."""
        parts = {
            "current": lambda: self.model,
            "state": self.state,
            "cache": self.slates,
            "embedder": self.stages,
            "retriever": self.stages,
            "ranker": self.stages,
            "metrics": self.metrics,
            "limits": Limits(candidates=20, stage_timeout_s=0.5),
            "is_erased": self.live.is_erased,
        }
        return Recommender(**(parts | replaced))

    def service(self, **replaced):
        """The service over the recommender."""
        return Service(
            current=lambda: self.model,
            recommender=self.recommender(**replaced),
            state=self.state,
            metrics=self.metrics,
            max_batch=8,
            batches_in_flight=2,
            live=self.live,
            eraser=Eraser(self.state, self.stream, self.slates, None),
            pages=Pages(self.cache),
            max_wait_s=5.0,
        )


@pytest.fixture(scope="session")
def _loaded(bundle):
    stages = LocalStages(lambda version: bundle.path, QdrantEdgeIndex, rank_depth=50)
    return Model.load(bundle), stages


@pytest.fixture
def world(_loaded):
    """Fresh stores around the shared, loaded bundle."""
    return World(*_loaded)
