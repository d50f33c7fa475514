import pytest

from bench.neighbours import _stem, run
from tests.bundles import tiny_bundle


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("Toy Story 2", "toy story"),
        ("Star Wars: Episode IV - A New Hope", "star wars"),
        ("Father of the Bride Part II", "father of the bride"),
        ("Mad Max 2 (a.k.a. The Road Warrior)", "mad max"),
        ("Titanic", "titanic"),
    ],
)
def test_a_series_is_what_its_titles_begin_with(name, stem):
    assert _stem(name) == stem


def test_both_ways_are_measured_on_the_same_bundle(tmp_path):
    bundle = tiny_bundle(tmp_path / "1", n_items=10, n_users=200)  # "Film 1" to "Film 10"
    figures = run(bundle, ["Film 3"])
    assert list(figures) == ["vectors", "co-consumption"]
    for way in figures.values():
        assert way["series"] == 1  # nine others, and all are among the first ten
        assert 0 < way["genres"] < 1
        assert 0.5 < way["next"] <= 1  # less those whose last item is the one before
        assert len(way["of"]["Film 3"]) == 9


def test_a_title_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SystemExit, match="Casablanca"):
        run(tiny_bundle(tmp_path / "1"), ["Casablanca"])
