"""Formulas as docstrings and pages write them, `½·Σ(x − x̂)²`, read into pieces.

`latex` and the site's MathML, in `docs/formulas.py`, are written from these pieces.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ᵏᵀ′", "0123456789+−kT′", strict=True))
LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎ᵢⱼₖ﹤", "0123456789+−()ijk<", strict=True))
CLOSING = {"(": ")", "[": "]", "{": "}"}
BARS = "‖|"
ENDS = set(f"+−-,:=≠<>≤≥←{BARS}")
"""The signs that end the parts of a fraction whose `/` has spaces around it."""
TOKEN = re.compile(
    rf"""\s*(?:
      (?P<number>\d+(?:\.\d+)?)
    | (?P<raised>[{"".join(RAISED)}]+)
    | (?P<lowered>[{"".join(LOWERED)}]+ (?:≠[{"".join(LOWERED)}]+)?)
    | (?P<half>½)
    | (?P<sign>\*\*? | [-+−·×∘/^_√Σ∫\#,:=≠<>≤≥←()\[\]{{}}{BARS}])
    | (?P<word>[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+){{2,}}
             | [A-Za-z]{{2,}}\d*(?:_[A-Za-z]{{3,}})*  # an index is shorter: `log_t1`
             | [A-Za-z]\d+_[A-Za-z]{{3,}})
    | (?P<indexed>[A-Za-z]\d+)
    | (?P<letter>[^\W\d_][\u0302-\u0304]? | [∂∇])
    )""",
    re.VERBOSE,
)


class NotAFormulaError(ValueError):
    """The text is code or prose: it is not in the language of formulas."""


@dataclass(frozen=True)
class Piece:
    """A piece of a formula, from a single token up to a fraction.

    The kind of a token is the name of its group in `TOKEN`. A "bracket" and a "root"
    have one part, a "fraction" has two, and a "script" has three: what stands on the
    line, what is lowered and what is raised. A bar without a partner is "between".
    """

    kind: str
    text: str
    """How a token is written; the opening of a bracket, what is on a script's line."""
    spaced: bool
    """Whether white space stands before the piece in the text."""
    parts: tuple[Pieces, ...] = ()

    @property
    def sign(self) -> str:
        """The sign that the piece is, with its indices, or nothing."""
        if self.kind == "script":
            return self.parts[0][0].sign
        return self.text if self.kind in ("sign", "between") else ""

    @property
    def bare(self) -> Pieces:
        """The piece without the brackets that a fraction or an index makes needless."""
        needless = self.kind == "bracket" and self.text in ("(", "{")
        return self.parts[0] if needless else (self,)


Pieces = tuple[Piece, ...]


def read(text: str) -> Pieces:
    """The pieces of a formula, and `NotAFormulaError` for other text.

    Example:
        >>> (fraction,) = read("(x + 1)/2")
        >>> [[piece.text for piece in part] for part in fraction.parts]
        [['x', '+', '1'], ['2']]
    """
    return _arranged(_level(_tokens(text.strip())))


def _tokens(text: str) -> list[Piece]:
    tokens, at = [], 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise NotAFormulaError(f"A formula has no '{text[at:].strip()[0]}'.")
        kind, written = match.lastgroup, match[match.lastgroup]
        if kind in ("raised", "lowered"):
            known = RAISED | LOWERED
            written = "".join(known.get(character, character) for character in written)
        tokens.append(Piece(kind, written, match[0][0].isspace()))
        at = match.end()
    return tokens


def _level(tokens: list[Piece], closing: str = "") -> list[Piece]:
    """The pieces up to a closing bracket, whose tokens are taken from the list."""
    pieces: list[Piece] = []
    while tokens:
        token = tokens.pop(0)
        if token.sign and token.sign == closing:
            return pieces
        if token.sign in CLOSING.values():
            raise NotAFormulaError(f"'{token.sign}' closes no bracket.")
        if token.sign in CLOSING:
            token = _bracket(token, _level(tokens, CLOSING[token.sign]))
        pieces.append(token)
    if closing:
        raise NotAFormulaError(f"No '{closing}' closes a bracket.")
    return pieces


def _bracket(opening: Piece, inside: list[Piece]) -> Piece:
    return Piece("bracket", opening.text, opening.spaced, (_arranged(inside),))


def _arranged(pieces: list[Piece]) -> Pieces:
    return tuple(_with_fractions(_with_scripts(_with_bars(pieces))))


def _with_bars(pieces: list[Piece]) -> list[Piece]:
    """Pair the bars, `|x|`; one without a partner stands between: `KL(p ‖ q)`."""
    for bar in BARS:
        at = [i for i, piece in enumerate(pieces) if piece.sign == bar]
        if len(at) % 2:
            for i in at:
                pieces[i] = Piece("between", bar, pieces[i].spaced)
            continue
        for first, last in reversed(list(zip(at[::2], at[1::2], strict=True))):
            inside = pieces[first + 1 : last]
            pieces[first : last + 1] = [_bracket(pieces[first], inside)]
    return pieces


def _with_scripts(pieces: list[Piece]) -> list[Piece]:
    done = []
    while pieces:
        done.append(_scripted(pieces))
    return done


def _scripted(pieces: list[Piece]) -> Piece:
    """Take the next piece with all that is raised and lowered beside it."""
    base = _take(pieces)
    if base.sign == "√":
        return Piece("root", base.text, base.spaced, (_scripted(pieces).bare,))
    down: Pieces = ()
    up: Pieces = ()
    while pieces:
        if pieces[0].kind == "raised":
            up += (_take(pieces),)
        elif pieces[0].kind == "lowered":
            down += (_take(pieces),)
        elif pieces[0].sign in ("^", "**"):
            _take(pieces)
            up += _scripted(pieces).bare
        elif pieces[0].sign == "_":
            _take(pieces)
            down += _take(pieces).bare
        else:
            break
    if not up and not down:
        return base
    return Piece("script", base.text, base.spaced, ((base,), down, up))


def _take(pieces: list[Piece]) -> Piece:
    if not pieces:
        raise NotAFormulaError("Something is missing at the end.")
    return pieces.pop(0)


def _with_fractions(pieces: list[Piece]) -> list[Piece]:
    """Read `a / b` as a fraction of all that no plus, comma or relation ends.

    Without spaces, `a/b`, the parts are what stands close to the sign: `r²/2d`.
    """
    while at := next((i for i, piece in enumerate(pieces) if piece.sign == "/"), None):
        if at + 1 == len(pieces):
            raise NotAFormulaError("Something is missing at the end.")
        wide = pieces[at].spaced
        start, stop = at - 1, at + 1
        while start > 0 and _joined(pieces[start - 1], pieces[start], wide):
            start -= 1
        while stop + 1 < len(pieces) and _joined(pieces[stop], pieces[stop + 1], wide):
            stop += 1
        above, below = (
            part[0].bare if len(part) == 1 else tuple(part)
            for part in (pieces[start:at], pieces[at + 1 : stop + 1])
        )
        fraction = Piece("fraction", "/", pieces[start].spaced, (above, below))
        pieces[start : stop + 1] = [fraction]
    return pieces


def _joined(left: Piece, right: Piece, wide: bool) -> bool:
    """Whether two neighbours are in the same part of a fraction."""
    if wide:
        return left.sign not in ENDS and right.sign not in ENDS
    return not left.sign and not right.sign and not right.spaced
