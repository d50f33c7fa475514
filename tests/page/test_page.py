"""The web page in headless Chromium over a fake service."""

from __future__ import annotations

import pytest
from pydantic import BaseModel
from selenium.webdriver.common.keys import Keys

from app.api import schemas
from marquee.client import Client, item_id
from tests.page.fake_api import FakeApi, serving
from tests.page.page import Page

pytestmark = pytest.mark.page


@pytest.mark.parametrize(
    ("path", "query", "body", "schema"),
    [
        ("/users", {}, {}, schemas.UsersResponse),
        ("/users/1/history", {}, {}, schemas.HistoryResponse),
        ("/popular", {}, {}, schemas.PopularResponse),
        ("/items", {"q": "toy"}, {}, schemas.ItemsResponse),
        ("/similar/1", {}, {}, schemas.SimilarResponse),
        ("/recommend", {}, {"user_id": 1}, schemas.RecommendResponse),
        (
            "/feedback",
            {},
            {"user_id": 1, "item_id": 9, "event_type": "watch"},
            schemas.FeedbackResponse,
        ),
    ],
)
def test_the_fake_answers_in_the_shapes_of_the_service(
    api: FakeApi, path: str, query: dict[str, str], body: dict[str, object], schema: type[BaseModel]
) -> None:
    status, answer = api.answer(path, query, body)
    assert status == 200
    schema.model_validate(answer)


def test_the_client_understands_the_fake_as_it_does_the_service(api: FakeApi) -> None:
    with serving(api) as url, Client(url) as client:
        assert client.info()["model_version"] == "7"
        user = client.users(1)[0]
        first = item_id(client.recommend(user, num_recommendations=1)["recommendations"][0])
        assert client.feedback(user, first, "watch")["status"] == "stored"
        assert item_id(client.history(user)[0]) == first
        assert item_id(client.similar(first, 3)["item"]) == first
        assert item_id(client.items("toy story")[0]) == 2
        assert len(client.popular(5)) == 5


def test_picking_a_user_shows_the_slate_with_scores_and_reasons(page: Page) -> None:
    page.open()
    page.click("#user-choices li:first-child button")
    assert "Total Recall" in page.slate()
    assert page.script("location.search") == "?user=1"
    first = page.one("#slate-items .card").text
    for shown in ("Terminator 2: Judgment Day", "1991", "★ 4.0", "Action", "Sci-Fi", "Score 0.91"):
        assert shown in first
    assert "Because you watched The Matrix similarity 1.00" in first.replace("\n", " ")
    status = page.text("#slate-status")
    assert "model 7" in status
    assert "1.3 ms in the service" in status


def test_typing_a_user_shows_their_slate_and_back_returns(page: Page) -> None:
    page.open("?user=1")
    first = page.slate()
    page.type("#user", "2" + Keys.ENTER)
    second = page.slate_after(first)
    page.browser.back()
    assert page.slate_after(second) == first
    assert page.script("document.getElementById('user').value") == "1"


def test_watched_changes_the_slate_and_the_history_at_once(page: Page, api: FakeApi) -> None:
    page.open("?user=1")
    before = page.slate()
    page.click("#slate-items [data-action=watch]")
    after = page.slate_after(before)
    assert before[0] not in after
    assert page.all("#slate-items .badge")
    assert page.text("#slate-note").startswith(f"Watched {before[0]}. ")
    page.until(lambda: page.titles("#history-items")[:1] == before[:1])
    assert api.sent("/feedback") == [{"user_id": 1, "item_id": 10, "event_type": "watch"}]


def test_not_for_me_removes_the_title(page: Page, api: FakeApi) -> None:
    page.open("?user=2")
    before = page.slate()
    page.click("#slate-items .card:nth-child(2) [data-action=dislike]")
    after = page.slate_after(before)
    assert before[1] not in after
    assert before[0] == after[0]
    assert api.sent("/feedback")[0]["event_type"] == "dislike"
    assert "Not for me" in page.one("#history-items .row").text


