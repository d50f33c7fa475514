"""The access log's lines."""

import asyncio
import io
from types import SimpleNamespace

import orjson

from app import logs


async def test_request_lines_are_written_together_and_each_is_one_json_document(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(logs.sys, "stderr", SimpleNamespace(buffer=written))
    monkeypatch.setattr(logs.AccessLog, "_FLUSH_AFTER_S", 0)
    access = logs.AccessLog()
    access.note(request_id="a", status=200)
    access.note(request_id="b", status=404)
    assert written.getvalue() == b""
    while not written.getvalue():
        await asyncio.sleep(0.001)
    lines = [orjson.loads(line) for line in written.getvalue().splitlines()]
    assert [(line["request_id"], line["status"]) for line in lines] == [("a", 200), ("b", 404)]
    assert all(line["event"] == "request" and line["timestamp"].endswith("Z") for line in lines)
