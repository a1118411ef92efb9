"""Makes tiny ONNX and PyTorch models with the packages of the extras; run as a program."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def onnx_model(folder: Path) -> None:
    """Write an image classifier (channels first, open batch) and one whose image size is open."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    shapes = {"W": (8, 3, 3, 3), "b": (8,), "D": (8, 5), "d": (5,)}
    weights = [
        numpy_helper.from_array((random.normal(size=shape) * 0.3).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["image", "W", "b"], ["conv"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["conv"], ["features"]),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "D", "d"], ["logits"]),
    ]
    for name, sizes in {"classifier": ["N", 3, 16, 12], "open": ["N", 3, "height", "width"]}.items():
        inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, sizes)]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5])]
        if name == "classifier":  # a second output, a map that becomes channels last
            outputs.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 8, 8, 6]))
        graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, str(folder / f"{name}.onnx"))


def torch_model(folder: Path) -> None:
    """Write an exported program, one with an open size, and a checkpoint that is none."""
    import torch

    class Net(torch.nn.Module):  # type: ignore[misc]  # torch is not installed
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv = torch.nn.Conv2d(3, 8, 3, 2, 1)
            self.dense = torch.nn.Linear(8, 5)

        def forward(self, x: Any) -> Any:
            return self.dense(torch.relu(self.conv(x)).mean((2, 3)))

    net, sample = Net().eval(), (torch.randn(1, 3, 16, 12),)
    torch.export.save(torch.export.export(net, sample), str(folder / "classifier.pt2"))
    width = torch.export.Dim("width", min=4, max=64)
    opened = torch.export.export(net, sample, dynamic_shapes={"x": {3: width}})
    torch.export.save(opened, str(folder / "open.pt2"))
    torch.save(net.state_dict(), str(folder / "checkpoint.pt"))


if __name__ == "__main__":
    {"onnx": onnx_model, "torch": torch_model}[sys.argv[1]](Path(sys.argv[2]))
