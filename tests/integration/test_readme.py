"""The README's commands for one's own events, run as they stand there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.model.bundle import Bundle

pytestmark = pytest.mark.integration

README = Path(__file__).parents[2] / "README.md"


def own_events_commands():
    section = README.read_text().split("## Your own events")[1]
    block = re.search(r"```\n(.*?)```", section, re.DOTALL).group(1)
    return [shlex.split(line) for line in block.splitlines()]


def views(path):
    """Text ids, no ratings: 80 users who each go round one of four circles of items."""
    rng = np.random.default_rng(0)
    rows = [
        (f"user-{user:03}", f"item-{user % 4}-{(start + step) % 10}", 1_600_000_000 + 60 * step)
        for user, start in enumerate(rng.integers(0, 10, 80))
        for step in range(9)
    ]
    who, what, at = (list(column) for column in zip(*rows, strict=True))
    pq.write_table(pa.table({"who": who, "what": what, "at": at}), path)


def test_the_readmes_path_from_ones_own_events_to_a_store_works_as_written(tmp_path):
    views(tmp_path / "views.parquet")
    commands = own_events_commands()
    assert [words[1] for words in commands] == ["prepare", "train", "evaluate", "publish", "serve"]
    program = Path(sys.executable).with_name("marquee")
    for words in commands[:-1]:  # serving is test_serve.py's matter
        done = subprocess.run(
            [program, *words[1:]],
            cwd=tmp_path,
            env=os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
    bundle = Bundle.open(tmp_path / "STORE" / "bundles" / "1")
    assert bundle.manifest.entity.id_field == "item_id"
    assert bundle.items.ids[0] == "item-0-0"
    assert len(bundle.history("user-007")) == 9
