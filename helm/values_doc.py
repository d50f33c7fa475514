"""Reads helm/marquee/values.yaml with its comments; writes values.schema.json and README.md.

A comment that begins with `# --` describes the leaf below it; `# @schema {...}` adds to the JSON
schema what the default's type does not say.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import yaml

_KEY = re.compile(r"^( *)([A-Za-z][A-Za-z0-9]*):")
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}


@dataclass(frozen=True)
class Leaf:
    """A value that a user may set."""

    path: tuple[str, ...]
    default: Any
    description: str
    extra_schema: dict[str, Any]

    @property
    def name(self) -> str:
        """`serve.head.cpu`."""
        return ".".join(self.path)


def leaves(text: str) -> list[Leaf]:
    """Every leaf of values.yaml in its order. ValueError for one without a description."""
    values = yaml.safe_load(text)
    found: list[Leaf] = []
    stack: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped.removeprefix("#").strip())
            continue
        match = _KEY.match(line)
        if match:
            depth = len(match[1]) // 2
            stack[depth:] = [match[2]]
            default = _at(values, stack)
            if not isinstance(default, dict) or not default:
                found.append(_leaf(tuple(stack), default, comment))
        comment = []
    return found


def schema(found: list[Leaf]) -> dict[str, Any]:
    """A JSON schema that knows these leaves and refuses every other key."""
    root = _object()
    for leaf in found:
        node = root
        for key in leaf.path[:-1]:
            node = node["properties"].setdefault(key, _object())
        node["properties"][leaf.path[-1]] = _leaf_schema(leaf)
    # Helm adds it to every chart's values.
    root["properties"]["global"] = {"type": "object"}
    return {"$schema": "http://json-schema.org/draft-07/schema#", **root}


def readme(found: list[Leaf], chart: dict[str, Any]) -> str:
    """The chart's README: what it is, how it is installed, every value."""
    lines = [
        "# The chart",
        "",
        "<!-- Written by `make k8s` from Chart.yaml and values.yaml. -->",
        "",
        chart["description"],
        "",
        "```",
        "helm install marquee helm/marquee -n recsys --create-namespace",
        "helm test marquee -n recsys",
        "```",
        "",
        "Needs Kubernetes 1.31 and the KubeRay operator 1.7. How to run it:",
        "[docs/operations.md](../../docs/operations.md). Values for several kinds of cluster are",
        "in [ci/](ci/).",
        "",
        "| Value | Default | Meaning |",
        "|---|---|---|",
    ]
    for leaf in found:
        default = json.dumps(leaf.default).replace("|", "\\|")
        lines.append(f"| `{leaf.name}` | `{default}` | {leaf.description} |")
    return "\n".join(lines) + "\n"


def _at(values: Any, path: list[str]) -> Any:
    for key in path:
        values = values[key]
    return values


def _leaf(path: tuple[str, ...], default: Any, comment: list[str]) -> Leaf:
    words: list[str] = []
    extra: dict[str, Any] = {}
    for line in comment:
        if line.startswith("--"):
            words = [line.removeprefix("--").strip()]
        elif line.startswith("@schema"):
            extra = json.loads(line.removeprefix("@schema"))
        elif words:
            words.append(line)
    if not words:
        raise ValueError(f"values.yaml: {'.'.join(path)} has no `# --` line")
    return Leaf(path, default, " ".join(words), extra)


def _object() -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": {}}


def _leaf_schema(leaf: Leaf) -> dict[str, Any]:
    kind = "object" if isinstance(leaf.default, dict) else _TYPES[type(leaf.default)]
    if kind == "integer" and "cpus" in leaf.path[-1].lower():
        kind = "number"
    if leaf.path[-1] in _FRACTIONS:
        kind = "number"
    return {"type": kind, "description": leaf.description, **leaf.extra_schema}


# Whole by default, but a fraction makes sense.
_FRACTIONS = frozenset({"targetOngoingRequests", "pollS", "lookBackS", "upscaleDelayS"}) | {
    "downscaleDelayS",
    "reportIntervalS",
    "cacheHitShare",
}