def test_search_finds_a_title_and_shows_similar_ones(page: Page) -> None:
    page.open("?user=1")
    before = page.slate()
    page.type("#query", "spirited")
    page.until(lambda: page.titles("#search-results") == ["Spirited Away"])
    page.click("#search-results [data-action=similar]")
    near = page.until(lambda: page.titles("#similar-items"))
    assert page.text("#similar-title") == "Like Spirited Away"
    assert near[0] == "My Neighbor Totoro"
    page.click("#similar-items [data-action=watch]")
    page.until(lambda: "Watched ✓" in page.one("#similar-items .row").text)
    page.click("#similar-close")
    assert page.slate_after(before)
    page.type("#query", "no such film")
    page.until(lambda: page.text("#search-note").startswith("Nothing named"))


def test_a_new_user_gets_a_personal_slate_after_three_clicks(page: Page, api: FakeApi) -> None:
    page.open()
    page.click("#new-user")
    assert page.focus() == "onboarding-title"
    page.until(lambda: len(page.titles("#onboarding-items")) == 24)
    for place in (1, 4):  # The Matrix, Alien
        page.click(f"#onboarding-items .card:nth-child({place}) [data-action=watch]")
    page.until(lambda: page.text("#onboarding-count") == "2 of 3")
    page.type("#query", "aliens")
    page.click("#search-results [data-action=watch]")
    assert page.slate()[0] == "Terminator 2: Judgment Day"
    assert page.text("#slate-status").startswith("personal")
    page.until(lambda: page.titles("#history-items") == ["Aliens", "Alien", "The Matrix"])
    users = {body["user_id"] for body in api.sent("/feedback")}
    assert page.script("location.search") == f"?user={users.pop()}"
    assert not users


def test_an_unknown_user_in_the_address_starts_from_a_few_clicks(page: Page) -> None:
    page.open("?user=424242")
    assert "User 424242 has no history yet" in page.one("#onboarding-lead").text
    page.click("#onboarding-items [data-action=watch]")
    page.click("#onboarding-done")
    assert page.slate()


