"""Objects from strings: what is read, and what each refusal says."""

import re
import time

import keras
import numpy as np
import pytest

import keras_penalties as kp
from keras_penalties import expressions
from keras_penalties.registry import registered

pytestmark = pytest.mark.one_backend

L1, L2 = kp.penalties.L1, kp.penalties.L2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(l1(0.1))", L1(0.1)),
        ("(l1(0.1) + l2(0.2)) + l1(0.3)", L1(0.1) + L2(0.2) + L1(0.3)),
        ("l1( 1_0.5e-1 ,)", L1(1.05)),
        ("l1(strength=.5)", L1(0.5)),
        ("sum(penalties=(l1, l2(2)))", L1() + L2(2.0)),
        ("grouped(keras_penalties>L1(0.1), axis=[0, -1])", None),
        ("l1(0.1)\n+\tl2(0.2)\n", L1(0.1) + L2(0.2)),
    ],
)
def test_what_is_read(text, expected):
    wanted = expected or kp.penalties.Grouped(L1(0.1), axis=[0, -1])
    assert kp.get(text) == wanted


def test_each_kind_of_literal():
    loss = kp.losses.get("class_weighted('mse', weights={0: 1, 1: .5}, name=None)")
    assert loss.weights == [1.0, 0.5]
    assert kp.losses.get('gaussian_nll(reduction="sum")').reduction == "sum"


def test_a_package_may_have_any_name():
    @kp.register(package="my-own.pack age")
    class Cubed(kp.penalties.Penalty):
        def compute_value(self, x):
            return keras.ops.sum(keras.ops.abs(x) ** 3)

    assert isinstance(kp.get("my-own.pack age>Cubed"), Cubed)

    @kp.register(package="my-own.pack")
    class Fourth(kp.penalties.Penalty):
        def compute_value(self, x):
            return keras.ops.sum(x**4)

    assert kp.get("l1(0.5) + my-own.pack>Fourth(2)").parts()[1].strength == 2.0


def test_a_sum_as_long_as_a_string_may_be():
    text = "+".join(["l1(0.1)"] * 1000)
    start = time.process_time()
    assert len(kp.get(text).parts()) == 1000
    assert time.process_time() - start < HANGS


HOSTILE = {
    "no name": ["", "   ", "?", "\0", "\ud800(", "l1(\0)", "0.1", "'l1'", "[l1]"],
    "not a call": ["l1(0.1", "l1(0.1))", "l1()()", "l1.value", "lambda: 1(", "l1[0]("],
    "stars": ["l1(*[1])", "l1(**{'strength': 1})", "l1(x for x in y)"],
    "arithmetic": ["l1(0.1) + 1", "l1(1 + 2)", "l1(0.1) - l1(0.1)", "2 * l1(0.1)"],
    "literals": ["l1(1__0)", "l1(0777)", "l1(1.2.3)", "l1('\\x41')", "l1(1j)"],
    "containers": ["entropy({[1]})", "entropy({[1]: 2})", "l1([[]])", "l1({1})"],
    "arguments": [
        "l1(a=1)",
        "l1(1, 2)",
        "l1(1, strength=1)",
        "l1(strength=1,strength=1)",
    ],
    "needs more": ["grouped", "grouped()", "Sum(0)", "sum([])", "sum(l1)"],
    "code": ["l1(__import__('os'))", "l1(open('x'))", "l1(().__class__)"],
    "numbers": [
        "l1(1" + "0" * 309 + ")",
        "l1(" + "9" * 5000 + ")",
        "l1(1e999)",
        "l1(-1)",
    ],
    "depth": [
        "l1(" + "-" * 5000 + "1)",
        "(" * 5000,
        "lambda:" * 1000 + "1(",
        "l1(" * 999,
    ],
}
LONG = {
    "a number": "l1(" + "9" * 1_000_000 + ")",
    "a name": "l" * 1_000_000,
    "names with dots": "a." * 500_000 + "(",
    "names without end": "a>" * 500_000 + "(",
    "spaces": "l1(" + " " * 1_000_000,
    "lambdas": "lambda:" * 150_000 + "1",
    "a sum": "+".join(["l1(0.1)"] * 10_000),
}
HANGS = 5.0
"""Seconds of the processor: the faults that are meant here took minutes, or forever."""
TEXTS = [text for texts in HOSTILE.values() for text in texts]


