"""Finding items by title."""

from __future__ import annotations

import unicodedata

from training.model.bundle import Bundle


class TitleStage:
    """One bundle version's titles, folded for search."""

    def __init__(self, bundle: Bundle) -> None:
        titles = bundle.items.titles
        # In order of popularity, so that the first matches are the answer.
        self._titles = [(int(item), _fold(titles[item])) for item in bundle.popularity]

    def search(self, text: str, limit: int) -> list[int]:
        """item_idx of titles that contain every word of the text, most popular first."""
        words = _fold(text).split()
        found: list[int] = []
        if not words:
            return found
        for item, title in self._titles:
            if all(word in title for word in words):
                found.append(item)
                if len(found) == limit:
                    break
        return found


def _fold(text: str) -> str:
    """Lower case without accents."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in decomposed if not unicodedata.combining(c))
