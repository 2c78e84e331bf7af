"""The typeset formulas of the docs say what the docstrings say, and none is lost."""

from __future__ import annotations

import importlib
import inspect
import re
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import pytest

from keras_penalties.docstrings import formula
from keras_penalties.explain.notation import LOWERED, RAISED
from keras_penalties.registry import registered

pytestmark = pytest.mark.one_backend

ENTRIES = registered(package="keras_penalties")
BRACKETS = dict.fromkeys(map(ord, "(){} "))


@pytest.fixture(scope="module")
def formulas():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "docs")
        yield importlib.import_module("formulas")


def tree_of(markup: str) -> ElementTree.Element:
    """HTML as XML."""
    attribute = " data-search-exclude"
    return ElementTree.fromstring(markup.replace("<wbr>", "").replace(attribute, ""))


def written(node: ElementTree.Element) -> str:
    """A piece of MathML as text again, without the brackets that only group."""
    parts = [written(child) for child in node]
    if node.tag == "mfrac":
        return f"{parts[0]}/{parts[1]}"
    if node.tag in ("msub", "munder"):
        return f"{parts[0]}_{parts[1]}"
    if node.tag == "msup":
        return f"{parts[0]}^{parts[1]}"
    if node.tag in ("msubsup", "munderover"):
        return f"{parts[0]}_{parts[1]}^{parts[2]}"
    if node.tag == "msqrt":
        return "√" + "".join(parts)
    if node.tag == "mover":
        return parts[0] + {"^": "\u0302", "~": "\u0303", "¯": "\u0304"}[parts[1]]
    return (node.text or "") + "".join(parts)


def plain(text: str) -> str:
    """The text of a formula with one way to write each thing, and no round brackets."""

    text = re.sub(r"\b([A-Za-z]|log_t|exp_t)(\d+)(?!\w)", r"\1_\2", text)
    for sign, known in (("^", RAISED), ("_", LOWERED)):
        run = f"[{''.join(known)}]+(?:≠[{''.join(known)}]+)?"
        text = re.sub(run, lambda m, s=sign: s + m[0], text)
        text = text.translate(str.maketrans(known))
    text = text.replace("½", "1/2").replace("Σ", "∑").replace("-", "−")
    text = re.sub(r"(\^\S)(_\w)", r"\2\1", text)  # ‖x‖²_F is ‖x‖_F²
    return (
        unicodedata.normalize("NFD", text).replace("=\u0338", "≠").translate(BRACKETS)
    )


def spans(entry) -> list[str]:
    """A docstring's code, each piece on one line."""
    doc = inspect.cleandoc(entry.obj.__doc__)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", doc)]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.obj.__name__)
def test_each_formula_is_typeset_and_nothing_of_it_is_lost(formulas, entry):
    codes = [code for code in spans(entry) if formulas.is_formula(code)]
    main = formula(entry.obj)
    assert main in codes or main.isascii()  # such as `y_i = x_i`, which stays code
    for code in codes:
        tree = tree_of(formulas.mathml(code))
        assert written(tree).translate(BRACKETS) == plain(code)


@pytest.mark.parametrize(
    ("code", "above", "below"),
    [
        ("1 − a·b / c·d + e", "a·b", "c·d"),
        ("a·b/c·d", "b", "c"),
        ("r²/2d", "r^2", "2d"),
        ("(x + 1)/(α(α − 1))", "x+1", "α(α−1)"),
        ("∂²f/∂xᵢ²", "∂^2f", "∂x_i^2"),
        ("(Σ|x|)² / Σx²", "(∑|x|)^2", "∑x^2"),
        ("exp(x)/y", "exp(x)", "y"),
        ("Σᵢ﹤ⱼ x/y", "x", "y"),
        ("min(τ / ratio, 1)", "τ", "ratio"),
    ],
)
def test_a_fraction_takes_what_a_reader_takes(formulas, code, above, below):
    tree = tree_of(formulas.mathml(code))
    (fraction,) = tree.iter("mfrac")
    assert [written(part) for part in fraction] == [above, below]


@pytest.mark.parametrize(
    ("code", "between"),
    [
        ("KL(p ‖ q)", True),
        ("P(y > k | y > k−1)", True),
        ("mean|xᵢ − y| − ½·|xᵢ|", False),
        ("‖x − (|y| + b)‖²", False),
    ],
)
def test_only_a_bar_without_a_partner_stands_between(formulas, code, between):
    assert ("lspace" in formulas.mathml(code)) is between


@pytest.mark.parametrize(
    "code",
    ["kernel", "x_i = x", 'InputGradient(d, "l2(γ/2)")', "MCP(λ, width=γ·λ)", "f(…)"],
)
def test_code_stays_code(formulas, code):
    html = f"<p><code>{code}</code></p><pre><code>Σx²</code></pre>"
    assert formulas.on_page_content(html) == html


@pytest.mark.parametrize("code", ["Σ(x", "x)²", "x²…", "Σx ^", "‖x‖ _"])
def test_what_is_no_formula_is_refused(formulas, code):
    with pytest.raises(formulas.NotAFormulaError):
        formulas.mathml(code)
    html = f"<code>{code}</code>"
    assert formulas.on_page_content(html) == html


def test_a_formula_of_a_page_is_typeset(formulas):
    made = formulas.on_page_content("<td><code>Σ [x &lt; ŷ]</code></td>")
    assert made == f"<td>{formulas.mathml('Σ [x < ŷ]')}</td>"
    assert "<mo>&lt;</mo>" in made
