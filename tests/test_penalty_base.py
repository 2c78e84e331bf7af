"""What the base class does for every penalty, a user's own too."""

import itertools

import numpy as np
import pytest
from keras import ops
from laws.book import array, tensor

import keras_penalties as kp
from keras_penalties import compiling
from keras_penalties.penalties.fusing import _Alike

P = kp.penalties


class Squares:
    """No penalty itself: it brings what a penalty writes."""

    def compute_value(self, x):
        return ops.sum(ops.square(x))

    def compute_prox(self, x, t):
        return x / (1.0 + 2.0 * t)


class Mixed(Squares, P.Penalty):
    pass


class Inherits(Mixed):
    pass


@pytest.mark.parametrize("cls", [Mixed, Inherits])
def test_a_mixins_formula_runs_in_float32_too(cls):
    x = tensor([1e4, 1e4, 1e4], "float16")  # float16 ends at 65504
    assert float(array(cls(1.0).value(x))) == pytest.approx(3e8, rel=1e-3)
    assert float(array(cls(1.0)(x))) == pytest.approx(3e8, rel=1e-3)
    moved = cls(1.0).prox(x, 1.0)
    assert "float16" in str(moved.dtype)
    assert cls(1.0).has_prox


@pytest.mark.parametrize("method", ["value", "prox"])
@pytest.mark.parametrize("base", [P.Penalty, P.Separable, P.L1])
def test_a_class_that_replaces_a_final_method_is_refused(base, method):
    mixin = type("Mixin", (), {method: lambda self, x, t=0.0: x})
    with pytest.raises(TypeError, match=f"write compute_{method} instead"):
        type("Own", (base,), {method: lambda self, x, t=0.0: x})
    with pytest.raises(TypeError, match=f"write compute_{method} instead"):
        type("Own", (mixin, base), {})


def test_alike_is_equal_except_for_the_strength():
    assert P.L1(0.1).alike(P.L1(0.2))
    assert not P.L1(0.1).alike(P.L2(0.1))
    assert not P.MCP(0.1, width=1.0).alike(P.MCP(0.1, width=2.0))
    rows, columns = P.Grouped(P.L1(0.1), axis=0), P.Grouped(P.L1(0.1), axis=1)
    assert rows.alike(P.Grouped(P.L1(7.0), axis=0))
    assert not rows.alike(columns)
    assert not rows.alike(P.Grouped(P.MCP(0.1), axis=0))
    assert not P.ToReference(0.1, [1.0]).alike(P.ToReference(0.1, [2.0]))
    ramp = kp.get("l1").with_strength(kp.strengths.Lazy(0.1))
    assert ramp.alike(P.L1(0.1))
    assert not P.L1(0.1).alike("l1")


def test_what_is_compiled_is_shared_and_bounded(monkeypatch):
    monkeypatch.setattr(compiling, "_count", itertools.count(compiling.MOST - 2))
    monkeypatch.setattr(compiling, "_kept", {})
    keys = [(_Alike(P.L1(s)), n) for n in range(3) for s in (0.1, 0.2)] * 2
    found = [compiling.kept(key, lambda: abs, max) for key in keys]
    assert found == [abs, abs, abs, abs, max, max] * 2


def test_the_statistics_are_refused_in_a_slot_with_the_way_out():
    x = np.full((4, 3), 0.5, "float32")
    for p in (P.KLSparsity(), P.Decorrelation(), P.VarianceCovariance()):
        with pytest.raises(ValueError, match=r"ActivityPenalty.*outputs="):
            p(x)
        assert np.isfinite(float(array(p.value(x))))
