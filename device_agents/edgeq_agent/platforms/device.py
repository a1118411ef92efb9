"""Who this device is: an id made once, the id of this boot, and what kind of board it is."""

from __future__ import annotations

import os
import uuid

from edgeq_agent.storage import clock, disk, files, scratch
from edgeq_agent.storage.home import Home


def device_id(home: Home) -> str:
    """Return the id of this home; the first call makes it."""
    try:
        return _stored_id(home)
    except (FileNotFoundError, ValueError, KeyError):
        return _new_id(home)


def _stored_id(home: Home) -> str:
    return str(files.read_json(home.device)["device_id"])


def _new_id(home: Home) -> str:
    mine = scratch.path(home, "device.json")
    try:
        files.write_json(mine, {"schema": "edgeq.device/1", "device_id": uuid.uuid4().hex})
        _place(home, mine)
    finally:
        files.remove(mine)
    disk.sync_folder(home.root)
    return _stored_id(home)


def _place(home: Home, mine: str) -> None:
    try:
        # A link fails where a rename would overwrite: of two first calls only one gives the id.
        disk.link(mine, home.device)
    except FileExistsError:
        if not _readable(home):
            disk.replace(mine, home.device)
    except OSError:  # a file system without hard links (Android's sdcard)
        disk.replace(mine, home.device)


def _readable(home: Home) -> bool:
    try:
        return bool(_stored_id(home))
    except (ValueError, KeyError):
        return False


def boot_id(root: str = "/") -> str:
    """Return the kernel's id of this boot, or "unknown" where the system hides it."""
    return clock.boot_id_of(root)


def board_model(root: str = "/") -> str | None:
    """Return what the board calls itself ("Raspberry Pi 4 Model B Rev 1.4"), or None."""
    for name in ("sys/firmware/devicetree/base/model", "proc/device-tree/model"):
        text = read_text(os.path.join(root, name))
        if text:
            return text
    return None


def mendel_version(root: str = "/") -> str | None:
    """Return the release of the Coral boards' own Debian ("eagle", "5.2"), or None elsewhere."""
    return read_text(os.path.join(root, "etc/mendel_version")) or None


def kind(root: str = "/") -> str:
    """Return which of the inventory's kinds this device is: raspberry-pi, coral, android or linux."""
    model = board_model(root) or ""
    if "Raspberry Pi" in model:
        return "raspberry-pi"
    if "Coral" in model or "Phanbell" in model or mendel_version(root):
        return "coral"
    return "android" if _is_android(root) else "linux"


def _is_android(root: str) -> bool:
    # An app may not see build.prop; the program that every app is started from is there for all.
    names = ("build.prop", "bin/app_process", "bin/app_process64", "bin/app_process32")
    return any(os.path.exists(os.path.join(root, "system", name)) for name in names)


def read_text(path: str) -> str | None:
    """Return a small system file's text without the padding, or None when it cannot be read."""
    try:
        with open(path, "rb") as stream:
            return stream.read(65536).decode("utf-8", "replace").strip("\x00 \t\r\n")
    except OSError:
        return None
