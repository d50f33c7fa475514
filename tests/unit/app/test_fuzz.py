"""Whatever the OpenAPI document allows, and whatever it does not, gets a documented answer.

`make fuzz` asks with many more cases.
"""

import socket
from pathlib import Path

import httpx
import pytest

from app.api.openapi import text
from app.api.routes import openapi_document
from tests.live import fuzz, service_over, serving

DOCUMENT = Path(__file__).parents[3] / "docs" / "openapi.json"

# Requests as they come over the wire, beyond what a client library would send.
ODD = [
    b"POST /recommend HTTP/1.1\r\ncontent-length: 3\r\n\r\n\xff\xfe\x00",
    b"POST /recommend HTTP/1.1\r\ncontent-length: 14\r\n\r\n" + b'{"user_id":NaN}'[:14],
    b"POST /recommend HTTP/1.1\r\ncontent-length: 23\r\n\r\n" + b'{"user_id": "\\ud800abc"}'[:23],
    b"POST /recommend HTTP/1.1\r\ncontent-length: 17\r\n\r\n" + b'{"user_id": 1e99}',
    b"POST /feedback HTTP/1.1\r\ncontent-length: 0\r\nx-api-key: \xff\r\n\r\n",
    b"POST /recommend?user_id=1&user_id=2 HTTP/1.1\r\ncontent-length: 4\r\n\r\nnull",
    b"GET /items?q=%ff%00&q=x&limit=1&limit=9999 HTTP/1.1\r\n\r\n",
    b"GET /similar/%00 HTTP/1.1\r\n\r\n",
    b"GET /similar/%ed%a0%80 HTTP/1.1\r\n\r\n",
    b"GET /users/%2e%2e/%2e%2e/history HTTP/1.1\r\n\r\n",
    b"GET /users/%2f%00/history HTTP/1.1\r\n\r\n",
    b"GET /users%2f1%2fhistory HTTP/1.1\r\n\r\n",
    b"DELETE /users/1/history HTTP/1.1\r\n\r\n",
    b"GET /page/%00 HTTP/1.1\r\n\r\n",
    b"GET /page/..%2f..%2froutes.py HTTP/1.1\r\n\r\n",
    b"GET /docs/.. HTTP/1.1\r\n\r\n",
    b"GET /page/" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n",
    b"GET /api/v1/recommendations/1?limit=" + b"9" * 5000 + b" HTTP/1.1\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\n\r\n",
    b"PURGE /recommend HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
]


def test_the_checked_in_document_is_the_services():
    assert DOCUMENT.read_text() == text(openapi_document()), "run `make openapi`"


@pytest.fixture(scope="module")
def url(bundle):
    with serving(service_over(bundle), rate_limit_per_minute=0) as url:
        yield url


def test_schemathesis_finds_no_undocumented_answer(url):
    done = fuzz(url, "--max-examples", "3", "--phases", "examples,coverage,fuzzing")
    assert done.returncode == 0, done.stdout
    operations = sum(len(path) for path in openapi_document()["paths"].values())
    assert f"Tested: {operations}" in done.stdout


@pytest.mark.parametrize("request_", ODD, ids=range(len(ODD)))
def test_an_odd_request_is_the_clients_mistake(url, request_):
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head, _, body = request_.partition(b"\r\n\r\n")
        connection.sendall(head + b"\r\nhost: x\r\nconnection: close\r\n\r\n" + body)
        status = int(connection.makefile("rb").readline().split()[1])
    assert 400 <= status < 500


async def test_odd_numbers_are_understood_or_refused_but_never_an_error(url):
    numbers = ["1e400", "-0", "1E5", "3.0", "18446744073709551616", "0.1e1", "9" * 400]
    async with httpx.AsyncClient(base_url=url) as client:
        for number in numbers:
            body = f'{{"user_id": {number}, "num_recommendations": {number}}}'
            answer = await client.post("/recommend", content=body)
            assert answer.status_code in (200, 422)
