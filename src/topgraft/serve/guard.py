"""What every request passes first: whom it is for, how large it is, and what stands beside each reply."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from topgraft.serve.inputs import Refused
from topgraft.serve.limits import Limits

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; media-src blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
"""Of every reply: the page loads nothing from elsewhere and is shown in no other page."""
SOON = 1
"""Seconds after which a request that was too many may be tried again."""


class Gone(Exception):
    """Whoever asked went away before the request was complete."""


class Guard:
    """Refuses requests for another host and bodies that are too large, before they are read.

    Parameters
    ----------
    app
        What is guarded.
    limits
        Of the size of bodies.
    hosts
        Names by which the service may be asked, or nothing for any. A service without authentication on
        one's own machine has to know them: else a page from elsewhere, whose name was made to point here,
        could read its answers.
    """

    def __init__(self, app: App, *, limits: Limits, hosts: frozenset[str] | None) -> None:
        self.app, self.limits, self.hosts = app, limits, hosts
        self.held = 0
        """Bytes of the bodies of all requests under way."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_encoded(HEADERS.items())]
            await send(message)

        taken = 0

        async def receiving() -> Message:
            nonlocal taken
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            more = len(message.get("body", b""))
            taken += more
            self.held += more
            self._refuse(taken)
            return message

        try:
            self._refuse_host(headers.get("host", ""))
            self._refuse(_length(headers.get("content-length", "0")))
            await self.app(scope, receiving, sending)
        except Refused as refused:
            await reply(refused, sending)
        except Gone:
            return
        finally:
            self.held -= taken

    def _refuse_host(self, host: str) -> None:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if self.hosts is not None and name.strip("[]").lower() not in self.hosts:
            known = ", ".join(sorted(self.hosts))
            raise Refused(421, f'This service answers to {known} only, not to "{name:.80}".')

    def _refuse(self, length: int) -> None:
        if length > self.limits.body:
            raise Refused(413, f"The body has more than {self.limits.body:,} bytes, which is the limit.")
        if self.held > self.limits.held:
            raise Refused(503, "Too many large requests are under way. Try again.", retry_after=SOON)


async def reply(refused: Refused, send: Send) -> None:
    """Say why, as JSON."""
    body = json.dumps({"error": refused.message}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    if refused.retry_after is not None:
        headers["retry-after"] = str(refused.retry_after)
    start = {"type": "http.response.start", "status": refused.status, "headers": _encoded(headers.items())}
    await send(start)
    await send({"type": "http.response.body", "body": body})


def _encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _length(told: str) -> int:
    return int(told) if told.isdecimal() else 0
