"""Rules as JSON: in a request's `rules`, and in the file that MARQUEE_RULES names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from app import rules as values
from app.fields import WHOLE, Genre, Identifier, Years, problem, year_range

_LONGEST_SENTENCE = 500


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Ids = Annotated[list[Identifier], Field(max_length=1_000)]
Genres = Annotated[list[Genre], Field(max_length=100)]
Attribute = Annotated[str, Field(min_length=1, max_length=100)]


class Block(_Part):
    """Items that are never offered."""

    item_ids: Ids = []
    genres: Annotated[Genres, Field(description="Items that have any of these.")] = []


class Boost(_Part):
    """Adds to the relevance (0 to 1) of items that satisfy every condition that is given."""

    add: Annotated[Finite, Field(ge=-10, le=10)]
    item_ids: Ids = []
    genres: Annotated[Genres, Field(description="Any of these.")] = []
    years: Years = None


class Freshness(_Part):
    """Adds weight * 0.5 ** (age / half_life_years), age from the catalogue's newest year."""

    weight: Annotated[Finite, Field(ge=0, le=10)]
    half_life_years: Annotated[Finite, Field(ge=0.01, le=1000)] = 5.0


class Diversity(_Part):
    """Unlike items near each other, and few of a kind."""

    mmr_lambda: Annotated[
        Finite | None,
        Field(ge=0, le=1, description="1: relevance alone; 0: unlikeness alone; null: no MMR."),
    ] = None
    max_per: Annotated[
        dict[Attribute, Annotated[int, Field(strict=True, ge=0, le=10_000), WHOLE]],
        Field(
            max_length=10,
            description="Most items of a slate with the same genre, decade or other column.",
            examples=[{"genre": 3}],
        ),
    ] = {}


class Pin(_Part):
    """An item at a place of the slate, if the user may see it at all."""

    item_id: Identifier
    position: Annotated[int, Field(strict=True, ge=1, le=10_000), WHOLE] = 1


class Rules(_Part):
    """What happens between ranking and the slate, in this order: block, boost, freshness,
    diversity, pin."""

    block: Block = Block()
    boost: Annotated[list[Boost], Field(max_length=100)] = []
    freshness: Freshness | None = None
    diversity: Diversity = Diversity()
    pin: Annotated[list[Pin], Field(max_length=100)] = []

    def value(self) -> values.Rules | None:
        """The same as the stages read it; None when it asks for nothing."""
        asked = values.Rules(
            block_ids=tuple(self.block.item_ids),
            block_genres=tuple(self.block.genres),
            boosts=tuple(_boost(boost) for boost in self.boost),
            freshness=_freshness(self.freshness),
            mmr_lambda=self.diversity.mmr_lambda,
            max_per=tuple(sorted(self.diversity.max_per.items())),
            pins=tuple(values.Pin(pin.item_id, pin.position) for pin in self.pin),
        )
        return None if asked == values.Rules() else asked


def _freshness(freshness: Freshness | None) -> values.Freshness | None:
    if freshness is None:
        return None
    return values.Freshness(freshness.weight, freshness.half_life_years)


def _boost(boost: Boost) -> values.Boost:
    first, last = year_range(boost.years)
    return values.Boost(boost.add, tuple(boost.item_ids), tuple(boost.genres), first, last)


def _sentence(*known: str) -> AfterValidator:
    def check(text: str) -> str:
        try:
            fields = [name for _, name, _, _ in Formatter().parse(text) if name is not None]
        except ValueError as error:
            raise ValueError(f"not a sentence with {{placeholders}}: {error}") from None
        for name in fields:
            if name not in known:
                raise ValueError(
                    f"no placeholder {{{name}}}; there are "
                    + ", ".join(f"{{{field}}}" for field in known)
                )
        return text

    return AfterValidator(check)


_Text = Annotated[str, Field(min_length=1, max_length=_LONGEST_SENTENCE)]


class Why(_Part):
    """The sentences of `why`."""

    watched: Annotated[_Text, _sentence("title", "item", "verb")] = values.Sentences.watched
    looked_at: Annotated[_Text, _sentence("title", "item")] = values.Sentences.looked_at
    popular: Annotated[_Text, _sentence("item")] | None = None
    pinned: Annotated[_Text, _sentence("item")] | None = None


class _File(Rules):
    """A rules file: the rules of every request, and the sentences."""

    version: Literal[1] = 1
    why: Why = Why()


@dataclass(frozen=True)
class RuleBook:
    """What the service was told about slates in general."""

    rules: values.Rules | None = None
    sentences: values.Sentences = values.Sentences()


class RulesError(ValueError):
    """A rules file that cannot be used; one line per mistake."""


def read_rules(path: str) -> RuleBook:
    """The rules of a YAML or JSON file; of nothing for an empty path. Raises RulesError.

    A path that begins with a brace is no path but the rules themselves, as JSON.
    """
    if not path:
        return RuleBook()
    inline = path.lstrip().startswith("{")
    text, path = (path, "MARQUEE_RULES") if inline else ("", path)
    try:
        content: Any = yaml.safe_load(text or Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RulesError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    except yaml.YAMLError as error:
        raise RulesError(f"{path}: {_yaml_problem(error)}") from None
    try:
        # Through the same checks as a request: JSON's types, not Python's.
        file = _File.model_validate(content if content is not None else {})
    except ValidationError as error:
        lines = [
            f"{path}: {'.'.join(map(str, e['loc'])) or 'the file'}: {problem(e)}"
            for e in error.errors()
        ]
        raise RulesError("\n".join(lines)) from None
    return RuleBook(file.value(), values.Sentences(**file.why.model_dump()))


def _yaml_problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}: " if mark is not None else ""
    return f"{where}{getattr(error, 'problem', None) or 'not YAML'}"
