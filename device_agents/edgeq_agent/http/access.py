"""Decide from a request's head whether its sender may use the server: no foreign page, and with the token.

A page that is open in a browser on this machine can send requests to loopback. It cannot set every header:
the browser adds `Origin` and `Sec-Fetch-Site`, asks first before it sends a body of a type that forms lack,
and puts into `Host` the name by which the page calls the server.
"""

from __future__ import annotations

import hmac
import re
from typing import NamedTuple

from edgeq_agent.http.body import HEADER_LENGTH
from edgeq_agent.http.errors import Refused
from edgeq_agent.http.head import Head

LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")
HEALTH = ("/v2/health/live", "/v2/health/ready")
BODY_TYPES = ("application/json", "application/octet-stream")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]/?#@\s]*)(:[0-9]{1,5})?")


class Access(NamedTuple):
    """Who may send requests.

    Attributes:
        tcp: whether the server listens on a port, where browsers reach it.
        origins: web origins that may use it, such as a page behind a proxy: `https://panel.example`.
        token: what every request but those on health must present as a bearer token; None for none.
    """

    tcp: bool = True
    origins: tuple[str, ...] = ()
    token: str | None = None

    def check(self, head: Head) -> None:
        """Check a request before its body is read.

        Raises:
            Refused: 401 without the token, 403 from a web page.
        """
        self._check_host(head)
        self._check_page(head)
        self._check_token(head)

    def _check_host(self, head: Head) -> None:
        """Refuse DNS rebinding: a browser's request for a foreign name that resolves to this machine."""
        host = head.headers.get("host", "")
        match = _HOST.fullmatch(host)
        name = match.group(1).lower() if match else ""
        if self.tcp and name not in LOCAL_NAMES:
            expected = ", ".join(LOCAL_NAMES)
            raise Refused(403, f"Host {host[:100]!a}: expected one of {expected}", close=True)

    def _check_page(self, head: Head) -> None:
        """Refuse what a browser sends for a page of another origin."""
        origin = head.headers.get("origin")
        if origin in self.origins:
            return
        if origin is not None and origin.lower() != "http://" + head.headers.get("host", "").lower():
            raise Refused(403, f"Origin {origin[:100]!a}: web pages may not use this server", close=True)
        site = head.headers.get("sec-fetch-site", "none").lower()
        if site not in ("none", "same-origin"):
            raise Refused(403, f"Sec-Fetch-Site {site[:40]!a}: web pages may not use this server", close=True)

    def _check_token(self, head: Head) -> None:
        if self.token is None or head.path in HEALTH:
            return
        scheme, _, presented = head.headers.get("authorization", "").partition(" ")
        # Compared in a time that does not depend on where they differ.
        same = hmac.compare_digest(presented.strip().encode("latin-1"), self.token.encode("ascii"))
        if scheme.lower() != "bearer" or not same:
            raise Refused(401, "Authorization: expected the server's bearer token", close=True)


def check_type(head: Head) -> None:
    """Check that a body has a type that no form of a web page has.

    Raises:
        Refused: 415, it has another type, or does not say.
    """
    stated = head.headers.get("content-type")
    # A page can neither set this header nor leave the content type of a form out without asking first.
    if not head.length or (stated is None and HEADER_LENGTH.lower() in head.headers):
        return
    kind = (stated or "").partition(";")[0].strip().lower()
    if kind not in BODY_TYPES:
        got = "none" if stated is None else ascii(stated[:60])
        raise Refused(415, f"Content-Type: expected {' or '.join(BODY_TYPES)}, got {got}", close=True)
