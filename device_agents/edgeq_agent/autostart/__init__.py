"""Autostart: what starts the agent with the device (systemd, Termux:Boot or cron) and serves models."""

from __future__ import annotations
