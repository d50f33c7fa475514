"""What holds for every scenario of the chart."""

import copy
import json
import re
import shutil

import pytest
import yaml
from typer.main import get_command

from helm.generate import ROOT, chart_files, compose_rules, manifests
from tests.scenarios import CHART, Rendered, quantity, values_of
from training.cli import build_app

_VOLUMES = {"name", "emptyDir", "persistentVolumeClaim", "configMap", "secret"}
RESTRICTED_CAPABILITIES = {"drop": ["ALL"]}


def test_lint_finds_nothing_wrong_in_any_scenario(rendered):
    helm_python = pytest.importorskip("helm_python")
    values = {} if rendered.scenario == "default" else values_of(rendered.scenario)
    report = helm_python.lint(CHART, values, strict=True, kube_version="v1.36.0")
    assert report["errors"] == [], report
    assert [m for m in report["messages"] if m["severity"] >= 2] == []


def test_no_object_occurs_twice(rendered):
    keys = [(o["kind"], o["metadata"]["name"]) for o in rendered.objects]
    assert len(keys) == len(set(keys))


def test_every_image_has_a_tag_that_is_not_latest(rendered):
    for where, container in rendered.containers():
        _, colon, tag = container["image"].rpartition(":")
        assert colon and tag and tag != "latest" and "/" not in tag, where


def test_every_container_has_requests_and_limits(rendered):
    for where, container in rendered.containers():
        for part in ("requests", "limits"):
            asked = set(container["resources"][part]) - {"nvidia.com/gpu"}
            assert asked == {"cpu", "memory"}, where


def test_ray_containers_request_what_they_may_use(rendered):
    for where, container in rendered.containers():
        if container["name"].startswith("ray-"):
            assert container["resources"]["requests"] == container["resources"]["limits"], where


def test_every_pod_passes_the_restricted_standard(rendered):
    for where, template in rendered.pod_templates():
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, where
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), where
        for volume in spec.get("volumes", []):
            assert set(volume) <= _VOLUMES, where
    for where, container in rendered.containers():
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False, where
        assert security["capabilities"] == RESTRICTED_CAPABILITIES, where
        assert security["readOnlyRootFilesystem"] is True, where


def test_every_pod_of_our_image_can_write_tmp(rendered):
    for where, container in rendered.containers():
        if container["image"].startswith(("marquee:", "registry.example.com/marquee:")):
            paths = {mount["mountPath"] for mount in container.get("volumeMounts", [])}
            name = container["name"]
            needs_none = name == "redis" or name.startswith(
                ("wait-for-redis", "wait-for-ml", "take-")
            )
            assert needs_none or "/tmp" in paths, where


def test_every_volume_that_is_mounted_exists(rendered):
    for where, template in rendered.pod_templates():
        spec = template["spec"]
        have = {volume["name"] for volume in spec.get("volumes", [])}
        if where.startswith("StatefulSet"):
            have.add("data")  # its claim template
        for key in ("initContainers", "containers"):
            for container in spec.get(key, []):
                for mount in container.get("volumeMounts", []):
                    assert mount["name"] in have, f"{where}: {mount}"


def test_ray_pods_have_shared_memory_for_their_object_store(rendered):
    for kind in ("RayService", "RayJob"):
        for made in rendered.of_kind(kind):
            spec = made["spec"]
            cluster = spec.get("rayClusterConfig") or spec["rayClusterSpec"]
            for group in (cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])):
                volumes = {v["name"]: v for v in group["template"]["spec"]["volumes"]}
                size = quantity(volumes["shared-memory"]["emptyDir"]["sizeLimit"])
                store = int(group["rayStartParams"]["object-store-memory"])
                assert 75 * 2**20 < store < size


def test_pod_templates_do_not_change_with_the_charts_version(all_rendered):
    for rendered in all_rendered.values():
        for where, template in rendered.pod_templates():
            labels = template["metadata"]["labels"]
            if where.startswith("Pod/"):
                continue  # the smoke test is made anew each time
            assert set(labels) == {
                "app.kubernetes.io/part-of",
                "app.kubernetes.io/instance",
                "app.kubernetes.io/component",
            }, where
            assert "annotations" not in template["metadata"], where


def test_another_version_of_the_chart_makes_the_same_pods(all_rendered, tmp_path):
    """Otherwise every upgrade would build a second Ray cluster."""
    helm_python = pytest.importorskip("helm_python")
    copied = shutil.copytree(CHART, tmp_path / "marquee")
    text = (copied / "Chart.yaml").read_text()
    bumped = re.sub(r"^version: .+$", "version: 99.0.0", text, flags=re.MULTILINE)
    assert bumped != text
    (copied / "Chart.yaml").write_text(bumped)
    chart = helm_python.Chart.load(copied)
    values = values_of("production")
    texts = chart.render(values, name="marquee", namespace="recsys")
    groups = (yaml.safe_load_all(t) for name, t in texts.items() if name.endswith(".yaml"))
    made = Rendered("bumped", [found for group in groups for found in group if found])
    before = dict(all_rendered["production"].pod_templates())
    for where, template in made.pod_templates():
        if not where.startswith("Pod/"):  # the smoke test is made anew each time
            assert yaml.safe_dump(template) == yaml.safe_dump(before[where]), where


