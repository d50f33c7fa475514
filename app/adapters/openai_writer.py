"""Prose from any endpoint that speaks OpenAI's chat completions: a vendor's, or a server nearby."""

from __future__ import annotations

from typing import Any

import httpx

from app.errors import DependencyUnavailable

_MAX_TOKENS = 120
# More callers than this at once are told no: a slow model must not gather a crowd.
_MAX_CALLS = 16


class OpenAIWriter:
    """The Writer port over HTTP."""

    def __init__(
        self,
        url: str,
        *,
        model: str,
        api_key: str,
        timeout_s: float,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """url: up to and without `/chat/completions`. timeout_s: for the whole answer."""
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._url = f"{url.rstrip('/')}/chat/completions"
        self._model = model
        self._http = httpx.AsyncClient(headers=headers, timeout=timeout_s, transport=transport)
        self._calls = 0

    async def write(self, instruction: str, facts: str) -> str:
        """See the port."""
        if self._calls >= _MAX_CALLS:
            raise DependencyUnavailable(f"prose: {_MAX_CALLS} requests are being written already")
        self._calls += 1
        try:
            response = await self._http.post(self._url, json=self._body(instruction, facts))
            response.raise_for_status()
            text: Any = response.json()["choices"][0]["message"]["content"]
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            raise DependencyUnavailable(f"prose: {type(error).__name__}: {error}") from error
        finally:
            self._calls -= 1
        if not isinstance(text, str):
            raise DependencyUnavailable("prose: the answer holds no text")
        return text

    def _body(self, instruction: str, facts: str) -> dict[str, Any]:
        return {
            "model": self._model,
            "messages": [
                {"role": "system", "content": instruction},
                {"role": "user", "content": facts},
            ],
            "max_tokens": _MAX_TOKENS,
        }
