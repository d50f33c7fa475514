"""A small Marquee in memory for the page's tests: the service's shapes, a toy taste behind them.

It scores by shared genres, so that feedback changes a slate in a way a test can foresee, and it
can be told to fail. `test_page.py` checks its answers against `app.api.schemas`.
"""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

PAGE = Path(__file__).parents[2] / "app" / "api" / "page"

# The service's own header (app/api/site.py): a page that needs more does not work here either.
CONTENT_SECURITY_POLICY = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'"

Json = dict[str, Any]

_FILMS = [
    ("The Matrix", 1999, "Action Sci-Fi", 4.19),
    ("Toy Story", 1995, "Animation Children Comedy", 3.92),
    ("Pulp Fiction", 1994, "Crime Drama Thriller", 4.2),
    ("Alien", 1979, "Horror Sci-Fi", 3.97),
    ("Heat", 1995, "Crime Thriller", 3.95),
    ("Amelie", 2001, "Comedy Romance", 4.18),
    ("Blade Runner", 1982, "Sci-Fi Thriller", 4.1),
    ("Finding Nemo", 2003, "Animation Children", 3.96),
    ("Fargo", 1996, "Crime Comedy", 4.12),
    ("Terminator 2: Judgment Day", 1991, "Action Sci-Fi", 3.97),
    ("Spirited Away", 2001, "Animation Fantasy", 4.16),
    ("The Silence of the Lambs", 1991, "Crime Horror", 4.16),
    ("Before Sunrise", 1995, "Drama Romance", 3.9),
    ("Die Hard", 1988, "Action Crime", 3.86),
    ("The Shining", 1980, "Horror", 4.08),
    ("Monsters, Inc.", 2001, "Animation Comedy", 3.87),
    ("Casablanca", 1942, "Drama Romance", 4.24),
    ("Twelve Monkeys", 1995, "Sci-Fi Thriller", 3.98),
    ("The Princess Bride", 1987, "Comedy Fantasy", 4.23),
    ("Goodfellas", 1990, "Crime Drama", 4.25),
    ("Aliens", 1986, "Action Horror Sci-Fi", 3.96),
    ("Groundhog Day", 1993, "Comedy Romance", 3.94),
    ("Shrek", 2001, "Animation Comedy", 3.87),
    ("Se7en", 1995, "Crime Thriller", 3.98),
    ("The Fifth Element", 1997, "Action Sci-Fi", 3.69),
    ("Psycho", 1960, "Horror Thriller", 4.04),
    ("Up", 2009, "Animation Children", 4.0),
    ("The Apartment", 1960, "Comedy Romance", 4.12),
    ("Gattaca", 1997, "Drama Sci-Fi", 3.8),
    ("Chinatown", 1974, "Crime", 4.21),
    ("My Neighbor Totoro", 1988, "Animation Fantasy", 4.13),
    ("Total Recall", 1990, "Action Sci-Fi", 3.6),
    ("Dr. Strangelove or: How I Learned to Stop Worrying and Love the Bomb", 1964, "Comedy", 4.21),
    ("The Third Man", 1949, "Film-Noir Thriller", 4.22),
]