def test_no_secret_is_in_a_config_map_or_in_a_plain_variable(rendered):
    for made in rendered.of_kind("ConfigMap"):
        assert not re.search(r"password|api.key|token", json.dumps(made["data"]), re.IGNORECASE)
    for where, container in rendered.containers():
        for variable in container.get("env", []):
            is_file = variable.get("value", "").startswith("/")
            if re.search(r"PASSWORD|KEY|TOKEN|SECRET", variable["name"]) and not is_file:
                assert "secretKeyRef" in variable["valueFrom"], f"{where}: {variable['name']}"


def test_no_pod_gets_variables_of_services_that_look_like_settings(rendered):
    for where, template in rendered.pod_templates():
        assert template["spec"]["enableServiceLinks"] is False, where


def test_expanded_variables_are_defined_before_they_are_used(rendered):
    for where, container in rendered.containers():
        defined = set()
        for variable in container.get("env", []):
            used = set(re.findall(r"\$\(([A-Z_]+)\)", variable.get("value", "")))
            assert used <= defined, f"{where}: {variable['name']}"
            assert variable["name"] not in defined, f"{where}: {variable['name']} twice"
            defined.add(variable["name"])


def test_the_operators_own_variables_are_left_to_it(rendered):
    """It refuses a head that sets them beside gcsFaultToleranceOptions."""
    for where, container in rendered.containers():
        names = {variable["name"] for variable in container.get("env", [])}
        assert not names & {"REDIS_PASSWORD", "RAY_REDIS_ADDRESS", "RAY_ADDRESS"}, where


def test_every_service_selects_pods_that_have_its_ports(rendered):
    templates = [template for _, template in rendered.pod_templates()]
    for service in rendered.of_kind("Service"):
        wanted = service["spec"]["selector"].items()
        chosen = [t for t in templates if wanted <= t["metadata"]["labels"].items()]
        assert len(chosen) == 1, service["metadata"]["name"]
        names = {p["name"] for c in chosen[0]["spec"]["containers"] for p in c.get("ports", [])}
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in names


def test_every_host_that_a_pod_is_told_of_is_a_service_of_the_release(rendered):
    services = {service["metadata"]["name"] for service in rendered.of_kind("Service")}
    services.add("marquee-serve-svc")  # the operator's
    text = json.dumps(rendered.objects)
    named = set(re.findall(r"(?:://|@|/dev/tcp/)(marquee-[a-z-]+[a-z])(?=[:/])", text))
    assert {name.removesuffix("-") for name in named} <= services | {"marquee-qdrant"}


