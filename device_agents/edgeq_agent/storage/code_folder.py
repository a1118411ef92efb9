"""The folder or file that holds this agent's code, for the import path of the processes that it starts."""

from __future__ import annotations

import os

CODE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
