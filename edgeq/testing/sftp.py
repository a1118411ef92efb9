"""The loopback device's sftp: one folder, shown as the root, with nothing outside it."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

import paramiko
from paramiko import sftp


class HomeSftp(paramiko.SFTPServerInterface):
    """Serves the files of `home`; every path is resolved inside it."""

    def __init__(self, server: paramiko.ServerInterface, *args: Any, home: Path, **kwargs: Any) -> None:
        super().__init__(server, *args, **kwargs)
        self._home = home.resolve()

    def _real(self, path: str) -> Path:
        real = (self._home / PurePosixPath("/", path).relative_to("/")).resolve()
        if not real.is_relative_to(self._home):
            raise PermissionError(1, "outside the home folder")
        return real

    def list_folder(self, path: str) -> list[paramiko.SFTPAttributes] | int:
        """List a folder."""
        try:
            folder = self._real(path)
            return [
                paramiko.SFTPAttributes.from_stat(entry.stat(follow_symlinks=False), entry.name)
                for entry in os.scandir(folder)
            ]
        except OSError as error:
            return _status(error)

    def stat(self, path: str) -> paramiko.SFTPAttributes | int:
        """Describe a file."""
        try:
            return paramiko.SFTPAttributes.from_stat(self._real(path).stat())
        except OSError as error:
            return _status(error)

    def lstat(self, path: str) -> paramiko.SFTPAttributes | int:
        """Describe a file or a link."""
        return self.stat(path)

    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> paramiko.SFTPHandle | int:
        """Open a file."""
        try:
            descriptor = os.open(self._real(path), flags, 0o600)
        except OSError as error:
            return _status(error)
        handle = paramiko.SFTPHandle(flags)
        stream = os.fdopen(descriptor, "r+b" if flags & os.O_RDWR else "wb" if flags & os.O_WRONLY else "rb")
        handle.filename = path  # type: ignore[attr-defined]
        handle.readfile = stream  # type: ignore[attr-defined]
        handle.writefile = stream  # type: ignore[attr-defined]
        return handle

    def remove(self, path: str) -> int:
        """Remove a file."""
        return self._do(lambda: self._real(path).unlink())

    def rename(self, oldpath: str, newpath: str) -> int:
        """Rename a file; like OpenSSH's, not over another one."""
        try:
            if self._real(newpath).exists():
                return int(sftp.SFTP_FAILURE)
        except OSError as error:
            return _status(error)
        return self.posix_rename(oldpath, newpath)

    def posix_rename(self, oldpath: str, newpath: str) -> int:
        """Rename a file, over another one where there is one."""
        return self._do(lambda: os.replace(self._real(oldpath), self._real(newpath)))

    def mkdir(self, path: str, attr: paramiko.SFTPAttributes) -> int:
        """Make a folder."""
        return self._do(lambda: self._real(path).mkdir(mode=0o700))

    def rmdir(self, path: str) -> int:
        """Remove an empty folder."""
        return self._do(lambda: self._real(path).rmdir())

    def chattr(self, path: str, attr: paramiko.SFTPAttributes) -> int:
        """Change a file's mode."""
        return self._do(lambda: os.chmod(self._real(path), attr.st_mode or 0o600))

    def _do(self, action: Any) -> int:
        try:
            action()
        except OSError as error:
            return _status(error)
        return int(sftp.SFTP_OK)


def _status(error: OSError) -> int:
    return int(paramiko.SFTPServer.convert_errno(error.errno or 0))
