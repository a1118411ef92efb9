"""Makes tiny PyTorch models with the packages of the extra; run as a program."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


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
    {"torch": torch_model}[sys.argv[1]](Path(sys.argv[2]))
