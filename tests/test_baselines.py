from __future__ import annotations

import numpy as np
import pytest
from command_line import word_texts
from PIL import Image

from topgraft.baselines import answers, colour_histogram, fit_baseline, raw_features
from topgraft.data import read


def test_words_that_tell_the_class_are_learnt():
    texts, labels = zip(*word_texts(60), strict=True)
    data = read((list(texts), list(labels)))
    features = raw_features(data)
    model = fit_baseline("text", features[:45], data.targets[:45])
    assert (answers(model, features[45:]) == data.targets[45:]).mean() > 0.9


def test_colours_that_tell_the_class_are_learnt():
    rng = np.random.default_rng(0)
    pictures, labels = [], []
    for i in range(24):
        base = np.array([200, 40, 40]) if i % 2 else np.array([40, 40, 200])
        noise = rng.integers(-30, 30, (20, 30, 3))
        pictures.append(Image.fromarray((base + noise).clip(0, 255).astype(np.uint8)))
        labels.append("red" if i % 2 else "blue")
    data = read((pictures, labels))
    features = raw_features(data)
    assert features.shape == (24, 64)
    assert np.allclose((features**2).sum(1), 1)
    model = fit_baseline("picture", features[:16], data.targets[:16])
    assert (answers(model, features[16:]) == data.targets[16:]).all()


def test_a_histogram_counts_every_pixel_in_its_colour():
    picture = Image.new("RGB", (10, 10), "black")
    picture.paste("white", (0, 0, 5, 10))
    found = colour_histogram(picture)
    assert found[0] == found[-1] == pytest.approx(0.5**0.5)
    assert np.count_nonzero(found) == 2


def test_rows_are_learnt_also_where_a_class_has_one_example():
    x = np.random.default_rng(0).normal(size=(30, 5))
    y = (x[:, 0] > 0).astype(int)
    model = fit_baseline("array", x, y)
    assert (answers(model, x) == y).mean() > 0.9
    y[:] = 0
    y[0] = 1
    assert len(answers(fit_baseline("array", x, y), x)) == 30
