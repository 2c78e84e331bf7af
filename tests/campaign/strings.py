"""Hostile strings for every place that reads one: an object, or a clear ValueError.

Strings are written from the examples of all penalties and losses, mutated, spliced,
drawn from a grammar, made of random characters, or very long. Whatever a string is, the
reader gives the right object, or a `ValueError` that names the string, within 0.1 s.
"""

from __future__ import annotations

import math
import random
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

import keras_penalties as kp
from campaign import part
from keras_penalties.registry import registered

LIMIT = 0.1
"""Seconds of the processor that a string may take."""
MILLION = 1_000_000
KERAS_MISSING = "Keras: a class with a required argument, by its bare name: TypeError"
"""Keras calls the class itself, in `regularizers.get` and `losses.get`."""


def _model() -> keras.Model:
    host = kp.layers.Penalized(keras.layers.Dense(2, name="d"), {"kernel": "l1(0.1)"})
    return keras.Sequential([keras.Input((3,)), host, keras.layers.Dense(2, name="e")])


def readers() -> dict[str, Callable[[str], Any]]:
    """Every place of the package that reads a user's string, and Keras' slots."""
    model = _model()
    return {
        "penalty": kp.get,
        "loss": kp.losses.get,
        "slot": keras.regularizers.get,
        "compile": keras.losses.get,
        "strength": kp.penalties.L1,
        "target": lambda text: kp.Target(text),
        "target of": lambda text: kp.Target(0.5, of=text),
        "target kind": lambda text: kp.Target(0.5, kind=text),
        "layer": kp.layers.ActivityPenalty,
        "optimizer": lambda text: kp.optimizers.Proximal("sgd", {"kernel": text}),
        "pattern": lambda text: kp.optimizers.Penalizing("sgd", {text: "l1"}),
        "rule": lambda text: kp.penalize(model, {text: "l1(0.1)"}),
        "term": lambda text: kp.set_strength(model, text, 0.5),
    }


# Strings that are right.


class NoText(Exception):
    """An object that no string stands for."""


def written(value: Any) -> str:
    """An object as its string: a call with all arguments by name."""
    if isinstance(value, kp.penalties.Penalty | kp.losses.Loss):
        given = {k: getattr(value, k) for k in value.get_config() if hasattr(value, k)}
        pairs = (f"{name}={written(part)}" for name, part in given.items())
        return f"{type(value).__name__}({', '.join(pairs)})"
    if isinstance(value, dict):
        items = (f"{written(k)}: {written(v)}" for k, v in value.items())
        return f"{{{', '.join(items)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, float) and math.isinf(value):
        return "1e999" if value > 0 else "-1e999"
    if isinstance(value, str | int | float | None):
        return repr(value)
    raise NoText


def corpus() -> dict[str, list[tuple[str, Any]]]:
    """The examples of each class as strings, with the objects, for each kind."""
    found: dict[str, list[tuple[str, Any]]] = {"penalty": [], "loss": []}
    for kind, texts in found.items():
        for entry in registered(kind, "keras_penalties"):
            for example in entry.obj.examples():
                try:
                    texts.append((written(example), example))
                except NoText:
                    continue
    return found


def same(a: Any, b: Any) -> bool:
    """Whether two objects are equal; losses are by their configs."""
    return type(a) is type(b) and (a == b or a.get_config() == b.get_config())


# Strings that are not.

NUMBERS = ["0", "-1", "1e308", "1e309", "-0.0", "nan", "1_0", "0x1", ".5", "1j", "1."]
TOKENS = [
    *NUMBERS,
    *("(", ")", "[", "]", "{", "}", ",", "=", ":", "+", "-", "*", "**", ">", ".", " "),
    *("'", '"', "\\", "\n", "\0", "\t", "\ud800", "\U0010ffff", "\x1b[2J", "\u202e"),
    *("None", "True", "lambda:", "__import__('os')", "eval", "().__class__", "%s"),
    *("{0.__class__}", "l1", "l2(0.1)", "sum", "grouped(", "keras_penalties>", "L1"),
    *("strength=", "axis=", "penalty=", "mse", "é", "Ω", "９", "۱", "\u3000", "#", ";"),
    *("9" * 400, "(" * 25, "a{99999999999}", "(?P<a>", "(?i)", "\\1", "(a+)+$", "$"),
    *("kernel", "d/kernel", ".*", "d_kernel_l1", "value", "mean", "==", "density"),
]


def grammar(rng: random.Random, depth: int = 0) -> str:
    """A string of the right form with names and arguments by chance."""
    pick = rng.random()
    if pick < 0.25 or depth > 4:
        return rng.choice([*NUMBERS, "'mean'", "None", "True", "[0, 1]", "{0: 1}"])
    if pick < 0.4:
        return f"{grammar(rng, depth + 1)} + {grammar(rng, depth + 1)}"
    name = rng.choice(NAMES)
    words = [
        rng.choice(["", "", "strength=", "axis=", "penalty="]) + grammar(rng, depth + 1)
        for _ in range(rng.randrange(4))
    ]
    return f"{name}({', '.join(words)})" if rng.random() < 0.8 else name


NAMES = [
    name
    for kind in ("penalty", "loss", "layer", "strength")
    for entry in registered(kind)
    for name in (entry.name, entry.key, entry.obj.__name__)
]


