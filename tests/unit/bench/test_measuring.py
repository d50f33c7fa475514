"""The parts of `marquee bench serve` and `profile` that need no service."""

import os

from bench.comparison import fused, stock
from bench.memory import cpu_seconds, tree_memory
from bench.profile import shares
from bench.serve import Workload
from bench.stream import FEEDBACK_SHARE, realistic_bodies


def test_a_stream_asks_as_its_order_says_and_tells_of_popular_items_now_and_then():
    order = [0, 1, 2, 1] * 5_000
    sent = realistic_bodies(["a", "b", "c"], order, list(range(100)), seed=1)
    assert [body["user_id"] for _, body in sent[:4]] == ["a", "b", "c", "b"]
    told = [body for path, body in sent if path == "/feedback"]
    assert abs(len(told) / len(sent) - FEEDBACK_SHARE) < 0.01
    named = [body["item_id"] for body in told]
    assert named.count(0) > named.count(50)
    assert sent == realistic_bodies(["a", "b", "c"], order, list(range(100)), seed=1)


def test_a_sample_belongs_to_the_innermost_part_on_its_stack_and_waiting_to_none():
    top = "Thread.run (threading.py:982);recommend (app/pipeline.py:76)"
    stacks = [
        f"{top};rank (app/stages/rerank.py:9);predict (lightgbm/basic.py:4) 6",
        f"{top};get (redis/asyncio/client.py:2) 3",
        f"{top};collect (gc.c:1) 1",
        "Thread.run (threading.py:982);_run (loop.py:5) 1",
        "Thread.run (threading.py:982) 40",
        "Thread.run (threading.py:982);wait (threading.py:327) 90",
    ]
    assert shares("\n".join(stacks)) == {
        "ranker": 0.545,
        "redis": 0.273,
        "pipeline": 0.091,
        "other": 0.091,
    }
    assert shares("") == {}


def test_memory_and_cpu_of_a_tree_name_its_processes():
    memory = tree_memory(os.getpid())
    assert memory["pss_mb"] > 10
    assert memory["processes"] >= 1
    assert sum(memory["by_process"].values()) > 10
    assert sum(cpu_seconds(os.getpid()).values()) > 0


def test_other_starts_change_only_what_they_compare(tmp_path):
    from app.settings import Settings

    settings = Settings(store=str(tmp_path), candidates=150)
    other = fused(settings, Workload())
    assert other.settings["topology"] == "fused" and other.accelerated
    assert Settings.model_validate(other.settings).candidates == 150
    plain = stock(settings, Workload())
    assert not plain.accelerated
    assert Settings.model_validate(plain.settings).max_batch == 1
    assert plain.workload["modes"] == ("empty", "uncached")
