"""A client's SSH session that asks to log in without waiting until it may ask: one round trip less."""

from __future__ import annotations

import threading

import paramiko
from paramiko.auth_handler import AuthHandler


class Session(paramiko.Transport):
    """paramiko's client; a login by key is asked for right behind the service `ssh-userauth`.

    The server's key is proved by then, so nothing more may be learned from the answer: RFC 4253, section 10,
    has a client wait only where the server is authenticated by the service's answer itself.
    """

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
    _asked = False

    def _request_auth(self) -> None:
        super()._request_auth()  # type: ignore[misc] # not in the stubs
        accepted = paramiko.Message()
        accepted.add_string("ssh-userauth")
        accepted.rewind()
        self._parse_service_accept(accepted)

    def _parse_service_accept(self, message: paramiko.Message) -> None:
        # Once before the server's word, and not again after it. A refusal would end the connection instead.
        if not self._asked:
            self._asked = True
            super()._parse_service_accept(message)  # type: ignore[misc]
