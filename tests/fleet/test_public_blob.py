"""Any file given as a key is read as a public key or as nothing."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.fleet.ssh.agent_keys import public_blob

BEGIN, END = b"-----BEGIN OPENSSH PRIVATE KEY-----\n", b"\n-----END OPENSSH PRIVATE KEY-----\n"
BODIES = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=200).map(base64.b64encode),
    st.binary(max_size=200).map(lambda data: base64.b64encode(b"openssh-key-v1\0" + data)),
)


@given(
    head=st.sampled_from([b"", BEGIN, b"ssh-ed25519 ", "ssh-é ".encode()]),
    body=BODIES,
    tail=st.sampled_from([b"", END]),
)
def test_content_that_is_not_a_key_has_no_public_key(
    tmp_path_factory: pytest.TempPathFactory, head: bytes, body: bytes, tail: bytes
) -> None:
    path: Path = tmp_path_factory.getbasetemp() / "content-given-as-a-key"
    path.write_bytes(head + body + tail)
    blob = public_blob(path)
    assert blob is None or blob in base64.b64decode(body + b"===")


def test_the_public_key_of_a_line_is_its_blob(tmp_path: Path) -> None:
    blob = (11).to_bytes(4, "big") + b"ssh-ed25519" + bytes(36)
    path = tmp_path / "key.pub"
    path.write_text(f"ssh-ed25519 {base64.b64encode(blob).decode()} name\n")
    assert public_blob(path) == blob
