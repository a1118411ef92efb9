"""Read the members of a bundle's zip: stored and deflated ones, with one way to read them.

Python's `zipfile` reads around damage: it skips bytes that belong to no member, follows a local header that
contradicts the directory, and fails with errors of a dozen kinds. The writer of a bundle is known, so this
reader is strict instead: the members lie one after another from the first byte to the directory, the
directory ends with the file, and the two headers of a member agree.
"""

from __future__ import annotations

import re
import stat
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeq.errors import BundleAltered, BundleError

STORED, DEFLATED = 0, 8
MOST_MEMBERS = 1024

_LOCAL, _LOCAL_SIGNATURE = struct.Struct("<4sHHHHHIIIHH"), b"PK\x03\x04"
_ENTRY, _ENTRY_SIGNATURE = struct.Struct("<4sHHHHHHIIIHHHHHII"), b"PK\x01\x02"
_END, _END_SIGNATURE = struct.Struct("<4sHHHHIIH"), b"PK\x05\x06"
_DESCRIPTOR, _DESCRIPTOR_SIGNATURE = struct.Struct("<III"), b"PK\x07\x08"
# Flags: bits 1 and 2 are the effort of the packer; bit 3 puts sizes after the data; bit 11 says UTF-8.
_PACKER_FLAGS, _DESCRIPTOR_FLAG, _UTF8_FLAG = 0b110, 0b1000, 0x800
_ALLOWED_FLAGS = _PACKER_FLAGS | _DESCRIPTOR_FLAG | _UTF8_FLAG
# Extra fields that replace a size, an offset or a name.
_ZIP64, _UNICODE_PATH = 0x0001, 0x7075
_NAME = re.compile(rb"[ -~]{1,256}")
# A method by its number, for the message.
_METHODS = {6: "imploded", 9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstandard", 95: "xz", 98: "ppmd"}
_HINT = "create it again with `edgeq bundle`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member of a zip, as its directory and its own header agree on it.

    Attributes:
        offset, end: where its header begins, and where the next member begins.
        data_offset: where its packed bytes begin.
    """

    name: str
    method: int
    crc32: int
    packed_bytes: int
    size_bytes: int
    offset: int
    data_offset: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A member as the directory describes it."""

    raw_name: bytes
    flags: int
    method: int
    crc32: int
    packed_bytes: int
    size_bytes: int
    mode: int
    offset: int

    @property
    def shown(self) -> str:
        return ascii(self.raw_name[:80].decode("latin-1"))


def members(data: bytes, *, subject: str, largest_bytes: int) -> Mapping[str, Member]:
    """Return the members of a zip by name, in the order of their bytes; nothing is unpacked.

    Args:
        largest_bytes: the most that all members may unpack to.

    Raises:
        BundleError: it is not a zip, is damaged, or uses what bundles do not use.
        BundleAltered: a member is there twice, or is not a plain file.
    """
    entries, directory_offset = _directory(data, subject)
    total = sum(entry.size_bytes for entry in entries)
    if total > largest_bytes:
        raise BundleError(
            subject, expected=f"at most {largest_bytes} bytes unpacked", got=f"{total}", hint=_HINT
        )
    position = 0
    placed: dict[str, Member] = {}
    for entry in sorted(entries, key=lambda each: each.offset):
        if entry.offset != position:
            raise _damaged(subject, f"the member {entry.shown} overlaps another, or bytes lie before it")
        member = _member(data, entry, directory_offset, subject)
        if member.name in placed:
            raise BundleAltered(subject, f"contains {member.name!r} twice", hint=_HINT)
        placed[member.name] = member
        position = member.end
    if position != directory_offset:
        raise _damaged(subject, "bytes between its members and its directory")
    return placed


def unpack(data: bytes, member: Member, *, subject: str) -> bytes:
    """Return the bytes of one member; no more is unpacked than it states.

    Raises:
        BundleError: it is damaged, or holds another number of bytes than it states.
    """
    packed = data[member.data_offset : member.data_offset + member.packed_bytes]
    content = packed if member.method == STORED else _inflated(packed, member, subject)
    if len(content) != member.size_bytes:
        raise _damaged(subject, f"the member {member.name!r} holds another number of bytes than it states")
    if zlib.crc32(content) != member.crc32:
        raise _damaged(subject, f"the checksum of the member {member.name!r} does not match")
    return content


def _damaged(subject: str, problem: str) -> BundleError:
    what = "expected a bundle (.eqb), got another or a damaged file"
    return BundleError(subject, f"{what}: {problem}", hint=_HINT)


def _directory(data: bytes, subject: str) -> tuple[Sequence[_Entry], int]:
    """Return the directory's entries and where the directory begins."""
    end = len(data) - _END.size
    if end < 0 or data[end : end + 4] != _END_SIGNATURE:
        raise _damaged(subject, "the file does not end with a zip's directory")
    _, disk, first_disk, here, count, size, offset, comment = _END.unpack_from(data, end)
    if disk or first_disk or here != count or comment:
        raise _damaged(subject, "its directory has several parts or a comment")
    if count > MOST_MEMBERS:
        raise _damaged(subject, f"{count} members; a bundle has at most {MOST_MEMBERS}")
    if offset + size != end:
        raise _damaged(subject, "its directory is not where the file says, or is a zip64")
    entries = []
    position = offset
    for _ in range(count):
        entry, position = _entry(data, position, end, subject)
        entries.append(entry)
    if position != end:
        raise _damaged(subject, "its directory has another length than it states")
    return entries, offset


def _entry(data: bytes, position: int, end: int, subject: str) -> tuple[_Entry, int]:
    if position + _ENTRY.size > end or data[position : position + 4] != _ENTRY_SIGNATURE:
        raise _damaged(subject, "its directory is cut off")
    (
        _, _, _, flags, method, _, _, crc32, packed, size, name_size, extra_size, comment_size, disk, _,
        attributes, offset,
    ) = _ENTRY.unpack_from(data, position)  # fmt: skip
    position += _ENTRY.size
    after = position + name_size + extra_size + comment_size
    if after > end:
        raise _damaged(subject, "its directory is cut off")
    entry = _Entry(
        raw_name=data[position : position + name_size],
        flags=flags,
        method=method,
        crc32=crc32,
        packed_bytes=packed,
        size_bytes=size,
        mode=attributes >> 16,
        offset=offset,
    )
    _check(entry, subject)
    _check_extra(data[position + name_size : position + name_size + extra_size], entry, subject)
    if disk:
        raise _damaged(subject, f"the member {entry.shown} is in another part")
    return entry, after


def _check(entry: _Entry, subject: str) -> None:
    if not _NAME.fullmatch(entry.raw_name):
        raise _damaged(subject, f"the name {entry.shown} of a member")
    if entry.flags & ~_ALLOWED_FLAGS:
        raise _damaged(subject, f"the member {entry.shown} is encrypted, or has unknown flags")
    if entry.method not in (STORED, DEFLATED):
        method = _METHODS.get(entry.method, f"packed by method {entry.method}")
        raise _damaged(subject, f"the member {entry.shown} is {method}; a bundle's are stored or deflated")
    if entry.method == STORED and entry.packed_bytes != entry.size_bytes:
        raise _damaged(subject, f"the member {entry.shown} is stored, but states two sizes")
    kind = stat.S_IFMT(entry.mode)
    if kind == stat.S_IFLNK:
        raise BundleAltered(subject, f"its member {entry.shown} is a link", hint=_HINT)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):  # a folder is refused by its name
        raise BundleAltered(subject, f"its member {entry.shown} is a device or a pipe", hint=_HINT)


