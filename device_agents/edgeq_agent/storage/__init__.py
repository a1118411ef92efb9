"""The device's disk: the home folder, atomic files, the lock, the journal and the clock."""

from __future__ import annotations
