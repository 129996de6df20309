"""TransferFeatures. (test_estimators_classifier.py runs the checks of scikit-learn for both estimators.)"""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from packaged_data import pictures_of
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from small_networks import backbone_of, data_of_maps, example_maps, maps

from topgraft.errors import TopgraftError
from topgraft.estimators.features import TransferFeatures
from topgraft.features.passes import one_pass
from topgraft.features.store import Store


@pytest.fixture(scope="module")
def backbone():
    return backbone_of(maps(), example_maps(2))


@pytest.mark.parametrize("keep", [1, "blocks.1", "all"])
def test_it_gives_the_pooled_activations_at_a_cut(backbone, tmp_path, keep):
    data = data_of_maps(20)
    wanted, _ = one_pass(backbone, data, Store(tmp_path))
    features = TransferFeatures(backbone, keep=keep, store=tmp_path).fit(data.inputs)
    found = features.transform(data.inputs)
    assert features.keep_ == {1: 1, "blocks.1": 3, "all": 4}[keep]
    np.testing.assert_array_equal(found, wanted.cuts[features.keep_].numpy())
    assert (found.dtype, found.shape[1]) == (np.float32, len(features.get_feature_names_out()))
    again = pickle.loads(pickle.dumps(features)).set_params(store=False)
    np.testing.assert_allclose(again.transform(data.inputs), found, atol=1e-6)


def test_auto_asks_the_probes_and_needs_labels(backbone, tmp_path):
    data = data_of_maps(36)
    features = TransferFeatures(backbone, keep="auto", engine="auto", precision="auto", store=tmp_path)
    features.fit(data.inputs, data.targets)
    assert (features.engine_, features.precision_) == ("torch", "fp32")  # there is little to do
    assert features.keep_ == features.advice_.keep
    assert len(features.evidence_.cuts) == 4
    with pytest.raises(TopgraftError, match="need labels"):
        features.fit(data.inputs)


def test_a_pipeline_is_searched_over_its_cut(backbone, tmp_path):
    data = data_of_maps(36)
    steps = [("features", TransferFeatures(backbone, store=tmp_path)), ("head", LogisticRegression())]
    search = GridSearchCV(Pipeline(steps), {"features__keep": [1, 3]}, cv=3).fit(data.inputs, data.targets)
    assert search.best_score_ > 0.6
    assert search.best_estimator_[0].keep_ == search.best_params_["features__keep"]


def test_numbers_stay_as_they_are_in_a_frame_too():
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.5]}, index=["x", "y"])
    found = TransferFeatures().set_output(transform="pandas").fit_transform(frame)
    np.testing.assert_array_equal(found.to_numpy(), frame.to_numpy())
    assert found.index.tolist() == ["x", "y"]
    with pytest.raises(TopgraftError, match="keep=2: numbers without a backbone"):
        TransferFeatures(keep=2).fit(frame)


def test_pictures_as_arrays_and_as_pictures_through_real_weights():
    pictures = []
    for path in pictures_of("food", 0, 4):
        with Image.open(path) as opened:
            pictures.append(opened.convert("RGB").resize((96, 80)))
    arrays = np.stack([np.asarray(picture) for picture in pictures])
    features = TransferFeatures(keep=3, store=False).fit(arrays)
    found = features.transform(arrays)
    assert features.modality_ == "picture"
    np.testing.assert_allclose(features.transform(pictures), found, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 0.01
    with pytest.raises(TopgraftError, match="table of numbers; this TransferFeatures was fitted on pictures"):
        features.transform(np.zeros((2, 3)))
