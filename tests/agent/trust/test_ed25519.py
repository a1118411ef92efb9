"""Ed25519 against the standard's vectors, and against another implementation on hostile input."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq_agent.trust import ed25519, edwards

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493

# RFC 8032, section 7.1: secret key, public key, message, signature.
RFC_8032 = {
    "test-1": (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    "test-2": (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "test-3": (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
        "4a7c15e9716ed28dc027beceea1ec40a",
    ),
    "test-sha-abc": (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        hashlib.sha512(b"abc").hexdigest(),
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e030"
        "3dca179c138ac17ad9bef1177331a704",
    ),
}

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
MESSAGE = b"a release"
SIGNATURE = KEY.sign(MESSAGE)
# The eight points of small order, in their canonical spelling where they have one.
SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]
NOT_CANONICAL = [
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # y = p + 1: 1 spelled otherwise
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # y = p
    "0100000000000000000000000000000000000000000000000000000000000080",  # x = 0 with the sign set
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "ff" * 32,
]


def peer(public: bytes, message: bytes, signature: bytes) -> bool:
    """Say what the `cryptography` package says."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def scalar(number: int) -> bytes:
    return number.to_bytes(32, "little")


@pytest.mark.parametrize("name", RFC_8032)
def test_vectors_of_rfc_8032(name: str) -> None:
    secret, public, message, signature = (bytes.fromhex(part) for part in RFC_8032[name])
    signer = Ed25519PrivateKey.from_private_bytes(secret)
    assert (signer.public_key().public_bytes_raw(), signer.sign(message)) == (public, signature)
    assert ed25519.verify(public, message, signature)
    assert not ed25519.verify(public, message + b"\0", signature)
    assert ed25519.key_problem(public) is None


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300), st.integers(0, 511), st.data())
def test_signatures_of_cryptography_verify_and_any_flipped_bit_fails(
    secret: bytes, message: bytes, bit: int, data: st.DataObject
) -> None:
    key = Ed25519PrivateKey.from_private_bytes(secret)
    public, signature = key.public_key().public_bytes_raw(), key.sign(message)
    assert ed25519.verify(public, message, signature)
    assert ed25519.key_problem(public) is None

    def flipped(text: bytes, at: int) -> bytes:
        changed = bytearray(text)
        changed[at // 8] ^= 1 << at % 8
        return bytes(changed)

    assert not ed25519.verify(public, message, flipped(signature, bit))
    assert not ed25519.verify(flipped(public, bit % 256), message, signature)
    if message:
        at = data.draw(st.integers(0, 8 * len(message) - 1))
        assert not ed25519.verify(public, flipped(message, at), signature)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([PUBLIC, *map(bytes.fromhex, SMALL_ORDER + NOT_CANONICAL)])
    | st.binary(min_size=32, max_size=32),
    st.sampled_from([SIGNATURE[:32], *map(bytes.fromhex, SMALL_ORDER + NOT_CANONICAL)]),
    st.sampled_from([SIGNATURE[32:], scalar(0), scalar(1), scalar(L - 1), scalar(L), scalar(L + 1)])
    | st.binary(min_size=32, max_size=32),
    st.sampled_from([MESSAGE, b"", b"other"]),
)
def test_hostile_input_that_cryptography_refuses_is_refused(
    public: bytes, r: bytes, s: bytes, message: bytes
) -> None:
    mine, theirs = ed25519.verify(public, message, r + s), peer(public, message, r + s)
    if public.hex() in SMALL_ORDER + NOT_CANONICAL:
        assert not mine, "the strict reading refuses such a key, whatever the peer says"
    else:
        assert mine == theirs


@pytest.mark.parametrize("public", SMALL_ORDER)
def test_a_key_of_small_order_signs_nothing(public: str) -> None:
    """Where k*A is neutral, S = 0 and R = neutral satisfy the equation for any message."""
    neutral = bytes.fromhex(SMALL_ORDER[0])
    for message in (b"one", b"two", b"three", b"four", b"five", b"six", b"seven", b"eight"):
        assert not ed25519.verify(bytes.fromhex(public), message, neutral + scalar(0))
    assert "small order" in str(ed25519.key_problem(bytes.fromhex(public)))


def test_only_the_small_order_rule_refuses_the_neutral_key() -> None:
    """The equation itself holds for it with every message: S*B - k*A is R, all three being neutral."""
    neutral = bytes.fromhex(SMALL_ORDER[0])
    point = edwards.decode(neutral)
    assert point is not None
    for challenge in (1, 2, L - 1):
        assert edwards.encode(edwards.sum_of_products(0, challenge, point)) == neutral
    assert not ed25519.verify(neutral, b"anything at all", neutral + scalar(0))


@pytest.mark.parametrize("public", NOT_CANONICAL)
def test_a_key_in_a_noncanonical_encoding_is_refused(public: str) -> None:
    assert ed25519.key_problem(bytes.fromhex(public)) == "not a point of the curve"


@pytest.mark.parametrize("times", [1, 2, 7, 15])
def test_a_signature_in_a_second_encoding_is_refused(times: int) -> None:
    """S + n*L satisfies the equation as well; below 2**256 there is room for fifteen of them."""
    s = int.from_bytes(SIGNATURE[32:], "little") + times * L
    assert s < 2**256
    assert not ed25519.verify(PUBLIC, MESSAGE, SIGNATURE[:32] + scalar(s))


def test_s_at_the_group_order() -> None:
    for s in (L - 1, L, L + 1, 2**255, 2**256 - 1):
        signature = SIGNATURE[:32] + scalar(s)
        assert ed25519.verify(PUBLIC, MESSAGE, signature) is peer(PUBLIC, MESSAGE, signature) is False


def test_r_in_a_noncanonical_encoding_is_refused() -> None:
    """R = neutral spelled as y = p + 1, under a signature that is right for it by construction."""
    seed = hashlib.sha512(bytes(range(32))).digest()
    secret = int.from_bytes(bytes([seed[0] & 248]) + seed[1:31] + bytes([seed[31] & 127 | 64]), "little")
    for spelling, holds in ((SMALL_ORDER[0], True), (NOT_CANONICAL[0], False)):
        r = bytes.fromhex(spelling)
        challenge = int.from_bytes(hashlib.sha512(r + PUBLIC + MESSAGE).digest(), "little") % L
        signature = r + scalar(challenge * secret % L)
        assert ed25519.verify(PUBLIC, MESSAGE, signature) is holds
        assert peer(PUBLIC, MESSAGE, signature) is holds


@pytest.mark.parametrize("length", [0, 1, 32, 63, 65, 128])
def test_a_signature_of_a_wrong_length_is_refused(length: int) -> None:
    assert not ed25519.verify(PUBLIC, MESSAGE, (SIGNATURE * 2)[:length])


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_a_wrong_length_is_refused(length: int) -> None:
    key = (PUBLIC * 2)[:length]
    assert not ed25519.verify(key, MESSAGE, SIGNATURE)
    assert "instead of 32" in str(ed25519.key_problem(key))


def test_a_key_with_a_small_order_component_is_not_trusted() -> None:
    """Such a key is a point, and not of the prime-order group: made by adding a point of order 8."""
    torsion = edwards.decode(bytes.fromhex(SMALL_ORDER[4]))
    honest = edwards.decode(PUBLIC)
    assert torsion is not None
    assert honest is not None
    mixed = edwards.encode(edwards.add(honest, edwards.cached(torsion)))
    assert edwards.decode(mixed) is not None
    assert ed25519.key_problem(mixed) == "a point outside the group of prime order"
    assert ed25519.key_problem(PUBLIC) is None
