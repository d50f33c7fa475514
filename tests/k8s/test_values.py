"""values.yaml, its documentation, and combinations that cannot work."""

import re

import pytest
import yaml

from helm.values_doc import leaves
from tests.scenarios import CHART

TEMPLATES = {path: path.read_text() for path in CHART.glob("templates/**/*.*")}
VALUES = (CHART / "values.yaml").read_text()


def test_every_value_is_read_by_a_template():
    text = "\n".join(TEMPLATES.values())
    for leaf in leaves(VALUES):
        if leaf.path[:2] == ("serve", "settings"):
            continue  # a loop over all of them; test_schemas.py compares them with the service's
        assert re.search(rf"[.\"]{leaf.path[-1]}\b", text), f"nothing reads {leaf.name}"


def test_every_value_that_a_template_reads_is_documented():
    known = {leaf.path for leaf in leaves(VALUES)}
    prefixes = {path[:n] for path in known for n in range(1, len(path) + 1)}
    for path, text in TEMPLATES.items():
        for dotted in re.findall(r"\.Values((?:\.[A-Za-z]\w*)+)", text):
            assert tuple(dotted[1:].split(".")) in prefixes, f"{path.name}: .Values{dotted}"


def test_no_value_is_written_twice():
    """YAML takes the last one in silence: a merge once kept both sides of six."""
    paths = [leaf.path for leaf in leaves(VALUES)]
    assert len(paths) == len(set(paths))


def test_a_leaf_without_a_description_is_refused():
    with pytest.raises(ValueError, match="a.b has no"):
        leaves("a:\n  b: 1\n")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"serv": {}}, "serv"),
        ({"serve": {"head": {"cpus": 1}}}, "cpus"),
        ({"serve": {"topology": "mesh"}}, "topology"),
        ({"qdrant": {"image": {"tag": "latest"}}}, "tag"),
        ({"training": {"run": "Nightly!"}}, "run"),
        ({"store": {"url": "gs://bucket"}}, "url"),
    ],
)
def test_values_that_mean_nothing_are_refused_by_name(render, values, said):
    with pytest.raises(Exception, match=said):
        render(values)


GATEWAY = {"enabled": True, "name": "public"}
INCREMENTAL = {"type": "NewClusterWithIncrementalUpgrade"}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"ingress": {"enabled": True, "host": "a.example.com"}, "gateway": GATEWAY},
            "ingress.enabled and gateway.enabled exclude each other",
        ),
        ({"ingress": {"enabled": True}}, "ingress.enabled needs ingress.host"),
        ({"gateway": {"enabled": True}}, "gateway.enabled needs gateway.name"),
        ({"serve": {"upgrade": INCREMENTAL}}, "needs serve.upgrade.gatewayClassName"),
        (
            {
                "serve": {
                    "upgrade": INCREMENTAL | {"gatewayClassName": "istio"},
                    "nodeAutoscaling": {"enabled": False},
                }
            },
            "needs serve.nodeAutoscaling.enabled",
        ),
        (
            {"serve": {"stages": {"rank": {"minReplicas": 9}}}},
            "serve.stages.rank.minReplicas 9 is above its maxReplicas 4",
        ),
        (
            {"serve": {"workers": {"minReplicas": 9}}},
            "serve.workers.minReplicas 9 is above its maxReplicas 4",
        ),
        (
            {"serve": {"drain": {"terminationGracePeriodS": 60}}},
            "must be at least 30 above serve.drain.timeoutS 60",
        ),
        ({"serve": {"head": {"sharedMemory": "1G"}}}, "is not a whole number of bytes, Ki"),
        (
            {"redis": {"state": {"externalUrl": "redis://x:6379"}}},
            "redis.state.enabled and an address of an external one exclude",
        ),
        (
            {"redis": {"gcs": {"externalAddress": "x:6379"}}},
            "redis.gcs.enabled and redis.gcs.externalAddress exclude",
        ),
        ({"qdrant": {"externalUrl": "http://x:6333"}}, "qdrant.enabled and qdrant.externalUrl"),
        ({"qdrant": {"replicationFactor": 2}}, "qdrant.replicationFactor 2 needs as many"),
        ({"mlflow": {"externalUrl": "http://x"}}, "mlflow.enabled and mlflow.externalUrl"),
        ({"training": {"job": {"workers": 2}}}, "training.job.workers needs"),
        ({"training": {"data": {"path": "x"}}}, "training.data.path needs"),
        (
            {"training": {"nightly": {"enabled": True}, "feedback": {"enabled": False}}},
            "training.nightly.enabled needs",
        ),
        (
            {"kafka": {"bootstrapServers": "x:9092"}, "redis": {"state": {"enabled": False}}},
            "kafka.bootstrapServers needs redis.state",
        ),
        ({"redis": {"image": {"repository": "valkey"}}}, "redis.image.tag is needed"),
    ],
)
def test_what_cannot_work_is_refused_with_one_sentence(render, values, sentence):
    with pytest.raises(Exception, match=re.escape(sentence)):
        render(values)


def test_every_check_of_the_chart_is_tested():
    marks = {mark.name: mark for mark in _marks()}["parametrize"].args[1]
    checks = TEMPLATES[CHART / "templates" / "config" / "checks.yaml"]
    known = "\n".join(sentence for _, sentence in marks)
    # store.url with a claim, and two addresses of one Redis, are the same shape as those above.
    assert checks.count("fail ") <= len(marks) + 4, known


def _marks():
    return test_what_cannot_work_is_refused_with_one_sentence.pytestmark


def test_scenarios_use_documented_values_only(render):
    known = {leaf.path for leaf in leaves(VALUES)}
    for path in CHART.glob("ci/*-values.yaml"):
        for given in _paths(yaml.safe_load(path.read_text())):
            assert any(given[: len(leaf)] == leaf for leaf in known), f"{path.name}: {given}"


def _paths(values, prefix=()):
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _paths(value, (*prefix, key))
        else:
            yield (*prefix, key)
