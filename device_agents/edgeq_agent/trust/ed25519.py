"""Verify Ed25519 signatures (RFC 8032) with integers and SHA-512 alone, so that any Python 3.7 can do it.

The inputs are public, so the code need not run in constant time.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import List, Tuple

KEY_BYTES = 32
SIGNATURE_BYTES = 64

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_D2 = 2 * _D % _P
_ROOT = pow(2, (_P - 1) // 4, _P)  # a square root of -1

# Extended coordinates of RFC 8032 section 5.1.4: x = X/Z, y = Y/Z, x*y = T/Z.
_Point = Tuple[int, int, int, int]
# The second operand of an addition, prepared: Y-X, Y+X, 2dT, 2Z.
_Cached = Tuple[int, int, int, int]

_NEUTRAL: _Point = (0, 1, 1, 0)
_WIDTH = 5


def verify(key: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether `signature` is the key's signature of `message`, by the strict reading of RFC 8032.

    Also refused are a signature that is not 64 bytes long, an S that is not below the group's order (a second
    encoding of the same signature), a key or an R that is not a canonical point, and a key of small order,
    under which one signature matches many messages.
    """
    if len(key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    point = _decode(key)
    scalar = int.from_bytes(signature[32:], "little")
    if point is None or scalar >= _L or _is_neutral(_times_8(point)):
        return False
    digest = hashlib.sha512(signature[:32] + key + message).digest()
    challenge = int.from_bytes(digest, "little") % _L
    # R = S*B - k*A, compared as bytes: an R in another encoding than the canonical one differs.
    return _encode(_sum_of_products(scalar, challenge, _negative(point))) == signature[:32]


def key_problem(key: bytes) -> str | None:
    """Return why a public key must not be trusted; None for a point of the full prime order."""
    if len(key) != KEY_BYTES:
        return f"{len(key)} bytes instead of {KEY_BYTES}"
    point = _decode(key)
    if point is None:
        return "not a point of the curve"
    if _is_neutral(_times_8(point)):
        return "a point of small order: one signature would match many messages"
    if not _is_neutral(_sum_of_products(0, _L, point)):
        return "a point outside the group of prime order"
    return None


def _decode(data: bytes) -> _Point | None:
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & ((1 << 255) - 1)
    if y >= _P:
        return None
    # x*x = (y*y - 1) / (d*y*y + 1) = u / v; see RFC 8032 section 5.1.3.
    u, v = (y * y - 1) % _P, (_D * y * y + 1) % _P
    x = u * pow(v, 3, _P) * pow(u * pow(v, 7, _P), (_P - 5) // 8, _P) % _P
    if v * x * x % _P != u:
        x = x * _ROOT % _P
        if v * x * x % _P != u:
            return None
    if x == 0 and sign:
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def _encode(point: _Point) -> bytes:
    inverse = pow(point[2], _P - 2, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | ((x & 1) << 255)).to_bytes(32, "little")


def _is_neutral(point: _Point) -> bool:
    return point[0] % _P == 0 and (point[1] - point[2]) % _P == 0


def _negative(point: _Point) -> _Point:
    x, y, z, t = point
    return -x % _P, y, z, -t % _P


def _double(point: _Point) -> _Point:
    x, y, z, _ = point
    a, b = x * x % _P, y * y % _P
    h = a + b
    e = h - (x + y) * (x + y)
    g = a - b
    f = 2 * z * z + g
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _cached(point: _Point) -> _Cached:
    x, y, z, t = point
    return y - x, y + x, t * _D2 % _P, 2 * z


def _add(point: _Point, other: _Cached) -> _Point:
    x, y, z, t = point
    a = (y - x) * other[0] % _P
    b = (y + x) * other[1] % _P
    c = t * other[2] % _P
    d = z * other[3] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times_8(point: _Point) -> _Point:
    return _double(_double(_double(point)))


def _odd_multiples(point: _Point) -> List[_Cached]:
    """Return 1, 3, 5, ... times the point, prepared for `_add`."""
    twice = _cached(_double(point))
    multiples = [point]
    for _ in range((1 << (_WIDTH - 2)) - 1):
        multiples.append(_add(multiples[-1], twice))
    return [_cached(multiple) for multiple in multiples]


def _digits(scalar: int) -> List[int]:
    """Return the scalar's width-w NAF, lowest digit first: every digit is odd or 0, and most are 0."""
    digits = []
    full = 1 << _WIDTH
    while scalar:
        digit = 0
        if scalar & 1:
            digit = scalar & (full - 1)
            if digit >= full >> 1:
                digit -= full
            scalar -= digit
        digits.append(digit)
        scalar >>= 1
    return digits


@lru_cache(maxsize=None)  # computed once, and only in a process that verifies
def _base_multiples() -> List[_Cached]:
    y = 4 * pow(5, _P - 2, _P) % _P
    base = _decode(y.to_bytes(32, "little"))
    assert base is not None  # noqa: S101 - the base point of the standard
    return _odd_multiples(base)


def _sum_of_products(s: int, k: int, point: _Point) -> _Point:
    """Return s*B + k*point, where B is the base point; both share one chain of doublings."""
    pairs = [(_digits(s), _base_multiples()), (_digits(k), _odd_multiples(point))]
    total = _NEUTRAL
    for position in reversed(range(max(len(digits) for digits, _ in pairs))):
        total = _double(total)
        for digits, multiples in pairs:
            digit = digits[position] if position < len(digits) else 0
            if digit > 0:
                total = _add(total, multiples[digit >> 1])
            elif digit < 0:
                below, above, t2d, z2 = multiples[-digit >> 1]
                total = _add(total, (above, below, -t2d, z2))
    return total