@pytest.mark.parametrize("text", [*TEXTS, *LONG.values()], ids=lambda t: t[:20].strip())
@pytest.mark.parametrize("get", [kp.get, kp.losses.get])
def test_a_refusal_names_the_text_at_once_and_shortly(text, get):
    start = time.process_time()
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the message is read below
        get(text)
    assert time.process_time() - start < HANGS
    message = str(caught.value)
    assert message.startswith("Invalid value for argument `identifier`. Received: ")
    assert repr(text)[:20] in message
    assert len(message) <= 2000
    assert not message.endswith("..")


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_what_is_too_long_is_refused_by_a_stated_limit(text):
    with pytest.raises(ValueError, match="at most 10,000 characters"):
        kp.get(text)
    short = text[: expressions.MAX_CHARACTERS]
    start = time.process_time()
    with pytest.raises(ValueError, match="Invalid value for argument"):
        kp.get(short)
    assert time.process_time() - start < HANGS


def test_every_prefix_of_a_good_string_is_read_or_refused():
    text = "grouped(penalty=l1(-1.5e-3), axis=[0, (1)]) + keras_penalties>L2('a')"
    for end in range(len(text)):
        with pytest.raises(ValueError, match="argument `identifier`"):
            kp.get(text[:end])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("l1(strenght=1)", "L1 has no argument 'strenght'. Did you mean 'strength'?"),
        ("elastic_net(l1_ration=1)", "Did you mean 'l1_ratio'?"),
        ("l1(1, 2)", "Arguments of L1: strength."),
        ("grouped(axis=0)", "'penalty'"),
        ("l1(-1)", "argument `strength`. Expected a finite number in [0.0, inf]"),
        ("l1 (0.1) ?", "at ' ?'"),
        ("half_sum_squared_error(1) + l1", "is a loss, not a penalty"),
        ("l1l2", "belongs to Keras (L1L2), which is no Penalty. Did you mean"),
    ],
)
def test_a_refusal_says_what_is_wrong(text, words):
    with pytest.raises(ValueError, match="argument `weights`") as caught:
        kp.penalties.get(text, "weights")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (0.1, "A number is a strength: write 'l1(0.1)'"),
        (1, "write 'l1(1)'"),
        (["l1", "l2"], "write 'l1(0.1) + l2(0.1)'"),
        (keras.regularizers.L1(0.1), "An object of Keras is not: write 'l1(0.1)'"),
        (keras.regularizers.L2, "An object of Keras is not"),
        (lambda x: x, "A function is not: write a subclass of `kp.penalties.Penalty`"),
        ({"kernel": "l1"}, "A config has the keys 'class_name' and 'config'"),
        (kp.losses.GaussianNLL(), "a penalty of keras_penalties, its name"),
        (None, "(of type NoneType)"),
        (True, "a penalty of keras_penalties, its name or its config."),
        (np.zeros((1000, 1000)), "<ndarray of shape (1000, 1000), dtype float64>"),
        (b"l1", "(of type bytes)"),
    ],
)
def test_what_is_no_penalty_is_told_the_way_to_one(given, words):
    with pytest.raises(
        ValueError, match="Invalid value for argument `outputs`"
    ) as caught:
        kp.penalties.get(given, "outputs")
    assert words in str(caught.value)
    assert len(str(caught.value)) <= 2000


def test_what_is_no_loss():
    for given in (0.1, None, ["mse"], L1(0.1), {"a": "mse"}):
        with pytest.raises(ValueError, match="a loss or a function, its name"):
            kp.losses.get(given)


def test_a_proposed_name_works():
    """`Did you mean` proposes what the same call then takes."""
    for kind, get in (("penalty", kp.get), ("loss", kp.losses.get)):
        for entry in registered(kind, "keras_penalties"):
            misspelt = entry.name + "x"
            with pytest.raises(ValueError, match="Did you mean") as caught:
                get(misspelt)
            proposed = str(caught.value).split("Did you mean ")[1].split("?")[0]
            for name in proposed.split(" or "):
                try:
                    get(name.strip("'"))
                except ValueError as error:  # a class that needs an argument says which
                    assert "missing" in str(error)  # noqa: PT017


@pytest.mark.parametrize("name", ["l1_l2", "L1L2", "l1l2", "orthogonal_regularizer"])
def test_a_name_of_a_keras_regularizer_is_never_proposed(name):
    for text in (name, name + "(0.1)", name + "x"):
        with pytest.raises(ValueError, match="Unknown penalty name") as caught:
            kp.get(text)
        proposed = re.findall(r"Did you mean (.*?)\?", str(caught.value))
        for each in proposed[0].split(" or ") if proposed else []:
            assert isinstance(kp.get(each.strip("'")), kp.penalties.Penalty)
