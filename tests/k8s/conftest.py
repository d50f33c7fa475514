"""The chart rendered once per scenario by the Helm engine itself."""

import pytest
import yaml

from tests.scenarios import CHART, SCENARIOS, Rendered, values_of


@pytest.fixture(scope="session")
def chart():
    helm_python = pytest.importorskip("helm_python")
    return helm_python.Chart.load(CHART)


@pytest.fixture(scope="session")
def render(chart):
    """render(values) -> objects, with the schema checked as `helm install` does."""

    def _render(values, *, revision=1):
        texts = chart.render(values, name="marquee", namespace="recsys", revision=revision)
        documents = (
            yaml.safe_load_all(text) for name, text in texts.items() if name.endswith(".yaml")
        )
        return [made for group in documents for made in group if made]

    return _render


@pytest.fixture(scope="session")
def all_rendered(render):
    return {scenario: Rendered(scenario, render(values_of(scenario))) for scenario in SCENARIOS} | {
        "default": Rendered("default", render({}))
    }


@pytest.fixture(scope="session", params=[*SCENARIOS, "default"])
def rendered(request, all_rendered):
    return all_rendered[request.param]
