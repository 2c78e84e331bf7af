"""Random penalties and strengths, for each place where they may stand."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from campaign.describe import Penalty, Strength

Draw = Any
CONSTANTS = (0.1, 0.05, 0.3)


def _constant(draw: Draw) -> Strength:
    return Strength("constant", {"value": draw(st.sampled_from(CONSTANTS))})


def _by_step(draw: Draw) -> Strength:
    low, high = 0.05, draw(st.sampled_from(CONSTANTS))
    ramp = {"start": low, "end": 2 * high, "steps": 3, "begin": draw(st.integers(0, 1))}
    piecewise = {"boundaries": [1, 3], "values": [low, high, 2 * low]}
    return draw(
        st.sampled_from(
            [
                Strength("linear", ramp),
                Strength("cosine", ramp),
                Strength(
                    "cyclical", {"start": low, "end": high, "period": 4, "ratio": 0.5}
                ),
                Strength("exponential", {"start": high, "steps": 2, "decay": 0.7}),
                Strength("piecewise", piecewise),
            ]
        )
    )


def _target(draw: Draw, measures: tuple[str, ...], kinds: tuple[str, ...]) -> Strength:
    of, kind = draw(st.sampled_from(measures)), draw(st.sampled_from(kinds))
    relative = draw(st.booleans())
    start = -0.1 if kind == ">=" else 0.1
    relative = relative and start > 0
    value = {"value": 0.5, "density": 0.4, "mean": 0.2}[of]
    args = {
        "value": value,
        "of": of,
        "kind": kind,
        "initial": start,
        "rate": 0.02,
        "relative": relative,
        "damping": draw(st.sampled_from([0.0, 2.0])),
        "tolerance": 0.1,
    }
    return Strength("target", args)


def _lazy(draw: Draw) -> Strength:
    value, every = draw(st.sampled_from(CONSTANTS)), draw(st.sampled_from([2, 3]))
    return Strength("lazy", {"strength": value, "every": every})


def _any(draw: Draw) -> Strength:
    kind = draw(st.sampled_from(["constant", "step", "target", "lazy", "step"]))
    if kind == "target":
        return _target(draw, ("value", "mean", "density"), ("<=", ">=", "=="))
    return {"constant": _constant, "step": _by_step, "lazy": _lazy}[kind](draw)


def _sum(draw: Draw, kinds: list[str], strength: Any) -> tuple[Penalty, ...]:
    count = draw(st.sampled_from([1, 1, 2]))
    chosen: list[str] = []
    for _ in range(count):
        kind = draw(st.sampled_from(kinds))
        chosen += [kind] if kind not in chosen else []
    return tuple(Penalty(k, strength(draw), _args(draw, k)) for k in chosen)


def _args(draw: Draw, kind: str) -> dict[str, Any]:
    return {
        "elastic_net": {"l1_ratio": 0.7},
        "huber_l1": {"width": 0.3},
        "kl_sparsity": {"rate": 0.2},
        "variance_covariance": {"deviation": 1.0, "covariance": 0.5},
        "grouped": {"axis": draw(st.sampled_from([0, -1])) if kind == "grouped" else 0},
    }.get(kind, {})


ENTRIES = ["l2", "l1", "elastic_net", "huber_l1", "non_negative"]
BATCH = ["decorrelation", "variance_covariance"]


@st.composite
def slot_penalties(draw: Draw, slot: str) -> Penalty:
    """A constant penalty for a slot of Keras'."""
    kinds = [*ENTRIES, "grouped"] if slot in ("kernel", "recurrent") else ENTRIES
    kind = draw(st.sampled_from(kinds))
    return Penalty(kind, _constant(draw), _args(draw, kind))


@st.composite
def weight_penalties(draw: Draw, flat: bool) -> tuple[Penalty, ...]:
    """A penalty, or a sum, for a weight."""
    kinds = [*ENTRIES, "hoyer"] if flat else [*ENTRIES, "hoyer", "grouped"]
    return _sum(draw, kinds, _any)


@st.composite
def proximal_penalties(draw: Draw, flat: bool) -> tuple[Penalty, ...]:
    """The same for `Proximal`."""

    def strength(draw: Draw) -> Strength:
        kind = draw(st.sampled_from(["constant", "step", "target"]))
        if kind == "target":
            return _target(draw, ("value", "mean", "density"), ("<=",))
        return _constant(draw) if kind == "constant" else _by_step(draw)

    if draw(st.sampled_from([False, False, True])):
        return tuple(Penalty(k, strength(draw)) for k in ("l1", "l2"))
    kinds = ["l1", "l2", "elastic_net", "non_negative", *["grouped"] * (not flat)]
    kind = draw(st.sampled_from(kinds))
    return (Penalty(kind, strength(draw), _args(draw, kind)),)


@st.composite
def output_penalties(draw: Draw, sigmoid: bool) -> tuple[Penalty, ...]:
    """The same for what a layer gives out."""
    kinds = [*ENTRIES, *BATCH, *["kl_sparsity"] * 4 * sigmoid]
    return _sum(draw, kinds, _any)


@st.composite
def activity_penalties(
    draw: Draw, sigmoid: bool
) -> tuple[tuple[Penalty, ...], float | None]:
    """The same for `ActivityPenalty`, with its momentum."""
    if sigmoid and draw(st.booleans()):
        strength = _constant(draw) if draw(st.booleans()) else _by_step(draw)
        penalties = (Penalty("kl_sparsity", strength, {"rate": 0.2}),)
        if draw(st.booleans()):
            penalties = (*penalties, Penalty("l1", _any(draw)))
        return penalties, draw(st.sampled_from([0.9, 0.5, None]))
    return draw(output_penalties(sigmoid)), None


@st.composite
def derivative_penalties(draw: Draw, several: bool) -> tuple[Penalty, ...]:
    """For the layers on derivatives: only one of them takes any penalty."""

    def strength(draw: Draw) -> Strength:
        kind = draw(st.sampled_from(["constant", "step", "target", "lazy"]))
        if kind == "target":
            return _target(draw, ("value",), ("<=", "=="))
        return {"constant": _constant, "step": _by_step, "lazy": _lazy}[kind](draw)

    if several:
        return _sum(draw, ["l2", "l1"], strength)
    return (Penalty("l2", strength(draw)),)


@st.composite
def loss_strengths(draw: Draw) -> Penalty:
    """For `AddLoss`, which has a loss in the penalty's place."""
    kind = draw(st.sampled_from(["learned", "constant", "step", "target", "lazy"]))
    if kind == "learned":
        start = draw(st.sampled_from([1.0, 0.5, "auto"]))
        return Penalty("loss", Strength("learned", {"initial": start}))
    if kind == "target":
        return Penalty("loss", _target(draw, ("value",), ("<=", "==")))
    made = {"constant": _constant, "step": _by_step, "lazy": _lazy}
    return Penalty("loss", made[kind](draw))
