"""An SSH client session that requests the login without waiting for the service: one round trip less."""

from __future__ import annotations

import threading
from typing import Any

import paramiko
from paramiko.auth_handler import AuthHandler


class Session(paramiko.Transport):
    """paramiko's client, which sends a login by key right after the request for the service `ssh-userauth`.

    The server's key is verified by then, so the reply adds nothing: RFC 4253, section 10, makes a client wait
    only if the service's reply itself authenticates the server.
    """

    offer: dict[str, Any] | None = None

    def _really_parse_kex_init(self, m: paramiko.Message, ignore_first_byte: bool = False) -> dict[str, Any]:
        # Kept, so that an error can say what the server offers.
        parsed: dict[str, Any] = super()._really_parse_kex_init(  # type: ignore[misc] # not in the stubs
            m, ignore_first_byte
        )
        if not ignore_first_byte:
            self.offer = parsed
        return parsed

    def auth_publickey(
        self, username: str, key: paramiko.PKey, event: threading.Event | None = None
    ) -> list[str]:
        """Log in with a key; see `paramiko.Transport.auth_publickey`."""
        if not self.is_active() or not self.initial_kex_done:
            raise paramiko.SSHException("No existing session")
        done = threading.Event() if event is None else event
        self.auth_handler = _Login(self)
        self.auth_handler.auth_publickey(username, key, done)
        return [] if event is not None else self.auth_handler.wait_for_response(done)


class _Login(AuthHandler):
    _requested = False

    def _request_auth(self) -> None:
        super()._request_auth()  # type: ignore[misc] # not in the stubs
        accepted = paramiko.Message()
        accepted.add_string("ssh-userauth")
        accepted.rewind()
        self._parse_service_accept(accepted)

    def _parse_service_accept(self, message: paramiko.Message) -> None:
        # Called once before the server's reply, and not again after it. A refusal would close the connection.
        if not self._requested:
            self._requested = True
            super()._parse_service_accept(message)  # type: ignore[misc]