class FakeApi:
    """State of the fake: the catalogue, everybody's events, and what has been told to fail."""

    def __init__(
        self, id_field: str = "movie_id", users: tuple[int | str, ...] = (1, 2, 3)
    ) -> None:
        self.id_field = id_field
        # Text ids stand for catalogues that are not MovieLens.
        prefix = "" if id_field == "movie_id" else "tt-"
        self.items: list[Json] = [
            {
                id_field: f"{prefix}{n}" if prefix else n,
                "title": f"{title} ({year})",
                "genres": genres.split(),
                "year": year,
                "avg_rating": rating,
            }
            for n, (title, year, genres, rating) in enumerate(_FILMS, start=1)
        ]
        self.users = users
        self.past = {str(user): [3 * n, 3 * n + 1] for n, user in enumerate(users)}  # places
        self.events: dict[str, list[tuple[int, str]]] = {}
        self.requests: list[tuple[str, Json]] = []
        self.failures: dict[str, tuple[int, Json | None]] = {}
        self.degraded: list[str] = []
        self.key: str | None = None  # what every call must show, when there is one

    def fail(self, path: str, status: int, message: str | None = None) -> None:
        """Answer `path` with `status`; without a message as a proxy would, not in JSON."""
        body = None if message is None else {"error": {"code": "test", "message": message}}
        self.failures[path] = (status, body)

    def heal(self) -> None:
        """Let nothing fail any more."""
        self.failures.clear()

    def sent(self, path: str) -> list[Json]:
        """Bodies that were sent to `path`, oldest first."""
        return [body for where, body in self.requests if where == path]

    def answer(self, path: str, query: dict[str, str], body: Json) -> tuple[int, Json | None]:
        """Status and body for one request."""
        if path in self.failures:
            return self.failures[path]
        limit = int(query.get("limit", "10"))
        match path.strip("/").split("/"):
            case ["info"]:
                return 200, self._info()
            case ["users"]:
                return 200, {"users": list(self.users)[:limit]}
            case ["users", user, "history"]:
                past = self._history(user)[:limit]
                return 200, {"user_id": user, "history": past, "degraded": []}
            case ["popular"]:
                scored = [i | {"score": 1.0} for i in self.items[:limit]]
                return 200, self._page(scored) | {"degraded": []}
            case ["items"]:
                words = query["q"].lower().split()
                found = [i for i in self.items if all(w in i["title"].lower() for w in words)]
                return 200, self._page(found[:limit])
            case ["similar", item]:
                return self._similar(item, limit)
            case ["recommend"]:
                return 200, self._recommend(body)
            case ["feedback"]:
                return self._feedback(body)
        return 404, {"error": {"code": "not_found", "message": "Not Found"}}

    def _info(self) -> Json:
        genres = sorted({genre for item in self.items for genre in item["genres"]})
        entity = "movie" if self.id_field == "movie_id" else "item"
        return {"model_version": "7", "entity": entity, "id_field": self.id_field, "genres": genres}

    def _page(self, items: list[Json]) -> Json:
        return {"items": items, "model_version": "7"}

    def _place(self, item_id: int | str) -> int | None:
        ids = [str(item[self.id_field]) for item in self.items]
        return ids.index(str(item_id)) if str(item_id) in ids else None

    def _history(self, user: str) -> list[Json]:
        events = [self.items[p] | {"event_type": kind} for p, kind in self.events.get(user, [])]
        past = [self.items[p] | {"event_type": None} for p in self.past.get(user, [])]
        return events[::-1] + past[::-1]

    def _feedback(self, body: Json) -> tuple[int, Json]:
        place = self._place(body["item_id"])
        if place is None:
            message = f"{body['item_id']!r} is not in the catalogue"
            return 404, {"error": {"code": "not_found", "message": message, "field": "item_id"}}
        self.events.setdefault(str(body["user_id"]), []).append((place, body["event_type"]))
        return 200, body | {"status": "stored", "revision": "1-0", "request_id": "fake"}

    def _similar(self, item_id: str, limit: int) -> tuple[int, Json]:
        place = self._place(item_id)
        if place is None:
            return 404, {"error": {"code": "not_found", "message": f"no item {item_id}"}}
        others = [p for p in range(len(self.items)) if p != place]
        others.sort(key=lambda p: -self._likeness(p, place))
        rows = [self.items[p] | {"score": self._likeness(p, place)} for p in others[:limit]]
        return 200, {"item": self.items[place], "similar": rows, "model_version": "7"}

    def _likeness(self, one: int, other: int) -> float:
        a, b = set(self.items[one]["genres"]), set(self.items[other]["genres"])
        return round(len(a & b) / len(a | b), 3)

    def _recommend(self, body: Json) -> Json:
        user = str(body["user_id"])
        events = self.events.get(user, [])
        disliked = {p for p, kind in events if kind == "dislike"}
        seen = [*self.past.get(user, []), *(p for p, kind in events if kind == "watch")]
        out = disliked | (set(seen) if body.get("exclude_watched", True) else set())
        allowed = [p for p in range(len(self.items)) if p not in out]
        allowed = [p for p in allowed if _fits(self.items[p], body.get("filters", {}))]
        score = {p: sum(self._likeness(p, s) for s in seen) - 0.01 * p for p in allowed}
        best = sorted(allowed, key=lambda p: -score[p])[: body.get("num_recommendations", 10)]
        return {
            "user_id": body["user_id"],
            "recommendations": [
                self.items[p] | {"score": round(score[p], 4), "why": self._why(p, seen)}
                for p in best
            ],
            "strategy": "personal" if seen else "popular",
            "degraded": self.degraded,
            "request_id": "fake",
            "latency_ms": 1.25,
            "model_version": "7",
        }

    def _why(self, place: int, seen: list[int]) -> Json | None:
        if not seen:
            return None
        nearest = max(seen, key=lambda s: self._likeness(place, s))
        item = self.items[nearest]
        return {
            "text": f"Because you watched {item['title']}",
            "because": {self.id_field: item[self.id_field], "title": item["title"]},
            "similarity": self._likeness(place, nearest),
        }


def _fits(item: Json, filters: Json) -> bool:
    first, last = filters.get("years") or (None, None)
    genres = filters.get("genres")
    return (
        (not genres or bool(set(genres) & set(item["genres"])))
        and item["avg_rating"] >= (filters.get("min_rating") or 0)
        and (first or 0) <= item["year"] <= (last or 9999)
    )


@contextmanager
def serving(api: FakeApi) -> Iterator[str]:
    """Serve the page over `api` on a free port of the loopback; yields the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._handle()

        def do_POST(self) -> None:
            self._handle()

        def _handle(self) -> None:
            where = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(where.query).items()}
            path = unquote(where.path)
            if path == "/" or path.startswith("/page/"):
                return self._file(PAGE / (path.removeprefix("/page/").strip("/") or "index.html"))
            raw = self.rfile.read(int(self.headers.get("content-length", 0)))
            if api.key is not None and self.headers.get("authorization") != f"Bearer {api.key}":
                problem = {"error": {"code": "unauthorized", "message": "send an API key"}}
                return self._send(401, "application/json", json.dumps(problem).encode())
            sent = json.loads(raw) if raw else {}
            api.requests.append((path, sent))
            status, body = api.answer(path, query, sent)
            if body is None:
                return self._send(status, "text/html", b"<h1>no server is available</h1>")
            return self._send(status, "application/json", json.dumps(body).encode())

        def _file(self, file: Path) -> None:
            if not file.is_file():
                return self._send(404, "text/plain", b"no such file")
            kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            return self._send(200, kind, file.read_bytes())

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.send_header("content-security-policy", CONTENT_SECURITY_POLICY)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: the tests' output is pytest's."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
