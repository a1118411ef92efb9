"""A wheel that passes for a TFLite runtime, so that building one needs no network."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from types import MappingProxyType

# A stand-in for TFLite, built as a wheel here so that the tests need no network.
FAKE = {
    "numpy/__init__.py": "__version__ = '0.fake'\nfloat32 = None\ndef array(values, dtype): return values\n",
    "tflite_runtime/__init__.py": "__version__ = '9.9'\n",
    "tflite_runtime/interpreter.py": """
class Interpreter:
    def __init__(self, model_content, num_threads): assert model_content[4:8] == b"TFL3"
    def allocate_tensors(self): pass
    def get_input_details(self): return [{"index": 0}]
    get_output_details = get_input_details
    def set_tensor(self, index, value): self.value = value
    def invoke(self): self.value = [[FACTOR * item for item in self.value[0]]]
    def get_tensor(self, index):
        value = self.value
        return type("Array", (), {"tolist": lambda self: [[float(item) for item in value[0]]]})()
""",
}


def wheel_of(members: dict[str, str]) -> bytes:
    """Return a wheel of these files."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return stream.getvalue()


def fake_wheel(factor: int = 2, extra: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """Return the wheel; a `factor` other than 2 makes its answers wrong."""
    text = FAKE["tflite_runtime/interpreter.py"].replace("FACTOR", str(factor))
    return wheel_of({**FAKE, "tflite_runtime/interpreter.py": text, **extra})
