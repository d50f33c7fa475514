"""The bundle store as the service sees it: which version, and where it lies on this machine."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.settings import Settings
from training.model.manifest import BundleError
from training.model.store import BundleStore


@dataclass(frozen=True)
class Bundles:
    """A store and the directory that downloads go to."""

    store: BundleStore
    cache_dir: Path

    def production(self) -> str | None:
        """The promoted version, None before the first; OSError when the store is away."""
        return self.store.production()

    def locate(self, version: str) -> Path:
        """A directory with the version's bundle, downloaded first from an S3 store.

        Downloads that promotions have left behind are removed then. Raises BundleError for an
        unknown version, OSError when the store is away.
        """
        path = self.store.fetch(version, self.cache_dir)
        if not self.store.is_local:
            with suppress(BundleError, OSError):  # the next time will do
                self.store.remove_downloads(self.cache_dir, keep=version)
        return path


def bundle_store(settings: Settings) -> Bundles:
    """The store of the settings; ValueError when its address is of no known kind."""
    return Bundles(BundleStore.open(settings.store), settings.cache_dir)
