"""Argument checks: what each error says, and how long it may get."""

import keras
import numpy as np
import pytest

import keras_penalties as kp
from keras_penalties import checks

pytestmark = pytest.mark.one_backend


class Wordy:
    def __repr__(self):
        return "word " * 10_000


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no repr")


LARGE = [
    np.zeros((300, 300)),
    [np.zeros((300, 300))] * 50,
    list(range(100_000)),
    {str(i): np.zeros(9) for i in range(10_000)},
    "x" * 100_000,
    10**5000,
    [10**5000],
    Wordy(),
    Unprintable(),
    keras.ops.zeros((100, 100)),
    keras.Variable(np.zeros((100, 100))),
]


@pytest.mark.parametrize("value", LARGE, ids=lambda v: type(v).__name__)
def test_a_message_is_short_whatever_was_given(value):
    with pytest.raises(ValueError, match="Invalid value for argument `axis`") as caught:
        checks.refuse("axis", "an axis", value)
    assert len(str(caught.value)) <= 2000
    assert not str(caught.value).endswith("..")


def test_what_is_expected_is_shortened_too_and_ends_once():
    allowed = [f"weight_{i}" for i in range(10_000)]
    with pytest.raises(
        ValueError, match=r"characters left out.*Received: w='a'"
    ) as caught:
        checks.one_of("w", "a", allowed)
    assert len(str(caught.value)) <= 2000
    with pytest.raises(ValueError, match=r"Expected one\. Received"):
        checks.refuse("n", "one.", 2)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((3, 2)), "<ndarray of shape (3, 2), dtype float64>"),
        ([np.zeros(3)], "[<ndarray of shape (3,), dtype float64>]"),
        (np.array(0.1), "array(0.1)"),
        (0.1, "0.1"),
        ("l1", "'l1'"),
    ],
)
def test_arrays_are_shown_by_shape(value, text):
    assert checks.shown(value) == text


def test_a_tensor_is_shown_by_shape():
    assert "of shape (100, 100), dtype" in checks.shown(keras.ops.zeros((100, 100)))
    assert "of shape (None, 3), dtype" in checks.shown(keras.Input((3,)))


@pytest.mark.parametrize("value", [np.array(0.1), np.array([0.1]), keras.ops.ones(())])
def test_an_array_for_a_number_is_told_the_way(value):
    with pytest.raises(ValueError, match=r"Write `float\(strength\)` for an array"):
        kp.penalties.L1(value)


@pytest.mark.parametrize("value", [10**309, "0.1", [1], np.ones(3), 1j, None])
def test_what_is_no_finite_number(value):
    with pytest.raises(ValueError, match="Expected a finite number"):
        kp.penalties.L1(value)


@pytest.mark.parametrize("value", [[1], np.ones(2), {}, 3, None])
def test_one_of_takes_any_value(value):
    with pytest.raises(ValueError, match=r"Expected one of \{'a', 'b'\}"):
        checks.one_of("mode", value, {"a": 1, "b": 2})
    assert checks.one_of("mode", "a", ("a",)) == "a"


@pytest.mark.parametrize("value", [[10**400], [1, [2]], "ab", [None], [True], [1e999]])
def test_what_is_no_array(value):
    with pytest.raises(ValueError, match="Expected finite numbers"):
        checks.floats("levels", value)


@pytest.mark.parametrize(
    "value", ["l1(0.1)", ["l1"], {0: "l1"}, 0.1, kp.penalties.L1()]
)
def test_a_mapping_shows_how_to_write_one(value):
    with pytest.raises(
        ValueError, match=r"Expected a dict .* \{'kernel': 'l1\(0.1\)'\}"
    ):
        checks.mapping("weights", value, "{'kernel': 'l1(0.1)'}")
    given = {"kernel": "l1"}
    taken = checks.mapping("weights", given, "{}")
    assert taken == given
    assert taken is not given
