"""Which bundle versions are loaded here, and which one answers now."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Generic, Self, TypeVar

from app.rules import Sentences
from app.stages.directed import DirectedStage
from app.stages.explain import ExplainStage
from app.stages.popular import PopularStage
from app.stages.render import RenderStage
from app.stages.titles import TitleStage
from training.model.bundle import Bundle

T = TypeVar("T")

# The one that answers and its predecessor, for requests in flight and for rolling back.
_KEPT_VERSIONS = 2
_SENTENCES = Sentences()


@dataclass(frozen=True)
class Model:
    """One version as the ingress sees it: the bundle and the stages that need no hop."""

    bundle: Bundle
    popular: PopularStage
    explain: ExplainStage
    render: RenderStage
    titles: TitleStage
    directed: DirectedStage

    @classmethod
    def load(cls, bundle: Bundle, sentences: Sentences = _SENTENCES) -> Self:
        """Build the stages over an open bundle; sentences: the texts of `why`."""
        popular, explain = PopularStage(bundle), ExplainStage(bundle)
        render = RenderStage(bundle, sentences)
        directed = DirectedStage(bundle, popular, explain, render)
        return cls(bundle, popular, explain, render, TitleStage(bundle), directed)

    @property
    def version(self) -> str:
        """The bundle's version."""
        return self.bundle.version


class Versions(Generic[T]):
    """What one process built from each bundle version; the newest few are kept."""

    def __init__(self, locate: Callable[[str], Path], build: Callable[[Bundle], T]) -> None:
        """locate: version -> bundle directory. build: called once per version."""
        self._locate = locate
        self._build = build
        self._loaded: OrderedDict[str, T] = OrderedDict()
        self._lock = Lock()

    def get(self, version: str) -> T:
        """What was built from the version, loading it first when this process has not yet.

        Raises BundleError when the bundle is not usable.
        """
        found = self._loaded.get(version)
        return found if found is not None else self._load(version)

    def _load(self, version: str) -> T:
        with self._lock:
            if version not in self._loaded:
                bundle = Bundle.open(self._locate(version))
                self._loaded[version] = self._build(bundle)
                while len(self._loaded) > _KEPT_VERSIONS:
                    self._loaded.popitem(last=False)
            return self._loaded[version]
