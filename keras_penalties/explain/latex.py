"""Formulas as docstrings write them, in Unicode, as LaTeX."""

from __future__ import annotations

import re
import unicodedata

from keras_penalties.explain.notation import (
    CLOSING,
    NotAFormulaError,
    Piece,
    Pieces,
    read,
)

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
    "←": r"\leftarrow ",
    "×": r"\times ",
    "∫": r"\int ",
    "′": r"\prime ",
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


def latex(formula: str) -> str:
    r"""A formula in plain LaTeX for math mode; other text, such as code, upright.

    Example:
        >>> latex("½·Σᵢ≠ⱼ Cᵢⱼ²")
        '\\frac{1}{2}\\cdot \\sum _{i\\neq j} C_{ij}^{2}'
    """
    try:
        return re.sub(" +", " ", _row(read(formula))).strip()
    except NotAFormulaError:
        return word(formula)


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


def _row(pieces: Pieces) -> str:
    row = ""
    for before, piece in zip((None, *pieces), pieces, strict=False):
        words = before is not None and before.kind == piece.kind == "word"
        row += (r"\ " if words else " ") * piece.spaced + _written(piece)
    return row


def _group(pieces: Pieces) -> str:
    return f"{{{_row(pieces).strip()}}}"


def _written(piece: Piece) -> str:
    """The LaTeX of a piece."""
    if piece.kind == "bracket":
        closing = CLOSING.get(piece.text, piece.text)
        return _symbol(piece.text) + _row(piece.parts[0]) + _symbol(closing)
    if piece.kind == "root":
        return rf"\sqrt{_group(piece.parts[0])}"
    if piece.kind == "fraction":
        return rf"\frac{_group(piece.parts[0])}{_group(piece.parts[1])}"
    if piece.kind == "script":
        base, down, up = piece.parts
        lowered = f"_{_group(down)}" if down else ""
        raised = f"^{_group(up)}" if up else ""
        return _row(base).lstrip() + lowered + raised
    if piece.text in _FUNCTIONS:
        return rf"\{piece.text} "
    if piece.kind in ("word", "indexed"):
        return word(piece.text)
    if piece.kind == "letter":
        return _symbol(piece.text)
    return "".join(_symbol(character) for character in piece.text)


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