def _check_extra(extra: bytes, entry: _Entry, subject: str) -> None:
    position = 0
    while position < len(extra):
        if position + 4 > len(extra):
            raise _damaged(subject, f"an extra field of the member {entry.shown} is cut off")
        kind, size = struct.unpack_from("<HH", extra, position)
        if kind in (_ZIP64, _UNICODE_PATH):
            what = "a zip64" if kind == _ZIP64 else "named twice"
            raise _damaged(subject, f"the member {entry.shown} is {what}")
        position += 4 + size
    if position != len(extra):
        raise _damaged(subject, f"an extra field of the member {entry.shown} is cut off")


def _member(data: bytes, entry: _Entry, limit: int, subject: str) -> Member:
    """Return a member whose own header agrees with the directory."""
    at = entry.offset
    if at + _LOCAL.size > limit or data[at : at + 4] != _LOCAL_SIGNATURE:
        raise _damaged(subject, f"the member {entry.shown} is not where the directory says")
    (_, _, flags, method, _, _, crc32, packed, size, name_size, extra_size) = _LOCAL.unpack_from(data, at)
    name_at = at + _LOCAL.size
    data_at = name_at + name_size + extra_size
    end = data_at + entry.packed_bytes
    stated = (entry.crc32, entry.packed_bytes, entry.size_bytes)
    later = flags & _DESCRIPTOR_FLAG and (crc32, packed, size) == (0, 0, 0)
    same = (flags, method, data[name_at : name_at + name_size]) == (entry.flags, entry.method, entry.raw_name)
    if end > limit or not same or not (later or (crc32, packed, size) == stated):
        raise _damaged(subject, f"the member {entry.shown} contradicts the directory")
    _check_extra(data[name_at + name_size : data_at], entry, subject)
    if flags & _DESCRIPTOR_FLAG:
        end = _after_descriptor(data, end, limit, stated, entry.shown, subject)
    return Member(
        name=entry.raw_name.decode("ascii"),
        method=method,
        crc32=entry.crc32,
        packed_bytes=entry.packed_bytes,
        size_bytes=entry.size_bytes,
        offset=at,
        data_offset=data_at,
        end=end,
    )


def _after_descriptor(
    data: bytes, at: int, limit: int, stated: tuple[int, int, int], shown: str, subject: str
) -> int:
    """Return where the sizes after a member's data end; their signature is optional."""
    if data[at : at + 4] == _DESCRIPTOR_SIGNATURE:
        at += 4
    end = at + _DESCRIPTOR.size
    if end > limit or _DESCRIPTOR.unpack_from(data, at) != stated:
        raise _damaged(subject, f"the member {shown} contradicts the directory")
    return end


def _inflated(packed: bytes, member: Member, subject: str) -> bytes:
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        # One byte more than stated shows a member that holds more; 0 would mean no limit.
        content = inflate.decompress(packed, member.size_bytes + 1)
    except zlib.error as error:
        raise _damaged(subject, f"the member {member.name!r} cannot be unpacked") from error
    if not inflate.eof or inflate.unused_data or inflate.unconsumed_tail:
        raise _damaged(subject, f"the member {member.name!r} holds another number of bytes than it states")
    return content
