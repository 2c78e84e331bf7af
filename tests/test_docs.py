"""The docs: their code runs, their links lead somewhere, every object is in them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from keras_penalties.registry import Entry, registered, snake_case

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference(hooks):
    """The text of each reference page by its path, written once for all objects."""
    return hooks.reference_pages()


# A page takes a process and some seconds; CI runs them all.
CODE = [
    pytest.param(p, marks=[] if p.name == "README.md" else pytest.mark.slow)
    for p in PAGES
    if blocks(p, "python")
]


@pytest.mark.parametrize("page", CODE, ids=page_id)
def test_the_code_of_a_page_runs(page, fresh_process):
    # A process of its own: what a page registers would stay in this one.
    printed = fresh_process("\n".join(blocks(page, "python")), MPLBACKEND="agg")
    for shown in blocks(page, "text"):
        assert shown.strip() in printed


def test_the_readme_has_code_that_runs():
    assert blocks(ROOT / "README.md", "python")


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_relative_links_lead_to_files(page):
    targets = re.findall(r"\]\(([^)\s:#]+)[)#]", page.read_text())
    made = ("reference/",)  # by docs/hooks.py
    missing = [
        t for t in targets if not t.startswith(made) and not (page.parent / t).exists()
    ]
    assert not missing


def test_the_menu_has_every_page(hooks):
    menu = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))
    docs = [p.relative_to(ROOT) for p in PAGES if p.parent != ROOT]
    written = {p.relative_to("docs").as_posix() for p in docs}
    assert menu == written | set(hooks.ROOT_PAGES)


def test_the_choice_of_a_penalty_has_every_penalty():
    page = (ROOT / "docs" / "which_penalty.md").read_text()
    known = registered("penalty", "keras_penalties")
    absent = [e.obj.__name__ for e in known if f"`{e.obj.__name__}" not in page]
    assert absent == ["Sum"]  # which `+` makes


@pytest.mark.parametrize(
    "entry", registered(package="keras_penalties"), ids=lambda e: e.obj.__name__
)
def test_every_registered_object_is_documented(hooks, reference, entry):
    assert hooks.problems(entry) == []
    page = reference[f"reference/{entry.kind}.md"]
    path = f"{entry.obj.__module__}.{entry.obj.__name__}"
    assert f"](#{path}) | `{entry.name}` |" in page
    assert f"\n::: {path}\n" in page


def test_a_bare_docstring_is_refused(hooks):
    class Bare:
        """Says nothing, not even its formula."""

        def __init__(self, strength, width=1.0):
            pass

    entry = Entry("some>Bare", snake_case("Bare"), "penalty", Bare)
    words = [
        "`strength`",
        "`width`",
        "Example",
        "formula",
        "Source",
        "Shapes",
        "Raises",
    ]
    found = hooks.problems(entry)
    assert len(found) == len(words)
    assert all(word in line for word, line in zip(words, found, strict=True))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("layer", ["`Shapes:`", "`Raises:`"]),
        ("optimizer", ["`Raises:`"]),
        ("schedule", ["`Raises:`"]),
        ("callback", []),
    ],
)
def test_shapes_and_raises_are_asked_of_each_kind_that_has_them(hooks, kind, expected):
    class Told:
        """Says all but its shapes and what it refuses.

        Args:
            width: A number.

        Example:
            >>> Told(1)
        """

        def __init__(self, width):
            pass

    class Plain(Told):
        __doc__ = Told.__doc__ + "\n        Shapes: any, unchanged.\n"

        def __init__(self):
            pass

    def lacks(cls):
        return hooks.problems(Entry("some>Told", "told", kind, cls))

    assert lacks(Told) == [f"some>Told lacks {what}" for what in expected]
    assert lacks(Plain) == []  # without arguments there is nothing to refuse


def test_an_option_counts_as_documented_where_kwargs_and_a_base_are(hooks):
    class Base:
        """A base.

        Args:
            name: For logs.
        """

        def __init__(self, name=None):
            pass

    class Kept(Base):
        """Says that it takes the base's.

        Args:
            **kwargs: As in `Base`.
        """

        def __init__(self, **kwargs):
            super().__init__(**kwargs)

    class Silent(Base):
        """Says nothing of what it passes on."""

        def __init__(self, **kwargs):
            super().__init__(**kwargs)

    def lacks(cls):
        return any("`name`" in p for p in hooks.problems(Entry("a>b", "b", "", cls)))

    assert [lacks(cls) for cls in (Base, Kept, Silent)] == [False, False, True]


def test_a_page_of_the_root_finds_its_way_in_the_docs(hooks):
    text = "[a](CONTRIBUTING.md#x) ![b](docs/b.png) [c](LICENSE) [d](https://d.org/e)"
    expected = "[a](contributing.md#x) ![b](b.png) c [d](https://d.org/e)"
    assert hooks.from_root(text) == expected


def test_contributing_shows_a_real_penalty(hooks):
    text = hooks.with_sources((ROOT / "CONTRIBUTING.md").read_text())
    assert "```python\n@register\nclass HuberL1(" in text