def test_budgets_of_ray_pods_count_by_number(rendered):
    """Pods of a custom resource have no scale: maxUnavailable would block every eviction."""
    for budget in rendered.of_kind("PodDisruptionBudget"):
        component = budget["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]
        if component == "serve-worker":
            assert isinstance(budget["spec"]["minAvailable"], int)
            workers = rendered.one("RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
            assert budget["spec"]["minAvailable"] < workers["minReplicas"]


def test_tiny_requests_less_than_two_cpus_and_eight_gibibytes(all_rendered):
    cpu = memory = 0.0
    for _, template in all_rendered["tiny"].pod_templates():
        for key, combine in (("containers", sum),):
            for container in template["spec"][key]:
                requests = container["resources"]["requests"]
                cpu += combine([quantity(requests["cpu"])])
                memory += combine([quantity(requests["memory"])])
    assert cpu < 2
    assert memory < 8 * 2**30


def test_an_erasure_reaches_the_log_that_feedback_is_exported_to(all_rendered):
    for scenario, log in (
        ("default", "/store/log"),
        ("production", "s3://models/marquee/log"),
        ("minimal", None),  # it has no feedback
    ):
        rendered = all_rendered[scenario]
        workers = dict(rendered.containers())["RayService/workers/ray-worker"]
        variables = {variable["name"]: variable.get("value") for variable in workers["env"]}
        assert variables.get("MARQUEE_EVENT_LOG") == log
        if log and log.startswith("/"):
            (mount,) = [m for m in workers["volumeMounts"] if m["mountPath"] == "/store"]
            assert not mount.get("readOnly")


def test_the_smoke_test_gives_feedback_where_there_is_a_redis_for_it(all_rendered):
    for scenario, rendered in all_rendered.items():
        smoke = dict(rendered.containers())["Pod/marquee-smoke/smoke"]
        assert ("--no-feedback" in smoke["command"]) == (scenario == "minimal")


def test_every_command_of_a_pod_is_one_that_marquee_understands(rendered, monkeypatch):
    commands = {
        where: container.get("command", []) + container.get("args", [])
        for where, container in rendered.containers()
    }
    for job in rendered.of_kind("RayJob"):
        (retrain,) = re.findall(r"marquee retrain[^&]+", job["spec"]["entrypoint"])
        commands["RayJob/entrypoint"] = retrain.split()
    for _, container in rendered.containers():
        for variable in container.get("env", []):
            monkeypatch.setenv(variable["name"], variable.get("value", "from a Secret"))
    commands = {where: words for where, words in commands.items() if "marquee" in words}
    assert commands
    for where, words in commands.items():
        parsed(words[words.index("marquee") + 1 :], where)


def parsed(words, where):
    """The context of a command of `marquee`, which is not run; it raises what the command would."""
    command, context = get_command(build_app()), None
    while hasattr(command, "resolve_command"):
        context = command.context_class(command, parent=context, info_name="marquee")
        _, command, words = command.resolve_command(context, words)
    return command.make_context(where, list(words), parent=context)


def test_volumes_are_taken_over_by_root_only_where_asked(render):
    """For hostPath volumes; every other container stays restricted."""
    made = Rendered("take", render(values_of("tiny") | {"security": {"takeVolumes": True}}))
    roots = {
        where
        for where, container in made.containers()
        if container["securityContext"].get("runAsUser") == 0
    }
    assert roots == {
        f"{where}/take-{volume}"
        for where, volume in (
            ("StatefulSet/marquee-redis-state", "data"),
            ("StatefulSet/marquee-redis-gcs", "data"),
            ("StatefulSet/marquee-qdrant", "data"),
            ("Deployment/marquee-mlflow", "data"),
            (made.one("Job", "")["kind"] + "/" + made.one("Job", "")["metadata"]["name"], "store"),
        )
    }


def test_tiny_finds_volumes_without_a_class_and_uses_loaded_images(all_rendered):
    tiny = all_rendered["tiny"]
    claims = [made["spec"] for made in tiny.of_kind("PersistentVolumeClaim")]
    for made in tiny.of_kind("StatefulSet"):
        claims += [claim["spec"] for claim in made["spec"].get("volumeClaimTemplates", [])]
    assert len(claims) == 5
    assert all(claim["storageClassName"] == "" for claim in claims)
    assert {c["imagePullPolicy"] for _, c in tiny.containers()} == {"IfNotPresent"}


def test_generated_files_are_what_the_chart_says():
    pytest.importorskip("helm_python")
    stale = [
        str(path.relative_to(ROOT))
        for path, text in (chart_files() | manifests() | compose_rules()).items()
        if not path.is_file() or path.read_text() != text
    ]
    assert stale == [], "run `make k8s`"


def test_the_plain_manifests_hold_no_password():
    assert "kind: Secret" not in "".join(manifests().values())


def test_rendering_twice_differs_in_passwords_only(render):
    def without_secrets(objects):
        return [o for o in copy.deepcopy(objects) if o["kind"] != "Secret"]

    first, second = render({}), render({}, revision=2)
    assert yaml.dump(without_secrets(first)) == yaml.dump(without_secrets(second))


def test_every_alert_is_explained_and_no_other_is(render):
    objects = render({"monitoring": {"rules": True}, "networkPolicy": {"enabled": False}})
    (rules,) = [made for made in objects if made["kind"] == "PrometheusRule"]
    named = {rule["alert"] for group in rules["spec"]["groups"] for rule in group["rules"]}
    operations = (ROOT / "docs" / "operations.md").read_text()
    explained = set(re.findall(r"^\| (Marquee\w+) \|", operations, re.MULTILINE))
    assert explained == named | {"MarqueeCacheMisses"}  # made where a hit rate is asked for


def test_policies_name_components_that_exist_and_let_each_be_reached(rendered):
    components = {
        template["metadata"]["labels"]["app.kubernetes.io/component"]
        for _, template in rendered.pod_templates()
    }
    opened = set()
    for policy in rendered.of_kind("NetworkPolicy"):
        selector = policy["spec"]["podSelector"]
        if not policy["spec"].get("ingress"):
            continue
        if component := selector["matchLabels"].get("app.kubernetes.io/component"):
            assert component in components, policy["metadata"]["name"]
            opened.add(component)
        for expression in selector.get("matchExpressions", []):
            opened |= set(expression["values"])
    assert components <= opened or not rendered.of_kind("NetworkPolicy")