def test_everything_works_with_the_keyboard_alone(page: Page) -> None:
    page.open()
    page.one("#landing-items .card")
    page.keys(Keys.TAB)
    assert page.script("document.activeElement.textContent") == "Skip to recommendations"
    page.keys(Keys.TAB, Keys.TAB)
    assert page.focus() == "user"
    page.keys("1", Keys.ENTER)
    before = page.slate()
    for _ in range(40):
        if page.focus() == f"Watched: {before[0]}":
            break
        page.keys(Keys.TAB)
    assert page.script("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keys(Keys.ENTER)
    after = page.slate_after(before)
    assert page.focus() == after[0]  # the card that took the place, not one of its buttons
    page.keys(Keys.TAB, Keys.TAB, Keys.TAB, Keys.ENTER)
    page.until(lambda: page.titles("#similar-items"))
    assert page.focus() == "similar-title"
    page.keys(Keys.ESCAPE)
    assert page.focus() == f"Similar: {after[0]}"


@pytest.mark.parametrize("query", ["", "?user=1", "?user=31337"])
def test_a_narrow_screen_has_no_horizontal_scroll(page: Page, query: str) -> None:
    page.size(360, 740)
    page.open(query)
    page.one(".cards .card h3")
    for details in page.all("summary"):
        if details.is_displayed():
            details.click()
    page.type("#query", "stop worrying")
    page.one("#search-results .row")
    assert page.script("document.documentElement.scrollWidth") <= 360


def test_filters_are_sent_and_narrow_the_slate(page: Page, api: FakeApi) -> None:
    page.open("?user=1")
    everything = page.slate()
    page.click(".filters summary")
    page.click("#filters .chip:has([value=Romance])")
    romances = page.slate_after(everything)
    page.type("#filters [name=year_to]", "1960" + Keys.TAB)
    assert page.slate_after(romances) == ["The Apartment", "Casablanca"]
    asked = api.sent("/recommend")[-1]
    assert asked["filters"] == {"genres": ["Romance"], "years": [None, 1960]}
    page.type("#filters [name=min_rating]", "4.9" + Keys.TAB)
    page.until(lambda: page.text("#slate-note").startswith("No film fits"))
    page.click("#slate-note button")
    page.until(lambda: page.titles() == everything)
    page.click("#filters .chip:has([value=Horror])")
    page.slate_after(everything)
    page.click("#filters [type=reset]")
    page.until(lambda: page.titles() == everything)


def test_show_more_adds_cards_and_moves_the_focus_to_the_first_of_them(page: Page) -> None:
    page.open("?user=1")
    before = page.slate()
    page.click("#slate-more")
    after = page.slate_after(before)
    assert after[: len(before)] == before
    assert page.focus() == after[len(before)]


def test_a_failure_is_one_line_with_a_way_to_try_again(page: Page, api: FakeApi) -> None:
    api.fail("/recommend", 503)
    page.open("?user=1")
    assert "not available right now" in page.one("#slate-error").text
    api.heal()
    page.click("#slate-error .retry")
    assert page.slate()
    assert page.text("#slate-error") == ""


def test_feedback_that_is_not_acknowledged_changes_nothing(page: Page, api: FakeApi) -> None:
    page.open("?user=1")
    before = page.slate()
    api.fail("/feedback", 503, "the user state does not answer; send the feedback again")
    page.click("#slate-items [data-action=watch]")
    said = page.one("#slate-error").text
    assert said.startswith(f"{before[0]} was not recorded. the user state does not answer;")
    assert page.slate() == before
    api.heal()
    page.click("#slate-error .retry")
    assert before[0] not in page.slate_after(before)


def test_a_mistake_of_the_reader_is_named_without_an_offer_to_repeat_it(
    page: Page, api: FakeApi
) -> None:
    api.fail("/recommend", 422, "user_id: a text id must be 1 to 128 printable characters")
    page.open("?user=1")
    assert page.one("#slate-error").text.startswith("user_id: a text id must be")
    assert not page.all("#slate-error .retry")


def test_an_unready_service_is_said_once_and_the_page_starts_later(
    page: Page, api: FakeApi
) -> None:
    api.fail("/info", 503, "no bundle is loaded yet")
    page.open("?user=1")
    assert "no bundle is loaded yet" in page.one("#page-error").text
    api.heal()
    page.click("#page-error .retry")
    assert page.slate()


def test_offline_is_said_and_repaired_when_the_network_is_back(page: Page) -> None:
    page.open("?user=1")
    before = page.slate()
    page.offline(True)
    page.click("#slate-items [data-action=watch]")
    assert "You are offline" in page.one("#slate-error").text
    page.offline(False)
    assert before[0] not in page.slate_after(before)


def test_what_the_service_did_without_is_shown(page: Page, api: FakeApi) -> None:
    api.degraded = ["cache", "rank"]
    page.open("?user=1")
    assert "running without: cache, rank" in page.one("#slate-status .degraded").text


def test_where_keys_are_on_the_page_asks_for_one_and_keeps_it(page: Page, api: FakeApi) -> None:
    api.key = "mq_right"
    page.open("?user=1")
    assert "send an API key" in page.one("#page-error").text
    page.type("#key", "mq_wrong" + Keys.ENTER)
    assert "send an API key" in page.one("#page-error").text
    page.type("#key", "mq_right" + Keys.ENTER)
    assert page.slate()
    assert not page.one("body").find_element("id", "key-form").is_displayed()
    page.open("?user=2")
    assert page.slate()
    page.script("sessionStorage.clear()")


def test_dark_follows_the_system(page: Page) -> None:
    page.media(scheme="dark")
    page.open()
    assert page.script("getComputedStyle(document.body).backgroundColor") == "rgb(19, 16, 22)"


def test_markup_in_a_title_stays_text(page: Page, api: FakeApi) -> None:
    api.items[9]["title"] = "<img src=/x onerror=alert(1)> & <b>Co</b>"
    page.open("?user=1")
    assert page.slate()[0] == "<img src=/x onerror=alert(1)> & <b>Co</b>"
    assert not page.all(".card img, .card b")


class TestACatalogueThatIsNotMovies:
    """The key of an item and the types of ids come from the service."""

    @pytest.fixture
    def api(self) -> FakeApi:
        return FakeApi(id_field="item_id", users=("ann", "007"))

    def test_items_are_keyed_as_the_service_says(self, page: Page, api: FakeApi) -> None:
        page.open("?user=ann")
        before = page.slate()
        page.click("#slate-items [data-action=watch]")
        assert before[0] not in page.slate_after(before)
        sent = {"user_id": "ann", "item_id": "tt-10", "event_type": "watch"}
        assert api.sent("/feedback") == [sent]
        assert page.text("#slate-note").endswith("in the slate.")

    def test_digits_stay_a_text_where_ids_are_texts(self, page: Page, api: FakeApi) -> None:
        page.open("?user=007")
        page.slate()
        assert api.sent("/recommend")[0]["user_id"] == "007"
