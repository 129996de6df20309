"""The usual script: features of a timm network through a DataLoader, then scikit-learn's logistic regression.

    python usual.py WEIGHTS FOLDER --cut K [--test FOLDER]

Prints one line of JSON: cross-validated score at that cut, and the accuracy on the test folder.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


class Folder(Dataset):
    def __init__(self, root: Path, transform: object) -> None:
        self.files = sorted(root.glob("*/*.jpg"))
        self.classes = sorted({file.parent.name for file in self.files})
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        file = self.files[index]
        with Image.open(file) as picture:
            return self.transform(picture.convert("RGB")), self.classes.index(file.parent.name)


def truncated(network: nn.Module, cut: int) -> nn.Module:
    """The first ``cut`` of stem, sixteen blocks and last convolution, then average pooling."""
    parts = [nn.Sequential(network.conv_stem, network.bn1)]
    parts += [block for stage in network.blocks for block in stage]
    parts.append(nn.Sequential(network.conv_head, network.bn2))
    return nn.Sequential(*parts[:cut], nn.AdaptiveAvgPool2d(1), nn.Flatten())


def features(network: nn.Module, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    transform = transforms.Compose(
        [
            transforms.Resize(256, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    loader = DataLoader(Folder(folder, transform), batch_size=32, num_workers=2)
    found, labels = [], []
    with torch.no_grad():
        for pictures, targets in loader:
            found.append(network(pictures).numpy())
            labels.append(targets.numpy())
    return np.concatenate(found), np.concatenate(labels)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("weights", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cut", type=int, required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--penalties", type=int, default=10)
    parser.add_argument("--test", type=Path)
    asked = parser.parse_args()
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    network.load_state_dict(torch.load(asked.weights, weights_only=True))
    part = truncated(network.eval(), asked.cut)
    x, y = features(part, asked.folder)
    probe = LogisticRegressionCV(
        Cs=np.logspace(-5, 1, asked.penalties), cv=asked.folds, max_iter=1000, n_jobs=2, scoring="accuracy"
    )
    model = make_pipeline(StandardScaler(), probe).fit(x, y)
    scores = np.mean([np.asarray(s) for s in model[-1].scores_.values()], axis=0)
    told = {"cut": asked.cut, "width": x.shape[1], "score": float(scores.mean(0).max())}
    if asked.test:
        x, y = features(part, asked.test)
        told["test"] = float((model.predict(x) == y).mean())
    print(json.dumps(told))


if __name__ == "__main__":
    main()
