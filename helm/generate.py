"""Writes what follows from the chart: its schema, README and dashboards, and k8s/.

`python -m helm.generate` writes, `python -m helm.generate --check` fails where a file differs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from helm.dashboards import DASHBOARDS, dashboard
from helm.values_doc import leaves, readme, schema

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "helm" / "marquee"
MANIFESTS = ROOT / "k8s"
PLAIN_VALUES = MANIFESTS / "values.yaml"
COMPOSE_RULES = ROOT / "compose" / "rules.yml"
RELEASE, NAMESPACE = "marquee", "marquee"


def chart_files() -> dict[Path, str]:
    """What the chart's own sources determine: path -> content."""
    found = leaves((CHART / "values.yaml").read_text("utf-8"))
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    files = {
        CHART / "values.schema.json": json.dumps(schema(found), indent=2) + "\n",
        CHART / "README.md": readme(found, chart),
    }
    for name in DASHBOARDS:
        files[CHART / "dashboards" / f"{name}.json"] = json.dumps(dashboard(name), indent=1) + "\n"
    return files


def render(values: dict[str, object], namespace: str = NAMESPACE) -> dict[str, str]:
    """Template -> manifest, by the Helm engine, without a cluster."""
    import helm_python

    with helm_python.Chart.load(CHART) as chart:
        rendered = chart.render(values, name=RELEASE, namespace=namespace)
    manifests = {name: text for name, text in rendered.items() if name.endswith(".yaml")}
    return {name: text for name, text in manifests.items() if text.strip()}


def manifests() -> dict[Path, str]:
    """The plain manifests: path -> content, one file per template."""
    values = yaml.safe_load(PLAIN_VALUES.read_text("utf-8"))
    files = {}
    for template, text in render(values).items():
        folder, name = Path(template).parts[-2:]
        if folder == "tests":
            continue
        body = "\n".join(line.rstrip() for line in text.strip().splitlines())
        header = f"# Rendered by `make k8s` from helm/marquee/templates/{folder}/{name}.\n"
        files[MANIFESTS / f"{folder}-{name}"] = f"{header}{body}\n"
    names = "".join(f"  - {path.name}\n" for path in sorted(files))
    files[MANIFESTS / "kustomization.yaml"] = (
        "# Rendered by `make k8s`. Apply with `kubectl apply --server-side -k k8s/`.\n"
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
        f"namespace: {NAMESPACE}\nresources:\n{names}"
    )
    return files


def compose_rules() -> dict[Path, str]:
    """The chart's alerts as Prometheus itself reads them, for compose.yaml."""
    rendered = render({"monitoring": {"rules": True}})
    (text,) = [text for name, text in rendered.items() if name.endswith("monitoring/rules.yaml")]
    spec = yaml.safe_dump(yaml.safe_load(text)["spec"], sort_keys=False, width=100)
    header = "# Written by `make k8s` from helm/marquee/templates/monitoring/_rules.tpl.\n"
    return {COMPOSE_RULES: header + spec}


def main(arguments: list[str]) -> int:
    """Write or compare. 1 when something differs."""
    write_chart = chart_files()
    if "--check" not in arguments:
        _write(write_chart)
        _write(manifests() | compose_rules())  # rendered with the schema that was just written
        return 0
    stale = [path for path, text in write_chart.items() if _differs(path, text)]
    rendered = manifests() | compose_rules()
    stale += [path for path, text in rendered.items() if _differs(path, text)]
    for path in stale:
        print(f"{path.relative_to(ROOT)} is not what the chart says: run `make k8s`")
    return 1 if stale else 0


def _write(files: dict[Path, str]) -> None:
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def _differs(path: Path, text: str) -> bool:
    return not path.is_file() or path.read_text("utf-8") != text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
