"""A promoted version answers once it is loaded everywhere; one that cannot be loaded never does."""

import asyncio
from pathlib import Path

import pytest

from app.errors import DependencyUnavailable, ModelNotReady
from app.metrics import Metrics
from app.models import Model, Versions
from app.promotion import Promotion
from tests.bundles import tiny_bundle


class Pointer:
    """The store's pointer; an exception in place of a version is raised."""

    def __init__(self, version):
        self.version = version

    def production(self):
        if isinstance(self.version, Exception):
            raise self.version
        return self.version


class Stages:
    """Remembers what it was told to prepare; refuses the versions in `broken`."""

    def __init__(self):
        self.prepared = []
        self.broken = set()

    async def prepare(self, version):
        if version in self.broken:
            raise DependencyUnavailable(f"stages: no {version}")
        self.prepared.append(version)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("bundles")
    for version in ("1", "2"):
        tiny_bundle(root / version, version=version)
    return root


@pytest.fixture
def stages():
    return Stages()


@pytest.fixture
def pointer():
    return Pointer("1")


@pytest.fixture
def promotion(bundles, pointer, stages):
    models = Versions(lambda version: bundles / version, Model.load)
    return Promotion(pointer, models, stages, Metrics(), poll_s=0.01)


async def test_nothing_answers_before_the_first_promotion(promotion, pointer):
    pointer.version = None
    await promotion.look()
    with pytest.raises(ModelNotReady):
        promotion.current()


async def test_the_promoted_version_answers_once_the_stages_have_it(promotion, pointer, stages):
    await promotion.look()
    assert promotion.current().version == "1"
    pointer.version = "2"
    await promotion.look()
    assert promotion.current().version == "2"
    assert stages.prepared == ["1", "2"]


@pytest.mark.parametrize("wanted", ["3", OSError("the store is away")])
async def test_a_version_that_cannot_be_had_leaves_the_one_before(promotion, pointer, wanted):
    await promotion.look()
    pointer.version = wanted
    await promotion.look()
    assert promotion.current().version == "1"


async def test_a_version_that_a_stage_cannot_load_is_tried_again(promotion, pointer, stages):
    await promotion.look()
    pointer.version = "2"
    stages.broken.add("2")
    await promotion.look()
    assert promotion.current().version == "1"
    stages.broken.clear()
    await promotion.look()
    assert promotion.current().version == "2"


async def test_the_pointer_is_followed_while_the_api_lives(promotion, pointer):
    async with promotion.followed(None):
        assert promotion.current().version == "1"
        pointer.version = "2"
        async with asyncio.timeout(30):
            while promotion.current().version != "2":
                await asyncio.sleep(0.01)
        promotion.check_following()
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError):
        promotion.check_following()


async def test_only_the_newest_two_versions_stay_loaded(bundles):
    built = []
    versions = Versions(lambda version: bundles / version, lambda b: built.append(b.version) or b)
    for version in ("1", "2", "1", "2"):
        versions.get(version)
    assert built == ["1", "2"]
