"""Formulas of the docs, typeset: code such as `½·Σ(x − x̂)²` becomes MathML.

A formula is written once, in the docstring or on the page, so that `help()` and the
site cannot disagree. A browser draws MathML by itself, without a script.
"""

from __future__ import annotations

import html
import re
import unicodedata
from typing import Any

from keras_penalties.explain.notation import (
    CLOSING,
    NotAFormulaError,
    Piece,
    Pieces,
    read,
)

ACCENTS = {"\u0302": "^", "\u0303": "~", "\u0304": "¯"}
BREAKS = set("+−-=≠<>≤≥←")
"""The signs before which a line may break, where they stand in no bracket."""
PHONE = 40
"""A formula of more characters must break on a small screen, also before a product."""
UNDER = {"Σ", "max", "mean"}
"""What has its index below it."""


def on_page_content(content: str, **kwargs: Any) -> str:
    """Typeset the formulas of a page; blocks of code stay."""

    def typeset(match: re.Match[str]) -> str:
        code = html.unescape(match[2] or "")
        try:
            return mathml(code) if is_formula(code) else match[0]
        except NotAFormulaError:
            return match[0]

    pattern = r"(<pre\b.*?</pre>)|<code>([^<]*)</code>"
    return re.sub(pattern, typeset, content, flags=re.DOTALL)


def is_formula(code: str) -> bool:
    """Whether a code span is mathematics: it has signs that Python's code has not."""
    signs = not code.replace("…", "").isascii()
    return signs and not re.search(r"""["']|\w=\w""", code)


def mathml(code: str) -> str:
    """A formula as MathML, and `NotAFormulaError` for other text.

    Example:
        >>> mathml("x/2").partition(">")[2]
        '<math><mfrac><mi>x</mi><mn>2</mn></mfrac></math></span>'
    """
    pieces = read(code)
    long = len(code) > PHONE
    body, start, infix = "", 0, False
    for i in range(1, len(pieces) + 1):
        gap = _break(pieces[i - 1], pieces[i], long) if i < len(pieces) else ""
        if gap or i == len(pieces):
            body += f"<math>{_layout(pieces[start:i], infix)}</math>{gap}"
            start, infix = i, i < len(pieces) and pieces[i].kind == "sign"
    return f'<span class="formula" data-search-exclude>{body}</span>'


def _break(before: Piece, piece: Piece, long: bool) -> str:
    """What lets a line break before a piece, or nothing."""
    if piece.sign in BREAKS or (long and piece.sign == "·"):
        return "<wbr>"
    words = long and piece.spaced and not piece.sign and not before.sign
    return " " if words else ""


def _layout(pieces: Pieces, infix: bool = False) -> str:
    """Pieces in a row: words and factors that stand apart in the text do so here too.

    With `infix` the first is a sign after a break of the line: it still has two sides.
    """
    parts: list[str] = []
    for before, piece in zip((None, *pieces), pieces, strict=False):
        if before and piece.spaced and not before.sign and not piece.sign:
            parts.append('<mspace width="0.25em"/>')
        parts.append(_xml(piece))
    if infix:
        parts[0] = f'<mo form="infix">{html.escape(pieces[0].text)}</mo>'
    return _row(parts)


def _row(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"<mrow>{''.join(parts)}</mrow>"


def _xml(piece: Piece) -> str:
    """The MathML of a piece."""
    parts = [_layout(part) if part else "" for part in piece.parts]
    if piece.kind == "bracket":
        left = f'<mo form="prefix">{piece.text}</mo>'
        right = f'<mo form="postfix">{CLOSING.get(piece.text, piece.text)}</mo>'
        return _row([left, parts[0], right])
    if piece.kind == "root":
        return f"<msqrt>{parts[0]}</msqrt>"
    if piece.kind == "fraction":
        return f"<mfrac>{''.join(parts)}</mfrac>"
    if piece.kind == "script":
        return _script(piece.text in UNDER, *parts)
    if piece.kind == "between":
        return f'<mo lspace="0.3em" rspace="0.3em">{piece.text}</mo>'
    return _leaf(piece.kind, piece.text)


def _script(under: bool, base: str, down: str, up: str) -> str:
    tag = ("munder" if under else "msub") if down else ""
    tag += ("over" if under and down else "sup" if down else "msup") if up else ""
    return f"<{tag}>{base}{down}{up}</{tag}>"


def _leaf(kind: str, text: str) -> str:
    """The MathML of a single token."""
    if kind == "number":
        return f"<mn>{text}</mn>"
    if kind in ("raised", "lowered"):
        return _row([_small(part) for part in re.findall(r"\d+|.", text)])
    if kind == "indexed":
        return f"<msub><mi>{text[0]}</mi><mn>{text[1:]}</mn></msub>"
    if kind == "letter":
        letter, *accents = list(unicodedata.normalize("NFD", text))
        over = "".join(f"<mo>{ACCENTS[accent]}</mo>" for accent in accents)
        xml = f"<mi>{letter}</mi>"
        return f'<mover accent="true">{xml}{over}</mover>' if over else xml
    if kind == "half":
        return "<mfrac><mn>1</mn><mn>2</mn></mfrac>"
    shown = {"Σ": "∑", "-": "−"}.get(text, html.escape(text))
    return f"<mi>{shown}</mi>" if kind == "word" else f"<mo>{shown}</mo>"


def _small(text: str) -> str:
    """A number, a letter or a sign of an index."""
    tag = "mn" if text.isdigit() else "mi" if text.isalpha() else "mo"
    return f"<{tag}>{html.escape(text)}</{tag}>"
