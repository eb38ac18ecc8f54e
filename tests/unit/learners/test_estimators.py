"""skops files: the same bytes for the same estimator, and nothing is loaded that is not trusted."""

from __future__ import annotations

import numpy as np
import pytest

from lakeloop.lakehouse.errors import Corrupt, Invalid
from lakeloop.lakehouse.learners.estimators import FILE, canonical, load_estimator, save_estimator

io = pytest.importorskip("skops.io")


def pipeline():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    random = np.random.default_rng(0)
    x = random.normal(size=(200, 3))
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(x, x[:, 0] > 0), x


def test_the_same_estimator_made_twice_has_the_same_bytes():
    (one, _), (two, _) = pipeline(), pipeline()
    assert canonical(io.dumps(one)) == canonical(io.dumps(two))
    assert io.dumps(one) != io.dumps(two)  # what canonical is for


def test_canonical_bytes_are_still_the_estimator(tmp_path):
    model, x = pipeline()
    save_estimator(model, tmp_path)
    assert np.array_equal(load_estimator(tmp_path).predict_proba(x), model.predict_proba(x))
    assert canonical((tmp_path / FILE).read_bytes()) == (tmp_path / FILE).read_bytes()


def test_an_estimator_with_a_function_of_its_own_is_refused_when_it_is_saved(tmp_path):
    from sklearn.preprocessing import FunctionTransformer

    with pytest.raises(Invalid, match="is not loaded from a file without being trusted"):
        save_estimator(FunctionTransformer(__import__("os").getcwd), tmp_path)


def test_and_when_it_is_loaded(tmp_path):
    from sklearn.preprocessing import FunctionTransformer

    (tmp_path / FILE).write_bytes(io.dumps(FunctionTransformer(__import__("os").getcwd)))
    with pytest.raises(Corrupt, match="getcwd"):
        load_estimator(tmp_path)
