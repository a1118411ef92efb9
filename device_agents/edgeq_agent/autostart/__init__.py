"""Starting the agent when the device starts: by systemd, by Termux:Boot, by cron, or by nobody."""

from __future__ import annotations
