"""Scores worked out by hand, and intervals that cover what they claim to."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, log_loss

from scdyn.tasks import metrics


def test_scores_as_worked_out_by_hand():
    result = metrics.score(np.array(list("aaab")), np.array(list("aacb")))
    assert result["accuracy"] == 0.75
    assert result["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    # The class called in vain has no row.
    assert result["macro_f1"] == pytest.approx((0.8 + 1.0) / 2)


def test_balanced_accuracy_is_scikit_learns():
    rng = np.random.default_rng(0)
    labels, called = rng.choice(list("abc"), (2, 50))
    expected = balanced_accuracy_score(labels, called)
    assert metrics.score(labels, called)["balanced_accuracy"] == pytest.approx(expected)


def test_calibration_as_worked_out_by_hand():
    p = np.array([[0.8, 0.2], [0.8, 0.2], [0.4, 0.6]])
    result = metrics.score_probabilities(np.array(list("aba")), ["a", "b"], p)
    assert result["nll"] == pytest.approx(log_loss(list("aba"), p, labels=["a", "b"]))
    assert result["brier"] == pytest.approx((2 * 0.04 + 2 * 0.64 + 2 * 0.36) / 3)
    assert result["ece"] == pytest.approx((2 * 0.3 + 0.6) / 3)


def test_a_label_outside_the_classes_costs_and_does_not_fail():
    certain = metrics.score_probabilities(np.array(["z"]), ["a", "b"], np.array([[1.0, 0.0]]))
    assert certain["brier"] == 2 and certain["ece"] == 1


def test_temperature_cools_what_is_too_sure_of_itself():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 3))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([rng.choice(3, p=p) for p in true]).astype(str)
    too_sure = metrics.apply_temperature(true, 1 / 3)
    temperature = metrics.fit_temperature(labels, ["0", "1", "2"], too_sure)
    assert temperature == pytest.approx(3, rel=0.1)
    cooled = metrics.apply_temperature(too_sure, temperature)
    np.testing.assert_allclose(cooled.argmax(1), too_sure.argmax(1))
    before, after = (
        metrics.score_probabilities(labels, ["0", "1", "2"], p)["ece"] for p in (too_sure, cooled)
    )
    assert after < 0.3 * before


def test_interval_is_students_and_wider_where_folds_share_cells():
    values = np.array([0.5, 0.6, 0.7, 0.8])
    low, high = metrics.confidence_interval(values)
    expected = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert (low, high) == pytest.approx(expected)
    wider = metrics.confidence_interval(values, test_over_train=0.25)
    assert wider[1] - wider[0] == pytest.approx((high - low) * 2**0.5)  # 1/4 + 1/4
    assert np.isnan(metrics.confidence_interval(values[:1])).all()


def test_paired_test_is_students_without_correction_and_stricter_with():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 10)) + [[0.8], [0.0]]
    assert metrics.paired_p(a - b) == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert metrics.paired_p(a - b, 0.5) > metrics.paired_p(a - b)
    assert metrics.paired_p(np.zeros(4)) == 1 and np.isnan(metrics.paired_p(np.ones(4)))
