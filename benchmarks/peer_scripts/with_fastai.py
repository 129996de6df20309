"""fastai's fine_tune by its own defaults, on the same weights and pictures.

    python with_fastai.py WEIGHTS FOLDER TEST --epochs N [--frozen]

Prints one line of JSON: accuracy on the test folder and seconds of training alone.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from fastai.vision.all import (
    ImageDataLoaders,
    Normalize,
    Resize,
    accuracy,
    aug_transforms,
    set_seed,
    vision_learner,
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("weights", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--frozen", action="store_true", help="train the head alone")
    asked = parser.parse_args()
    set_seed(0, reproducible=True)
    loaders = ImageDataLoaders.from_folder(
        asked.folder,
        valid_pct=0.2,
        seed=0,
        item_tfms=Resize(224),
        batch_tfms=[*aug_transforms(), Normalize.from_stats([0.5] * 3, [0.5] * 3)],
        num_workers=2,
    )
    learner = vision_learner(loaders, "tf_efficientnet_lite0", pretrained=False, metrics=accuracy)
    weights = torch.load(asked.weights, weights_only=True)
    body = learner.model[0].model
    missing, left = body.load_state_dict(weights, strict=False)
    if missing or any(not name.startswith("classifier") for name in left):
        raise SystemExit(f"weights did not arrive: {missing} {left}")
    began = time.monotonic()
    learner.freeze()
    with learner.no_bar(), learner.no_logging():
        if asked.frozen:
            learner.fit_one_cycle(asked.epochs)
        else:
            learner.fine_tune(asked.epochs)
    seconds = time.monotonic() - began
    files = sorted(asked.test.glob("*/*.jpg"))
    loader = loaders.test_dl(files)
    with learner.no_bar(), learner.no_logging():
        predicted, _ = learner.get_preds(dl=loader)
    vocab = list(loaders.vocab)
    right = [vocab[int(p)] == file.parent.name for p, file in zip(predicted.argmax(1), files, strict=True)]
    print(json.dumps({"epochs": asked.epochs, "test": sum(right) / len(right), "training": seconds}))


if __name__ == "__main__":
    main()
