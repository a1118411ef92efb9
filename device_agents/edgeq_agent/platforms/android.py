"""Android phones and tablets: the agent runs in Termux, an app with its own programs and boot script."""

from __future__ import annotations

import os
import sys

from edgeq_agent.platforms.base import PLAIN, TERMUX_BOOT, Libc
from edgeq_agent.platforms.linux import Linux

# An app may not be allowed to see build.prop; every app is started from one of these programs.
_SYSTEM_FILES = ("build.prop", "bin/app_process", "bin/app_process64", "bin/app_process32")


class Android(Linux):
    """A device that runs Android."""

    @staticmethod
    def matches(root: str) -> bool:
        return _in_termux() or any(
            os.path.exists(os.path.join(root, "system", name)) for name in _SYSTEM_FILES
        )

    def libc(self) -> Libc:
        generic = super().libc()  # a glibc distribution may run on Android, below its own root
        return Libc("bionic") if generic.version is None else generic

    def library_folders(self) -> tuple[str, ...]:
        prefix = self.app_prefix()
        own = (os.path.join(prefix.lstrip("/"), "lib"),) if prefix else ()
        return (*own, *super().library_folders(), "system/lib64", "system/lib", "vendor/lib64", "vendor/lib")

    def autostart_kinds(self) -> tuple[str, ...]:
        return (TERMUX_BOOT, PLAIN)

    def app_prefix(self) -> str | None:
        prefix = os.environ.get("PREFIX") or sys.prefix
        return prefix if os.access(os.path.join(prefix, "bin", "sh"), os.X_OK) else None


def _in_termux() -> bool:
    return "com.termux" in sys.prefix
