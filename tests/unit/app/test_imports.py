"""What a replica does not need, it does not import."""

import subprocess
import sys

_LOADED = """
import sys, app.main
print(*sorted({"torch", "lightgbm"} & set(sys.modules)))
"""


def test_replicas_import_neither_torch_nor_lightgbm_before_their_stage_needs_them():
    done = subprocess.run(
        [sys.executable, "-c", _LOADED], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
