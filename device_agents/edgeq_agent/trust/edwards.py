"""Points of the twisted Edwards curve of Ed25519 (RFC 8032): encode, decode, add, multiply.

The inputs are public, so the code need not run in constant time.
"""

from __future__ import annotations

from functools import lru_cache
from typing import List, Tuple

_P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_D2 = 2 * _D % _P
_ROOT = pow(2, (_P - 1) // 4, _P)  # a square root of -1

# Extended coordinates of RFC 8032 section 5.1.4: x = X/Z, y = Y/Z, x*y = T/Z.
Point = Tuple[int, int, int, int]
# The second operand of an addition, prepared: Y-X, Y+X, 2dT, 2Z.
Cached = Tuple[int, int, int, int]

_NEUTRAL: Point = (0, 1, 1, 0)
_WIDTH = 5


def decode(data: bytes) -> Point | None:
    """Return the point of 32 bytes; None unless they are the canonical encoding of a point."""
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


def encode(point: Point) -> bytes:
    """Return the canonical 32 bytes of a point."""
    inverse = pow(point[2], _P - 2, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | ((x & 1) << 255)).to_bytes(32, "little")


def is_neutral(point: Point) -> bool:
    """Return whether a point is the neutral element."""
    return point[0] % _P == 0 and (point[1] - point[2]) % _P == 0


def negative(point: Point) -> Point:
    """Return the point whose sum with the given one is neutral."""
    x, y, z, t = point
    return -x % _P, y, z, -t % _P


def double(point: Point) -> Point:
    """Return twice a point."""
    x, y, z, _ = point
    a, b = x * x % _P, y * y % _P
    h = a + b
    e = h - (x + y) * (x + y)
    g = a - b
    f = 2 * z * z + g
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def cached(point: Point) -> Cached:
    """Prepare a point as the second operand of `add`."""
    x, y, z, t = point
    return y - x, y + x, t * _D2 % _P, 2 * z


def add(point: Point, other: Cached) -> Point:
    """Return the sum of two points."""
    x, y, z, t = point
    a = (y - x) * other[0] % _P
    b = (y + x) * other[1] % _P
    c = t * other[2] % _P
    d = z * other[3] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def times_8(point: Point) -> Point:
    """Return eight times a point: neutral for a point of small order."""
    return double(double(double(point)))


def _odd_multiples(point: Point) -> List[Cached]:
    """Return 1, 3, 5, ... times the point, prepared for `add`."""
    twice = cached(double(point))
    multiples = [point]
    for _ in range((1 << (_WIDTH - 2)) - 1):
        multiples.append(add(multiples[-1], twice))
    return [cached(multiple) for multiple in multiples]


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
def _base_multiples() -> List[Cached]:
    y = 4 * pow(5, _P - 2, _P) % _P
    base = decode(y.to_bytes(32, "little"))
    assert base is not None  # noqa: S101 - the base point of the standard
    return _odd_multiples(base)


def sum_of_products(s: int, k: int, point: Point) -> Point:
    """Return s*B + k*point, where B is the base point; both share one chain of doublings."""
    pairs = [(_digits(s), _base_multiples()), (_digits(k), _odd_multiples(point))]
    total = _NEUTRAL
    for position in reversed(range(max(len(digits) for digits, _ in pairs))):
        total = double(total)
        for digits, multiples in pairs:
            digit = digits[position] if position < len(digits) else 0
            if digit > 0:
                total = add(total, multiples[digit >> 1])
            elif digit < 0:
                below, above, t2d, z2 = multiples[-digit >> 1]
                total = add(total, (above, below, -t2d, z2))
    return total
