"""Formulas as docstrings write them, in Unicode, as LaTeX."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_SYMBOLS = {
    "Σ": r"\sum ",
    "·": r"\cdot ",
    "−": "-",
    "½": r"\frac{1}{2}",
    "‖": r"\Vert ",
    "∂": r"\partial ",
    "∇": r"\nabla ",
    "∘": r"\circ ",
    "≤": r"\leq ",
    "≥": r"\geq ",
    "≠": r"\neq ",
    "{": r"\{",
    "}": r"\}",
    "%": r"\%",
    "#": r"\#",
    "&": r"\&",
    "$": r"\$",
    "_": r"\_",
    "~": r"\sim ",
    "\\": r"\backslash ",
}
_ACCENTS = {"\u0302": "hat", "\u0303": "tilde", "\u0304": "bar"}
_FUNCTIONS = {"exp", "log", "max", "min"}
_SUBSCRIPTED = {*_FUNCTIONS, "mean"}  # as in `log_t1`
_CLOSING = {"(": ")", "{": "}", "[": "]"}


def latex(formula: str) -> str:
    r"""A formula in plain LaTeX for math mode.

    Example:
        >>> latex("½·Σᵢ≠ⱼ Cᵢⱼ²")
        '\\frac{1}{2}\\cdot \\sum _{i\\neq j} C_{ij}^{2}'
    """
    return re.sub(" +", " ", "".join(_converted(formula))).strip()


def word(text: str) -> str:
    r"""Text, such as the path of a weight, upright in math mode.

    Example:
        >>> word("dense_1/kernel")
        '\\mathrm{dense\\_1/kernel}'
    """
    spaced = text.replace(" ", "\u00a0")
    inside = "".join(
        "\\ " if c == "\u00a0" else r"\wedge " if c == "^" else _symbol(c)
        for c in spaced
    )
    return rf"\mathrm{{{inside}}}"


def number(value: float) -> str:
    r"""A number with seven digits, its exponent as a power of ten.

    Example:
        >>> number(5e-05), number(0.25)
        ('5 \\cdot 10^{-5}', '0.25')
    """
    digits, _, exponent = f"{value:.7g}".partition("e")
    return rf"{digits} \cdot 10^{{{int(exponent)}}}" if exponent else digits


def _converted(text: str) -> Iterator[str]:
    """The parts of a formula, one after another."""
    place = 0
    while place < len(text):
        char = text[place]
        if script := _script(char):
            end = place + 1
            while end < len(text) and (
                _script(text[end]) == script or _joins(text, end, script)
            ):
                end += 1
            inside = "".join(_symbol(_plain(c)) for c in text[place:end]).strip()
            yield f"{'^' if script == 'super' else '_'}{{{inside}}}"
        elif char in "^_√":
            end, inside = _operand(text, place + 1)
            opening = {"^": "^", "_": "_", "√": r"\sqrt"}[char]
            yield f"{opening}{{{inside}}}"
        elif found := re.compile(r"[A-Za-z][A-Za-z0-9]*").match(text, place):
            end, written = _name(text, found)
            yield written
        else:
            end = place + 1
            yield _symbol(char)
        place = end


def _name(text: str, found: re.Match[str]) -> tuple[int, str]:
    """Where a name ends, and the name: `x_g` has a subscript, `l1_ratio` has none."""
    name, end = found[0], found.end()
    whole = re.compile(r"\w+", re.ASCII).match(text, found.start())
    subscripted = len(name) == 1 or name in _SUBSCRIPTED
    if whole and not (subscripted and whole[0].count("_") < 2):
        name, end = whole[0], whole.end()
    if name in _FUNCTIONS:
        return end, rf"\{name} "
    return end, name if len(name) == 1 else word(name)


def _operand(text: str, place: int) -> tuple[int, str]:
    """Where an exponent, an index or a radicand ends, and its LaTeX."""
    char = text[place] if place < len(text) else ""
    if char in _CLOSING:
        depth, end = 1, place + 1
        while end < len(text) and depth:
            depth += {char: 1, _CLOSING[char]: -1}.get(text[end], 0)
            end += 1
        return end, latex(text[place + 1 : end - 1])
    if found := re.compile(r"[A-Za-z0-9]+").match(text, place):
        name = found[0]
        short = len(name) == 1 or name.isdigit()
        return found.end(), name if short else word(name)
    end = place + 1
    while end < len(text) and _script(text[end]):
        end += 1
    return end, latex(text[place:end])


def _script(char: str) -> str:
    """`"super"` or `"sub"` for a small raised or lowered character, else nothing."""
    kind = unicodedata.decomposition(char).partition(" ")[0].strip("<>")
    return kind if kind in ("super", "sub") else ""


def _joins(text: str, place: int, script: str) -> bool:
    """Whether a sign stands within an index, as in `ᵢ≠ⱼ`."""
    after = text[place + 1 : place + 2]
    return text[place] == "≠" and after != "" and _script(after) == script


def _plain(char: str) -> str:
    return unicodedata.normalize("NFKC", char) if _script(char) else char


def _symbol(char: str) -> str:
    if char in _SYMBOLS:
        return _SYMBOLS[char]
    split = unicodedata.normalize("NFD", char)
    if accent := _ACCENTS.get(split[1:]):
        return rf"\{accent}{{{split[0]}}}"
    name = unicodedata.name(char, "")
    if name.startswith("GREEK "):
        letter = name.split()[-1].replace("LAMDA", "lambda")
        capital = "CAPITAL" in name
        return rf"\{letter.capitalize() if capital else letter.lower()} "
    return char