def mutated(text: str, rng: random.Random) -> str:
    """A string with some of its pieces lost, repeated, moved or replaced."""
    for _ in range(rng.choice([1, 1, 2, 5])):
        a, b = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        b = min(b, a + rng.choice([0, 1, 1, 5]))
        middle = rng.choice([rng.choice(TOKENS), text[a:b] * 2, ""])
        text = text[:a] + middle + text[b:]
    return text


def long(rng: random.Random) -> str:
    """Up to a million characters."""
    piece = "".join(rng.choice(TOKENS) for _ in range(rng.choice([1, 1, 2, 4])))
    piece = rng.choice(
        [piece, "l1+", "l1(0.1) + ", "sum([", "a.", "a>", "l1(strength="]
    )
    size = rng.choice([500, 9_990, 10_001, MILLION])
    start = rng.choice(["", "", "l1(", "sum([", "keras_penalties>"])
    return (start + piece * (size // len(piece)))[:size] + rng.choice(["", "l1", ")"])


def chaos(rng: random.Random) -> str:
    """Any characters."""
    top = rng.choice([128, 256, 0x3000, 0x110000])
    return "".join(chr(rng.randrange(top)) for _ in range(rng.randrange(30)))


def strings(rng: random.Random, known: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Kinds and strings, without end. Only one in some hundred is very long."""
    texts = [text for examples in known.values() for text, _ in examples]
    while True:
        pick = rng.random()
        if pick < 0.01:
            yield "long", long(rng)
        elif pick < 0.5:
            yield "mutated", mutated(rng.choice(texts), rng)
        elif pick < 0.6:
            yield "spliced", rng.choice(texts)[: rng.randrange(40)] + rng.choice(texts)
        elif pick < 0.7:
            yield "a sum", " + ".join(rng.choice(texts) for _ in range(3))
        elif pick < 0.85:
            yield "grammar", grammar(rng)
        elif pick < 0.95:
            yield "tokens", "".join(rng.choices(TOKENS, k=rng.randrange(8)))
        else:
            yield "any characters", chaos(rng)


# What comes of them.


class Hang(BaseException):
    """A reader that takes seconds."""


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Raise `Hang` in what takes longer."""

    def stop(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def outcome(read: Callable[[str], Any], text: str) -> tuple[str, float, Any]:
    """What came of one string: a word, the processor's seconds, and the object."""
    begun = time.process_time()
    found = None
    try:
        with bounded(20.0):
            found = read(text)
        came = "an object"
    except ValueError as error:
        named = names(str(error), text) or names_object(str(error), text)
        came = "refused" if named else f"not named: {error}"
    except BaseException as error:
        came = f"{type(error).__name__}: {error}"
    return came, time.process_time() - begun, found


def names(message: str, text: str) -> bool:
    """Whether a message shows the beginning of a string."""
    return text[:12] in message or repr(text)[1:13].rstrip("'\"") in message


def names_object(message: str, text: str) -> bool:
    """Whether a string was read, and a message names the object that a host refuses."""
    try:
        parts = kp.get(text).parts()
    except ValueError:
        return False
    return any(type(part).__name__ in message for part in parts)


def fault(name: str, text: str, came: str, seconds: float) -> str | None:
    """What is wrong with an outcome, if anything is."""
    shown = f"{name} {text[:200]!a} ({len(text)} characters)"
    if came not in ("an object", "refused", KERAS_MISSING):
        return f"{shown}: {came[:300]!a}"
    if came == "an object" and name in ("strength", "target", "target of"):
        return None if text in MEASURES else f"{shown}: was taken"
    return f"{shown}: took {seconds:.2f} s" if seconds > LIMIT else None


MEASURES = ("value", "mean", "density")
"""What `Target(of=...)` may be."""


def run(count: int, seed: int) -> part.Figures:
    """Each reader reads its share of `count` strings."""
    rng, known, places = random.Random(seed), corpus(), readers()
    begun = time.time()
    kinds: Counter[str] = Counter()
    came_of: dict[str, Counter[str]] = {name: Counter() for name in places}
    wrong: list[str] = []
    slowest = 0.0
    warnings.simplefilter("ignore")  # Python's own, about odd numbers and patterns
    for kind, examples in known.items():
        for text, example in examples:
            found = outcome(places[kind], text)
            if found[0] != "an object" or not same(found[2], example):
                wrong.append(f"{text!a}: {found[0]}, not the example")
    shares = {name: 6 if name in known else 1 for name in places}
    drawn = strings(rng, known)
    for _ in range(count):
        kind, text = next(drawn)
        (name,) = rng.choices(list(shares), list(shares.values()))
        came, seconds, _ = outcome(places[name], text)
        if name in ("slot", "compile") and came.startswith("TypeError"):
            came = KERAS_MISSING if "missing" in came else came
        kinds[kind] += 1
        came_of[name][came if came in ("an object", KERAS_MISSING) else "refused"] += 1
        if seconds > LIMIT:  # or was the machine busy?
            seconds = min(seconds, outcome(places[name], text)[1])
        slowest = max(slowest, seconds)
        if (line := fault(name, text, came, seconds)) is not None:
            wrong.append(line)
    return {
        "backend": keras.backend.backend(),
        "examples read back": sum(map(len, known.values())),
        "kinds": dict(kinds),
        "readers": {name: dict(found) for name, found in came_of.items()},
        "slowest in seconds": round(slowest, 4),
        "wrong": wrong,
        "seconds": round(time.time() - begun),
    }


if __name__ == "__main__":
    sys.exit(part.main(run, __doc__))
