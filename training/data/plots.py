"""Plots of an Exploration, one function each; `PLOTS` are all that its data can fill."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.data.explore import Exploration, rank_curve

INK, ACCENT, SCALE = "#334155", "#2563eb", "Blues"
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True)
class Plot:
    """A title, a sentence on how to read it, and how it is drawn."""

    title: str
    text: str
    draw: Callable[[Exploration], Figure]
    needs: str = ""  # "ratings", "time" or "genres"

    def applies(self, seen: Exploration) -> bool:
        """Whether the data set has what the plot shows."""
        has = {
            "ratings": seen.data.has_ratings,
            "time": seen.data.has_time,
            "genres": bool(seen.genres[0]),
        }
        return has.get(self.needs, True)


def rating_distribution(seen: Exploration) -> Figure:
    figure, axes = _figure("rating", "events")
    values, counts = seen.rating_counts
    width = np.diff(values).min() * 0.8 if len(values) > 1 else 0.4
    axes.bar(values, counts, width=width, color=ACCENT)
    return figure


def user_activity(seen: Exploration) -> Figure:
    return _rank_plot(seen.events_per_user, "user, the most active first")


def item_popularity(seen: Exploration) -> Figure:
    return _rank_plot(seen.events_per_item, "item, the most popular first")


def genre_frequency(seen: Exploration) -> Figure:
    names = seen.genres[0]
    figure, axes = _figure("share", "", height=0.6 + 0.26 * len(names))
    place = np.arange(len(names))
    items = seen.genre_items / max(seen.data.n_items, 1)
    events = seen.genre_events / max(seen.data.n_events, 1)
    axes.barh(place - 0.2, items, height=0.38, color=INK, label="of the items")
    axes.barh(place + 0.2, events, height=0.38, color=ACCENT, label="of the events")
    axes.set_yticks(place, names)
    axes.invert_yaxis()
    axes.legend(frameon=False)
    return figure


def genre_pairs(seen: Exploration) -> Figure:
    names = seen.genres[0]
    figure, axes = _figure("", "", height=1.2 + 0.26 * len(names))
    shares = seen.genre_pairs.copy()
    np.fill_diagonal(shares, np.nan)
    _heat(figure, axes, shares, "share of the row's items")
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    return figure


def genre_rating(seen: Exploration) -> Figure:
    names, rating = seen.genres[0], seen.genre_rating
    order = np.argsort(np.nan_to_num(rating, nan=-np.inf))
    figure, axes = _figure("mean rating", "", height=0.6 + 0.24 * len(names))
    axes.plot(rating[order], np.arange(len(names)), "o", color=ACCENT)
    axes.set_yticks(range(len(names)), [names[index] for index in order])
    axes.axvline(float(np.nanmean(seen.data.rating)), color=INK, linewidth=0.8, linestyle=":")
    return figure


def events_over_time(seen: Exploration) -> Figure:
    figure, axes = _figure("", "events a month")
    months, counts = seen.months
    axes.fill_between(months.astype("datetime64[D]"), counts, step="mid", color=ACCENT, alpha=0.7)
    axes.set_ylim(bottom=0)
    figure.autofmt_xdate()
    return figure


def weekday_hour(seen: Exploration) -> Figure:
    figure, axes = _figure("hour (UTC)", "", height=2.4)
    _heat(figure, axes, seen.weekday_hour, "events")
    axes.set_yticks(range(7), DAYS)
    axes.set_xticks(range(0, 24, 3))
    return figure


def density(seen: Exploration) -> Figure:
    figure, axes = _figure("items, the most popular first", "users, the most active first", 3.6)
    share = np.log10(np.maximum(seen.density, seen.density[seen.density > 0].min() / 10))
    _heat(figure, axes, share, "log10 of the share that met")
    axes.set_xticks([])
    axes.set_yticks([])
    return figure


def cold_start(seen: Exploration) -> Figure:
    figure, axes = _figure("share with fewer events than that", "", height=2.4)
    place = np.arange(len(seen.cold))
    users = [users / max(seen.data.n_users, 1) for _, users, _ in seen.cold]
    items = [items / max(seen.data.n_items, 1) for _, _, items in seen.cold]
    axes.barh(place - 0.2, users, height=0.38, color=INK, label="users")
    axes.barh(place + 0.2, items, height=0.38, color=ACCENT, label="items")
    axes.set_yticks(place, [text for text, _, _ in seen.cold])
    axes.invert_yaxis()
    axes.legend(frameon=False)
    return figure


PLOTS = (
    Plot("Ratings", "How often each rating was given.", rating_distribution, "ratings"),
    Plot("User activity", "Events of each user; both axes are logarithmic.", user_activity),
    Plot(
        "Item popularity",
        "Events of each item; a straight line is Zipf's law, the long tail.",
        item_popularity,
    ),
    Plot("Genres", "How many items and events each genre has.", genre_frequency, "genres"),
    Plot(
        "Genres together",
        "Of the items of the row's genre, those that have the column's too.",
        genre_pairs,
        "genres",
    ),
    Plot(
        "Genres and ratings", "Mean rating; the dotted line is all events.", genre_rating, "genres"
    ),
    Plot("Over time", "Events of each month.", events_over_time, "time"),
    Plot("Weekday and hour", "When events happen, in UTC.", weekday_hour, "time"),
    Plot("Sparsity", "Where in the matrix of users and items events lie.", density),
    Plot("Cold start", "Users and items with little to learn from.", cold_start),
)


def _figure(x: str, y: str, height: float = 3.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.0, height), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _rank_plot(counts: np.ndarray, label: str) -> Figure:
    figure, axes = _figure(label, "events")
    axes.loglog(*rank_curve(counts), color=ACCENT, marker=".", markersize=3)
    return figure


def _heat(figure: Figure, axes: Axes, values: np.ndarray, label: str) -> None:
    image = axes.imshow(values, aspect="auto", cmap=SCALE)
    figure.colorbar(image, ax=axes, label=label)
