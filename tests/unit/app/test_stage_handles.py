"""Calls to a stage whose replicas die: another try, then none until it may be back."""

import asyncio

import pytest
from ray.exceptions import RayActorError, RayTaskError

from app.adapters import stage_handles
from app.adapters.stage_handles import StageHandles
from app.errors import DependencyUnavailable


class Deployment:
    """Stands for a Serve handle; each call does what the next of `script` says."""

    def __init__(self, *script):
        self.script = list(script)
        self.calls = 0

    def options(self, **_):
        return self

    @property
    def embed(self):
        return self

    async def remote(self, *_):
        self.calls += 1
        act = self.script.pop(0) if self.script else "vectors"
        if isinstance(act, Exception):
            raise act
        if act == "hang":
            await asyncio.sleep(60)
        return act


def stages(deployment):
    return StageHandles(deployment, Deployment(), Deployment())


async def refused(embedding):
    with pytest.raises(DependencyUnavailable, match="embed"):
        await embedding


async def test_a_call_that_died_with_its_replica_is_sent_to_another():
    deployment = Deployment(RayActorError(), "vectors")
    assert await stages(deployment).embed("1", None) == "vectors"
    assert deployment.calls == 2


async def test_a_stage_without_replicas_is_left_alone_and_then_tried_by_one_call(monkeypatch):
    monkeypatch.setattr(stage_handles, "_SECOND_TRY_S", 0.01)
    monkeypatch.setattr(stage_handles, "_PAUSE_S", 0.05)
    deployment = Deployment(RayActorError(), "hang", "hang")
    handles = stages(deployment)
    await refused(handles.embed("1", None))
    await refused(handles.embed("1", None))
    assert deployment.calls == 2
    await asyncio.sleep(0.06)
    trying = asyncio.create_task(handles.embed("1", None))
    await asyncio.sleep(0)
    await refused(handles.embed("1", None))
    assert deployment.calls == 3
    trying.cancel()  # the pipeline's patience
    await asyncio.gather(trying, return_exceptions=True)
    await refused(handles.embed("1", None))
    await asyncio.sleep(0.06)
    assert await handles.embed("1", None) == "vectors"
    assert await handles.embed("1", None) == "vectors"


async def test_an_error_of_the_stage_itself_does_not_count_as_its_absence():
    error = RayTaskError("embed", "traceback", ValueError("of one batch"))
    deployment = Deployment(error, "vectors")
    handles = stages(deployment)
    await refused(handles.embed("1", None))
    assert await handles.embed("1", None) == "vectors"
