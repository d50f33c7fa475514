"""The chart's scenarios, and what a test asks of their objects."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
CHART = ROOT / "helm" / "marquee"
SCENARIOS = sorted(path.name.removesuffix("-values.yaml") for path in CHART.glob("ci/*.yaml"))


def values_of(scenario: str) -> dict[str, Any]:
    return yaml.safe_load((CHART / "ci" / f"{scenario}-values.yaml").read_text())


def quantity(text: str | int) -> float:
    """Cores or bytes of a Kubernetes quantity."""
    units = {"m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "": 1}
    number, unit = re.fullmatch(r"([\d.]+)(m|Ki|Mi|Gi|)", str(text)).groups()
    return float(number) * units[unit]


@dataclass(frozen=True)
class Rendered:
    """A scenario's objects."""

    scenario: str
    objects: list[dict[str, Any]]

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [found for found in self.objects if found["kind"] == kind]

    def one(self, kind: str, name: str = "") -> dict[str, Any]:
        (found,) = [o for o in self.of_kind(kind) if o["metadata"]["name"].endswith(name)]
        return found

    def pod_templates(self) -> list[tuple[str, dict[str, Any]]]:
        """(object/part, pod template) of everything that makes pods."""
        found = []
        for kind, name, made in ((o["kind"], o["metadata"]["name"], o) for o in self.objects):
            if kind == "Pod":
                found.append((f"Pod/{name}", made))
            elif kind in ("Deployment", "StatefulSet", "Job"):
                found.append((f"{kind}/{name}", made["spec"]["template"]))
            elif kind == "CronJob":
                found.append((f"{kind}/{name}", made["spec"]["jobTemplate"]["spec"]["template"]))
            elif kind in ("RayService", "RayJob"):
                spec = made["spec"]
                cluster = spec.get("rayClusterConfig") or spec["rayClusterSpec"]
                found.append((f"{kind}/head", cluster["headGroupSpec"]["template"]))
                for group in cluster.get("workerGroupSpecs", []):
                    found.append((f"{kind}/{group['groupName']}", group["template"]))
                if "submitterPodTemplate" in spec:
                    found.append((f"{kind}/submitter", spec["submitterPodTemplate"]))
        return found

    def containers(self) -> list[tuple[str, dict[str, Any]]]:
        return [
            (f"{where}/{container['name']}", container)
            for where, template in self.pod_templates()
            for key in ("initContainers", "containers")
            for container in template["spec"].get(key, [])
        ]
