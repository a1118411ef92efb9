"""Inference in a process of its own: the process, the jobs that it runs, and the loaded model."""

from __future__ import annotations
