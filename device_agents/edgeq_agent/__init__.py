"""What runs on the device: standard library, numpy and a TFLite runtime; Python 3.7 and later."""

from __future__ import annotations

__version__ = "0.1.0"
