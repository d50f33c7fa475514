"""The model card says of every protocol what docs/evaluation.md has of it, and what that meets."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs"
TARGETS = {  # at K = 10: above the least, and no more than the most where there is one
    "NDCG": (0.35, 1.0),
    "recall": (0.20, 1.0),
    "hit": (0.75, 0.85),
    "MAP": (0.22, 0.32),
    "coverage": (0.40, 1.0),
}


def rows(text):
    """The rows of all tables, as lists of cells."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def served(protocol, split):
    """What docs/evaluation.md has of `ranked`, in the first table under the protocol's split."""
    text = (DOCS / "evaluation.md").read_text("utf-8")
    _, part = re.split(rf"^{protocol}\b[^:]*:[^`]*split `{split}`", text, flags=re.MULTILINE)
    table = rows(part)
    (name, *columns), ranked = table[0], next(row for row in table if row[0] == "ranked")
    assert name == "Model"
    return {column: cell.split()[0] for column, cell in zip(columns, ranked[1:], strict=True)}


def verdict(value, target):
    least, most = TARGETS[target]
    return "above" if value > most else "yes" if value >= least else "no"


def test_the_model_card_has_the_measured_figures_and_says_which_targets_they_meet():
    table = rows((DOCS / "MODEL_CARD.md").read_text("utf-8"))
    start = next(place for place, row in enumerate(table) if row[:2] == ["Protocol", "split"])
    names = [cell.split()[0] for cell in table[start][2:]]
    assert names == list(TARGETS)
    for protocol, split, *cells in table[start + 2 : start + 6]:
        measured = served(protocol, split.strip("`"))
        expected = [f"{measured[name]} {verdict(float(measured[name]), name)}" for name in names]
        assert cells == expected, protocol
