"""A client of an OpenAI-compatible chat endpoint that waits, tries again, and gives up after a time."""

from __future__ import annotations

import json
import os
import time
from email.utils import parsedate_to_datetime
from typing import Any

from cotdistill.common.errors import UserError
from cotdistill.config.models import Judge

KEY = "COTDISTILL_JUDGE_KEY"
"""the environment variable of the key; without one no key is sent"""
LARGEST = 1 << 20
"""bytes of an answer that are read"""
PAUSE = 60.0
"""longest pause between two tries, in seconds, whatever the server asks for"""


class NoAnswer(Exception):
    """The server gave no usable answer, for all tries."""


class TemporaryFailure(Exception):
    """A failed try that may be repeated. pause: seconds that the server asks to wait, if it does."""

    def __init__(self, message: str, pause: float | None = None) -> None:
        super().__init__(message)
        self.pause = pause


class Chat:
    """A connection that sends one conversation at a time, at most `max_requests` requests in all."""

    def __init__(self, settings: Judge) -> None:
        self.settings = settings
        self.sent = 0

    @property
    def left(self) -> int:
        """Requests that may still be sent."""
        return self.settings.max_requests - self.sent

    def ask(self, messages: list[dict[str, str]]) -> str | None:
        """Return the text of the answer, whatever it says; None for a reply that is no chat answer.

        messages: role and content of each. Raises NoAnswer when the server cannot be reached, is late or
        fails for all tries (or as many as are left); UserError when it refuses the request, which no other
        try would change.
        """
        import tenacity

        tries = tenacity.Retrying(
            stop=self._stop, wait=_choose_pause, reraise=True,
            retry=tenacity.retry_if_exception_type(TemporaryFailure),
        )
        try:
            return tries(self._try, messages)
        except TemporaryFailure as error:
            raise NoAnswer(str(error)) from error

    def _stop(self, state: Any) -> bool:
        return state.attempt_number > self.settings.retries or self.left <= 0

    def _try(self, messages: list[dict[str, str]]) -> str | None:
        import requests
        from urllib3.exceptions import HTTPError

        self.sent += 1
        body: Any = {"model": self.settings.model, "messages": messages, "temperature": 0,
                     "max_tokens": self.settings.max_tokens}  # fmt: skip
        deadline = time.monotonic() + self.settings.timeout_s
        try:
            with requests.post(
                f"{self.settings.url.rstrip('/')}/chat/completions", json=body, auth=_add_key,
                timeout=self.settings.timeout_s, stream=True, allow_redirects=False,
                headers={"Accept-Encoding": "identity"},
            ) as response:  # fmt: skip
                self._check(response)
                return _extract_text(_read_body(response, deadline))
        except (requests.exceptions.Timeout, TimeoutError) as error:
            raise TemporaryFailure(f"no answer within {self.settings.timeout_s:g} s") from error
        except (requests.exceptions.RequestException, HTTPError, OSError) as error:
            raise TemporaryFailure(f"connection failed: {type(error).__name__}") from error

    def _check(self, response: Any) -> None:
        """Raise TemporaryFailure for a status that may pass, UserError for one that will not."""
        status = response.status_code
        if status == 200:
            return
        if status in (408, 409, 425, 429) or status >= 500:
            raise TemporaryFailure(f"HTTP {status}", _parse_retry_after(response.headers.get("Retry-After")))
        hint = f"; the key is read from {KEY}" if status in (401, 403) else ""
        raise UserError(f"judge at {self.settings.url}: request refused with HTTP {status}{hint}")


def _add_key(request: Any) -> Any:
    """Add the key to a request. An auth function, because requests would else use a password of ~/.netrc."""
    key = os.environ.get(KEY, "").strip()
    if key:
        if not (key.isascii() and key.isprintable()):
            raise UserError(f"{KEY}: expected a key of printable ASCII characters")
        request.headers["Authorization"] = f"Bearer {key}"
    return request


def _choose_pause(state: Any) -> float:
    """Return the seconds until the next try: what the server asks for, else 1, 2, 4, ...; at most `PAUSE`."""
    error = state.outcome.exception()
    asked = error.pause if isinstance(error, TemporaryFailure) else None
    return min(PAUSE, 2.0 ** (state.attempt_number - 1) if asked is None else asked)


def _parse_retry_after(header: str | None) -> float | None:
    """Return the seconds that a Retry-After header (a number or a date) asks for; None for anything else."""
    if header is None:
        return None
    if header.isascii() and header.isdigit():
        return float(header[:9])
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _read_body(response: Any, deadline: float) -> bytes:
    """Return the body, at most `LARGEST` bytes.

    Raises TemporaryFailure for a longer one, and at the deadline, also where a server sends single bytes.
    """
    body = b""
    while len(body) <= LARGEST:
        piece = response.raw.read1(65536)
        if not piece:
            return body
        body += piece
        if time.monotonic() > deadline:
            raise TemporaryFailure("no complete answer in time")
    raise TemporaryFailure(f"an answer of more than {LARGEST} bytes")


def _extract_text(body: bytes) -> str | None:
    """Return the answer's text, its first 1000 characters; None where the body is anything else."""
    try:
        text = json.loads(body)["choices"][0]["message"]["content"]
        # half a surrogate pair, which JSON can spell, could not be kept in a file
        return str(text.encode("utf-8", "replace"), "utf-8")[:1000]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return None
