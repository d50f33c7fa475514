"""Every object against Kubernetes' own schemas and KubeRay's, and what Ray reads from them."""

import importlib
import json
import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from app.main import app as application
from app.main import build
from app.settings import Settings
from tests.scenarios import CHART, ROOT, Rendered

KUBERNETES_VERSIONS = ("1.31", "1.32", "1.33", "1.34", "1.35", "1.36")
CRDS = ROOT.parent / "shared" / "crds"
MONITORING = ("PodMonitor", "ServiceMonitor", "PrometheusRule", "HTTPRoute")


@pytest.fixture(scope="module")
def kubernetes_validate():
    """The package, which reads each of its files once: a version's definitions are megabytes."""
    package = pytest.importorskip("kubernetes_validate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package.utils, "schema_contents", cache(package.utils.schema_contents))
        yield package


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_every_object_is_valid_for_kubernetes(all_rendered, kubernetes_validate, version):
    seen = set()
    for rendered in all_rendered.values():
        for made in rendered.objects:
            text = json.dumps(made, sort_keys=True)
            if made["kind"].startswith("Ray") or made["kind"] in MONITORING or text in seen:
                continue
            seen.add(text)
            kubernetes_validate.validate(made, version, strict=True)
    assert len(seen) > 50


def test_pods_of_ray_are_valid_pods(all_rendered, kubernetes_validate):
    """The CRD's copy of the pod's schema lets unknown fields through."""
    for rendered in all_rendered.values():
        for where, template in rendered.pod_templates():
            if where.startswith("Ray"):
                pod = {"apiVersion": "v1", "kind": "Pod", **template}
                pod["metadata"] = {"name": "pod", **template["metadata"]}
                kubernetes_validate.validate(pod, "1.36", strict=True)


@cache
def crd(kind):
    file = CRDS / f"{kind.lower()}-v1.json"
    if not file.is_file():
        pytest.skip("needs ../shared/crds beside the repository")
    return strict(json.loads(file.read_text())["openAPIV3Schema"])


def strict(schema):
    """The schema with every object closed that lists its properties, as a strict server has it."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    if isinstance(closed.get("properties"), dict) and closed.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        closed.pop("type", None)
    return closed


@pytest.mark.parametrize("kind", ["RayService", "RayJob"])
def test_ray_objects_are_valid_for_kuberay(all_rendered, kind):
    jsonschema = pytest.importorskip("jsonschema")
    schema = crd(kind)
    schema["properties"]["metadata"] = {"type": "object"}
    found = [made for r in all_rendered.values() for made in r.of_kind(kind)]
    assert found
    for made in found:
        jsonschema.Draft7Validator(schema).validate(made)


def test_the_cluster_file_is_valid_for_kuberay():
    jsonschema = pytest.importorskip("jsonschema")
    schema = crd("RayCluster")
    schema["properties"]["metadata"] = {"type": "object"}
    made = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    jsonschema.Draft7Validator(schema).validate(made)


def with_rules(schema, path=()):
    """(path, rule) of each rule in CEL, which only the API server evaluates; []: of a list."""
    found = [(path, rule["rule"]) for rule in schema.get("x-kubernetes-validations", [])]
    for name, part in schema.get("properties", {}).items():
        found += with_rules(part, (*path, name))
    if isinstance(schema.get("items"), dict):
        found += with_rules(schema["items"], (*path, "[]"))
    return found


def has(made, path):
    """Whether an object has a field at that path."""
    if not path:
        return True
    if path[0] == "[]":
        return any(has(part, path[1:]) for part in made)
    return path[0] in made and has(made[path[0]], path[1:])


@pytest.mark.parametrize(
    ("kind", "ruled"),
    [
        ("RayService", {"managedBy", "backend"}),
        ("RayJob", {"managedBy", "backend", "deletionStrategy", "condition"}),
        ("RayCluster", {"managedBy", "backend"}),
    ],
)
def test_no_object_has_a_field_that_kuberay_has_rules_for_in_cel(all_rendered, kind, ruled):
    """managedBy and the backend of fault tolerance never change; deletion is by its older field."""
    rules = with_rules(crd(kind))
    assert {path[-1] for path, _ in rules} == ruled
    made = [made for rendered in all_rendered.values() for made in rendered.of_kind(kind)]
    if kind == "RayCluster":
        made.append(yaml.safe_load((ROOT / "ray_cluster.yaml").read_text()))
    assert made
    for path, rule in rules:
        assert not [found["metadata"]["name"] for found in made if has(found, path)], rule


def test_rules_of_the_operator_beyond_its_schema_hold(all_rendered):
    for rendered in all_rendered.values():
        for made in rendered.of_kind("RayJob"):
            assert len(made["metadata"]["name"]) <= 47
            # The operator refuses it beside deletionRules, of which there are none.
            assert made["spec"]["shutdownAfterJobFinishes"] is True
        for made in rendered.of_kind("RayService"):
            assert len(made["metadata"]["name"]) <= 47
            cluster, strategy = made["spec"]["rayClusterConfig"], made["spec"]["upgradeStrategy"]
            incremental = strategy["type"] == "NewClusterWithIncrementalUpgrade"
            assert ("clusterUpgradeOptions" in strategy) == incremental
            assert cluster["enableInTreeAutoscaling"] or not incremental
            # Two clusters of one service share the Redis during an upgrade.
            assert "externalStorageNamespace" not in cluster.get("gcsFaultToleranceOptions", {})
            assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
            if cluster["enableInTreeAutoscaling"]:
                assert cluster["autoscalerOptions"]["version"] == "v2"
                assert "replicas" not in cluster["workerGroupSpecs"][0]


def test_the_serve_port_is_named_serve_and_no_probe_is_ours(all_rendered):
    for rendered in all_rendered.values():
        for where, container in rendered.containers():
            if where.startswith("RayService") and container["name"].startswith("ray-"):
                ports = {port["name"]: port["containerPort"] for port in container["ports"]}
                assert ports["serve"] == 8000
                assert "metrics" not in ports  # the operator adds it
                assert not {"readinessProbe", "livenessProbe", "startupProbe"} & set(container)


def serve_config(rendered):
    return yaml.safe_load(rendered.one("RayService")["spec"]["serveConfigV2"])


def test_serve_config_is_valid_and_its_imports_import(rendered):
    from ray.serve.schema import ServeDeploySchema

    config = ServeDeploySchema.model_validate(serve_config(rendered))
    (application,) = config.applications
    module, _, attribute = application.import_path.partition(":")
    assert callable(getattr(importlib.import_module(module), attribute))
    assert application.runtime_env == {}, "nothing may be downloaded at the start"


def deployments_of(application):
    from ray.serve._private.build_app import build_app

    return build_app(application, name="marquee", default_runtime_env={}).deployments


def test_serve_config_names_exactly_the_deployments_that_the_code_builds(rendered):
    env = rendered.one("RayService")["spec"]["rayClusterConfig"]["headGroupSpec"]
    variables = {e["name"]: e.get("value") for e in env["template"]["spec"]["containers"][0]["env"]}
    settings = Settings(store="/store", topology=variables["MARQUEE_TOPOLOGY"])
    named = [d["name"] for d in serve_config(rendered)["applications"][0]["deployments"]]
    assert sorted(named) == sorted(
        deployment.name for deployment in deployments_of(build(settings))
    )


def test_each_stage_scales_to_its_own_target_within_seconds(all_rendered):
    (application,) = serve_config(all_rendered["default"])["applications"]
    for deployment in application["deployments"]:
        scaling = deployment["autoscaling_config"]
        assert scaling["upscale_delay_s"] <= 5
        assert scaling["look_back_period_s"] <= 10
        assert scaling["target_ongoing_requests"] <= deployment["max_ongoing_requests"]
    targets = {
        d["autoscaling_config"]["target_ongoing_requests"] for d in application["deployments"]
    }
    assert len(targets) > 1


def test_worker_pods_have_room_for_every_stage_at_its_least(rendered):
    """Otherwise a service with one worker would wait for ever for a replica that never starts."""
    from math import ceil

    from tests.scenarios import quantity

    cluster = rendered.one("RayService")["spec"]["rayClusterConfig"]
    group = cluster["workerGroupSpecs"][0]
    cpu = group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"]
    room = float(group["rayStartParams"].get("num-cpus") or ceil(quantity(cpu)))
    room *= group["minReplicas"]
    needed = 0.0
    for deployment in serve_config(rendered)["applications"][0]["deployments"]:
        least = deployment.get("num_replicas") or deployment["autoscaling_config"]["min_replicas"]
        needed += deployment["ray_actor_options"]["num_cpus"] * least
    assert needed <= room


# Settings that the chart knows by other names than serve.settings: where each is set.
SET_ELSEWHERE = {
    "store": "store",
    "api_keys": "auth.apiKeysSecret",
    "topology": "serve.topology",
    "redis_url": "redis.state",
    "redis_cache_url": "redis.cache",
    "qdrant_url": "qdrant",
    "qdrant_api_key": "qdrant",
    "qdrant_timeout_ms": "qdrant.timeoutMs",
    "prose_api_key": "serve.extraEnv",
    "stage_sockets": "serve.extraEnv",  # only where Serve need not count a stage's calls
    "max_ongoing_requests": "serve.stages.gateway.maxOngoingRequests",
    "replica_cpus": "serve.stages.*.cpus",
    "replicas": "serve.stages.*.minReplicas",
}


def test_every_setting_of_the_service_can_be_set_through_the_chart():
    values = yaml.safe_load((CHART / "values.yaml").read_text())["serve"]["settings"]
    named = {re.sub("([A-Z])", r"_\1", name).lower(): value for name, value in values.items()}
    assert not set(named) & set(SET_ELSEWHERE)
    assert set(named) | set(SET_ELSEWHERE) == set(Settings.model_fields)
    # The code's defaults are those that were measured.
    defaults = {name: Settings.model_fields[name].default for name in named}
    assert {name for name in named if named[name] != defaults[name]} == {"cache_dir"}


def test_settings_reach_the_service_as_they_were_written(render):
    """Helm writes a million with an exponent, which is no whole number to Python."""
    given = {"maxBodyBytes": 25_000_000, "pollS": 0.5, "accessLog": False}
    objects = render({"serve": {"settings": given}})
    spec = Rendered("given", objects).one("RayService")["spec"]["rayClusterConfig"]
    (group,) = spec["workerGroupSpecs"]
    environment = {
        variable["name"].removeprefix("MARQUEE_").lower(): variable["value"]
        for variable in group["template"]["spec"]["containers"][0]["env"]
        if variable["name"].startswith("MARQUEE_") and "value" in variable
    }
    settings = Settings(**environment)
    assert (settings.max_body_bytes, settings.poll_s) == (25_000_000, 0.5)
    assert settings.access_log is False


def test_settings_that_the_chart_sets_are_settings(all_rendered):
    names = {"REDIS_URL", "REDIS_CACHE_URL", "QDRANT_URL", "QDRANT_API_KEY"}
    known = {f"MARQUEE_{name.upper()}" for name in Settings.model_fields} | names
    passwords = {"MARQUEE_STATE_PASSWORD", "MARQUEE_CACHE_PASSWORD", "MARQUEE_API_KEY"}
    for rendered in all_rendered.values():
        for where, container in rendered.containers():
            for variable in container.get("env", []):
                if variable["name"].startswith("MARQUEE_"):
                    assert variable["name"] in known | passwords, where


def test_no_password_travels_in_the_arguments_of_a_deployment(monkeypatch):
    """Ray keeps them in its store."""
    from cloudpickle import dumps

    monkeypatch.setenv("MARQUEE_STORE", "/store")
    monkeypatch.setenv("REDIS_URL", "redis://:hush@state:6379/0")
    monkeypatch.setenv("QDRANT_API_KEY", "hush")
    for deployment in deployments_of(application({})):
        assert b"hush" not in dumps((deployment.init_args, deployment.init_kwargs))
    given = Settings()
    assert any(b"hush" in dumps(d.init_args) for d in deployments_of(build(given)))


def test_every_ray_variable_that_the_chart_sets_is_read_by_ray(all_rendered):
    import ray

    root = Path(ray.__file__).parent
    files = [*root.glob("_private/*.py"), *root.glob("serve/_private/*.py")]
    files += [*root.glob("train/v2/_internal/constants.py"), *root.glob("_common/usage/*.py")]
    text = "".join(path.read_text() for path in files)
    names = {
        variable["name"]
        for rendered in all_rendered.values()
        for _, container in rendered.containers()
        for variable in container.get("env", [])
        if variable["name"].startswith("RAY_")
    }
    # Read by the C++ of Ray, through its token loader.
    assert {name for name in names if name not in text} <= {"RAY_AUTH_MODE"}
