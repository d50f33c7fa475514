"""Training on a cluster: what the nightly job and a RayJob run, on what, and what they say."""

import os
import shlex
import subprocess

import pytest

from tests.scenarios import Rendered, values_of
from training.retrain_commands import GATE_CLOSED


def test_feedback_is_exported_and_learnt_from_where_it_was_put(all_rendered, render):
    for scenario, log in (("production", "s3://models/marquee/log"), ("default", "/store/log")):
        values = {} if scenario == "default" else values_of(scenario)
        values = values | {"training": values.get("training", {}) | {"run": "now"}}
        values["training"]["nightly"] = {"enabled": True}
        made = Rendered(scenario, render(values))
        export = ["marquee", "events", "export", "--log", log, "--keep-hours", "48"]
        commands = {where: container for where, container in made.containers()}
        for where in ("CronJob/marquee-events", "CronJob/marquee-nightly"):
            container = commands[f"{where}/export-events"]
            assert container["command"] == export
            assert "REDIS_URL" in {variable["name"] for variable in container["env"]}
        nightly = commands["CronJob/marquee-nightly/retrain"]["args"]
        assert nightly[-2:] == ["--log", log]
        assert f"--log {log} " in made.one("RayJob")["spec"]["entrypoint"]
    assert not [o for o in all_rendered["minimal"].of_kind("CronJob")], "it has no Redis for state"


def test_after_a_nightly_promotion_the_feature_store_is_loaded(all_rendered):
    rendered = all_rendered["production"]
    retrain = dict(rendered.containers())["CronJob/marquee-nightly/retrain"]
    assert "marquee features materialize /tmp/retrain/data" in retrain["command"][2]
    assert {"REDIS_URL", "MARQUEE_STORE"} <= {variable["name"] for variable in retrain["env"]}
    assert retrain["args"][retrain["args"].index("--work") + 1] == "/tmp/retrain"
    spec = rendered.one("CronJob", "nightly")["spec"]["jobTemplate"]["spec"]
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == "retrain"
    assert rule["onExitCodes"]["values"] == [GATE_CLOSED, 4]


# Of retrain, of features materialize, of the nightly job, of the RayJob.
STATUSES = [(0, 0, 0, 0), (0, 2, 4, 0), (3, 0, 3, 3), (1, 0, 1, 1)]


@pytest.mark.parametrize(("retrain", "materialize", "nightly", "on_demand"), STATUSES)
def test_a_trainings_exit_status_tells_what_failed(
    all_rendered, tmp_path, retrain, materialize, nightly, on_demand
):
    """Of the very scripts, with another `marquee`, which writes down how it was called."""
    called = tmp_path / "called"
    marquee = tmp_path / "marquee"
    marquee.write_text(
        f"#!/bin/sh\necho $* >> {called}\n[ $1 = retrain ] && exit {retrain}\nexit {materialize}\n"
    )
    marquee.chmod(0o755)
    rendered = all_rendered["production"]
    container = dict(rendered.containers())["CronJob/marquee-nightly/retrain"]
    entrypoint = rendered.one("RayJob")["spec"]["entrypoint"]
    # The submitter's shell takes it apart, `ray job submit` puts it together for another shell.
    submitted = shlex.join(shlex.split(entrypoint))
    for words, work, expected in (
        ([*container["command"], *container["args"]], "/tmp/retrain", nightly),
        (["sh", "-c", submitted], "/runs/first", on_demand),
    ):
        called.write_text("")
        path = f"{tmp_path}:{os.environ['PATH']}"
        done = subprocess.run(words, env={"PATH": path}, capture_output=True)
        assert done.returncode == expected
        first, *then = called.read_text().splitlines()
        assert first.startswith("retrain ") and f"--work {work}" in first
        assert then == ([f"features materialize {work}/data"] if retrain == 0 else [])


def test_gpus_are_for_the_pods_that_train_and_for_no_other(all_rendered):
    rendered = all_rendered["gpu"]
    trains = {"CronJob/marquee-nightly/retrain", "RayJob/workers/ray-worker"}
    for where, container in rendered.containers():
        for part in ("requests", "limits"):
            gpus = container["resources"][part].get("nvidia.com/gpu")
            assert gpus == ("1" if where in trains else None), where
    for where, template in rendered.pod_templates():
        spec = template["spec"]
        placed = {key for key in ("runtimeClassName", "nodeSelector", "tolerations") if key in spec}
        on_gpu = any(one.startswith(f"{where}/") for one in trains)
        assert placed == (
            {"runtimeClassName", "nodeSelector", "tolerations"} if on_gpu else set()
        ), where
        if where.startswith(("RayJob", "CronJob/marquee-nightly")):
            images = {c["image"] for c in spec["containers"]}
            assert images == {"registry.example.com/marquee:0.1.0-cuda"}, where
    assert "--gpu" in rendered.one("RayJob")["spec"]["entrypoint"].split()
    assert "--gpu" in dict(rendered.containers())["CronJob/marquee-nightly/retrain"]["args"]
