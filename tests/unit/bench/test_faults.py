"""The verdict on a fault: what counts against the service and what does not."""

import numpy as np
import pytest

from bench.faults.load import Answer, Log
from bench.faults.truth import Truth
from bench.faults.verdict import Span, judge
from bench.faults.versions import DAMAGED, MARK, OTHER, SOUND, two_versions
from tests.bundles import tiny_bundle
from training.model.bundle import Bundle, BundleError

TRUTH = Truth({SOUND: {1: frozenset(range(10))}, OTHER: {1: frozenset(range(20, 30))}}, "movie_id")


def rows(items, mark=""):
    return [{"movie_id": item, "title": f"Film {item}{mark}"} for item in items]


def slate(at, items=range(10), version=SOUND, mark="", took_s=0.01, **changed):
    body = {"recommendations": rows(items, mark), "model_version": version, "degraded": []}
    return Answer(at, took_s, 200, body | changed, user_id=1)


def failed(at, status=None, took_s=0.01, **body):
    return Answer(at, took_s, status, body, user_id=1, problem="gone")


def verdict(answers, span, lost=()):
    return judge(Log(list(answers)), span, TRUTH, lost)


def steady(n=3000):
    return [slate(at / 100) for at in range(n)]


def test_a_service_that_noticed_nothing_held():
    found = verdict(steady(), Span(5, 15))
    assert found.held
    assert (found.answered, found.errors, found.degraded, found.recovery_s) == (3000, 0, 0, 0)


@pytest.mark.parametrize(
    ("deadly", "sent_at", "held"), [(True, 4.99, True), (False, 4.99, False), (True, 6.0, False)]
)
def test_an_error_is_allowed_only_for_requests_under_way_on_a_killed_replica(deadly, sent_at, held):
    found = verdict([*steady(), failed(sent_at, took_s=0.02)], Span(5, 5, deadly))
    assert found.errors == 1
    assert found.held == held
    assert found.problems == (("gone", 1),)


def test_even_those_under_way_may_be_one_in_a_thousand_only():
    lost = [failed(4.99, took_s=0.02) for _ in range(4)]
    assert not verdict([*steady(), *lost], Span(5, 5, deadly=True)).held


def test_recovery_ends_with_the_last_answer_that_was_degraded_or_slow():
    span = Span(5, 15)
    degraded = slate(18.0, degraded=["rank"])
    assert verdict([*steady(), degraded], span).recovery_s == 3.0
    assert verdict([*steady(), slate(19.0, took_s=2.0)], span).recovery_s == 4.0
    assert not verdict([*steady(), slate(26.0, took_s=2.0)], span).held


def test_a_refusal_is_one_only_when_it_says_when_to_come_back():
    span = Span(5, 5)
    proper = failed(6.0, status=503, retry_after="1")
    assert (verdict([proper], span).refused, verdict([proper], span).errors) == (1, 0)
    assert verdict([failed(6.0, status=503, retry_after=None)], span).errors == 1


def test_refused_feedback_is_no_fault_but_lost_feedback_is():
    refused = Answer(6.0, 0.01, 503, {"retry_after": "1"}, user_id=1, item_id=5)
    assert verdict([*steady(), refused], Span(5, 15)).held
    stored = Answer(6.0, 0.01, 200, {}, user_id=1, item_id=5)
    assert not verdict([*steady(), stored], Span(5, 15), lost=[stored]).held


@pytest.mark.parametrize(
    ("answer", "mixed"),
    [
        (slate(1), False),
        (slate(1, range(20, 30), OTHER, MARK), False),
        (slate(1, range(9, -1, -1)), False),
        (slate(1, range(20, 30), OTHER), True),
        (slate(1, mark=MARK), True),
        (slate(1, range(5, 15)), True),
        (slate(1, range(40, 50), degraded=["embed"]), False),
        (slate(1, range(40, 50), degraded=["embed"], mark=MARK), True),
        (slate(1, version="7"), True),
    ],
)
def test_a_slate_of_two_versions_is_seen_by_its_titles_or_by_its_items(answer, mixed):
    assert TRUTH.is_mixed(answer) == mixed


def test_the_store_has_a_sound_another_and_a_damaged_version(tmp_path):
    source = Bundle.open(tiny_bundle(tmp_path / "source" / "1"))
    store = two_versions(source, tmp_path / "store")
    assert store.production() == SOUND
    sound, other = (Bundle.open(tmp_path / "store" / "bundles" / v) for v in (SOUND, OTHER))
    assert other.items.titles == [title + MARK for title in sound.items.titles]
    assert not np.array_equal(other.item_vectors, sound.item_vectors)
    with pytest.raises(BundleError, match=r"item_vectors\.npy"):
        Bundle.open(tmp_path / "store" / "bundles" / DAMAGED)
