"""Refuses requests that no page of this server and no script of its user sends, and adds headers to answers."""

import hashlib
import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
API = "/api/"


class Guard:
    """Wraps an ASGI application.

    A request is refused if its Host is a name that was not given, since a foreign page may have had its own name
    resolved to this machine (DNS rebinding); if a browser says that another site's page sends it; and, for the API, if
    it lacks the token.

    Args:
      app: the application.
      token: the token, or "" if none is needed.
      hosts: names besides localhost and IP addresses by which the server may be called.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], token: str, hosts: Collection[str]):
        self.app, self.hosts = app, {"localhost", *(host.lower() for host in hosts)}
        self._digest = _digest(token.encode()) if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *own]}
            await send(message)

        headers = {name.decode("latin-1").lower(): value for name, value in scope["headers"]}
        refusal = self._refusal(scope["path"], {name: value.decode("latin-1") for name, value in headers.items()})
        if refusal is None:
            await self.app(scope, receive, with_headers)
            return
        status, said = refusal
        body = json.dumps({"detail": said}).encode()
        start = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        start += [(b"www-authenticate", b"Bearer")] if status == 401 else []
        await with_headers({"type": "http.response.start", "status": status, "headers": start})
        await with_headers({"type": "http.response.body", "body": body})

    def _refusal(self, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """Returns why a request is refused, a status and a sentence, or None."""
        host = headers.get("host", "")
        if not self._known(host):
            return 421, "The server is not called by this name; use its IP address, or start it with --hostname."
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, "The request comes from a page of another site, which this server refuses."
        if not path.startswith(API):
            return None
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return 403, "The request comes from a page of another site, which this server refuses."
        if self._digest is None:
            return None
        kind, _, given = headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(_digest(given.strip().encode("latin-1")), self._digest)
        if kind.lower() == "bearer" and right:
            return None
        return 401, "The server needs its token: send the header 'Authorization: Bearer TOKEN'."

    def _known(self, host: str) -> bool:
        """Tells whether a Host header names the server by its address or a name that it was given."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name.lower() in self.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _digest(secret: bytes) -> bytes:
    """Returns a hash, so that comparing says nothing about the length of a token either."""
    return hashlib.sha256(secret).digest()
