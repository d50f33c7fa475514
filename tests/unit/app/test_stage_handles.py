"""Calls to a stage whose replicas die: another try, then none until it may be back."""

import asyncio

import pytest
from ray.exceptions import RayActorError, RayTaskError

from app.adapters import stage_handles
from app.adapters.stage_handles import StageHandles
from app.adapters.unix_calls import Listener
from app.errors import DependencyUnavailable


class Deployment:
    """Stands for a Serve handle; each call does what the next of `script` says."""

    def __init__(self, *script, sockets=()):
        self.script = list(script)
        self.sockets = list(sockets)
        self.calls = 0
        self.looks = 0

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

    def broadcast(self, method):
        assert method == "listen"
        self.looks += 1
        return self

    async def results_async(self):
        return [str(path) for path in self.sockets]


class Replica:
    """What listens on a socket."""

    def __init__(self):
        self.calls = 0

    def embed(self, version, histories):
        self.calls += 1
        if histories == "bad":
            raise ValueError("of one batch")
        return f"vectors of {version}"


async def listening(path):
    replica = Replica()
    listener = Listener(replica, path)
    await listener.start()
    return replica, listener


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def stages(deployment, **options):
    return StageHandles(deployment, Deployment(), Deployment(), **options)


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


async def test_batches_go_by_the_handle_until_a_socket_is_found(tmp_path):
    replica, listener = await listening(tmp_path / "s")
    deployment = Deployment(sockets=[tmp_path / "s"])
    handles = stages(deployment, have_sockets=True)
    assert await handles.embed("1", None) == "vectors"
    await until(lambda: deployment.looks)
    await asyncio.sleep(0.05)
    assert await handles.embed("1", None) == "vectors of 1"
    assert (deployment.calls, deployment.looks, replica.calls) == (1, 1, 1)
    with pytest.raises(DependencyUnavailable, match="embed: ValueError: of one batch"):
        await handles.embed("1", "bad")
    assert await handles.embed("2", None) == "vectors of 2"
    await listener.close()


async def test_batches_go_to_the_replica_that_owes_the_fewest_answers(tmp_path):
    (one, first), (other, second) = [await listening(tmp_path / name) for name in "ab"]
    deployment = Deployment(sockets=[tmp_path / "a", tmp_path / "b"])
    handles = stages(deployment, have_sockets=True)
    await handles.embed("1", None)
    await asyncio.sleep(0.05)
    await asyncio.gather(*(handles.embed("1", None) for _ in range(10)))
    assert one.calls == other.calls == 5
    await first.close()
    await second.close()


async def test_when_a_replica_goes_the_handle_answers_until_another_listens(tmp_path, monkeypatch):
    monkeypatch.setattr(stage_handles, "_LOOK_EVERY_S", 0.05)

    async def dying(reader, writer):
        await reader.readexactly(4)
        writer.close()

    server = await asyncio.start_unix_server(dying, tmp_path / "old")
    deployment = Deployment(sockets=[tmp_path / "old"])
    handles = stages(deployment, have_sockets=True)
    await handles.embed("1", None)
    await asyncio.sleep(0.1)
    assert await handles.embed("1", None) == "vectors"  # the second try
    server.close()
    replica, listener = await listening(tmp_path / "new")
    deployment.sockets = [tmp_path / "old", tmp_path / "new"]
    async with asyncio.timeout(5):
        while await handles.embed("1", None) == "vectors":
            await asyncio.sleep(0.01)
    assert replica.calls
    await listener.close()


async def test_without_sockets_nobody_looks_for_any():
    deployment = Deployment()
    handles = stages(deployment)
    assert await handles.embed("1", None) == "vectors"
    await asyncio.sleep(0.02)
    assert deployment.looks == 0
