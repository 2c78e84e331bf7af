"""What the docs take from elsewhere: the root's pages, and the registry's reference.

A registered object gets its row and its section by being registered. The build fails
where its docstring lacks what a reader needs.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import keras_penalties
from keras_penalties.config import arguments
from keras_penalties.docstrings import formula, summary
from keras_penalties.registry import Entry, registered

ROOT = Path(__file__).parents[1]
ROOT_PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
TITLES = {
    "penalty": "Penalties",
    "loss": "Losses",
    "layer": "Layers",
    "model": "Models",
    "optimizer": "Optimizers",
    "strength": "Strengths",
    "schedule": "Schedules",
    "metric": "Metrics",
    "callback": "Callbacks",
    "object": "Other classes",
}


def on_config(config: Any) -> Any:
    """Refuse an object that is not documented; add the reference and the version."""
    from mkdocs.exceptions import PluginError

    faults = [fault for entry in own_entries() for fault in problems(entry)]
    if faults:
        raise PluginError("\n".join(["These docstrings are not whole:", *faults]))
    config.nav.insert(-2, {"Reference": list(reference_pages())})
    config.site_name += f" {keras_penalties.__version__}"
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made here."""
    from mkdocs.structure.files import File

    for path, source in ROOT_PAGES.items():
        text = with_sources(from_root((ROOT / source).read_text()))
        files.append(File.generated(config, path, content=text))
    for path, text in reference_pages().items():
        files.append(File.generated(config, path, content=text))
    return files


# What a reader who searches wants first, and last: factors of a page's score.
SEARCH_BOOSTS = {"howto/": 2.0, "changelog.md": 0.2, "campaign.md": 0.2}


def on_page_markdown(text: str, page: Any, **kwargs: Any) -> None:
    """Say how high the search puts a page."""
    for start, boost in SEARCH_BOOSTS.items():
        if page.file.src_uri.startswith(start):
            page.meta["search"] = {"boost": boost}


def on_page_content(content: str, **kwargs: Any) -> str:
    """Keep source code, which says all words, out of the search."""
    opening = '<details class="mkdocstrings-source"'
    return content.replace(opening, f"{opening} data-search-exclude")


def own_entries(kind: str | None = None) -> list[Entry]:
    """What this package registers, whatever a user's import may have added."""
    return list(registered(kind, keras_penalties.__name__))


def problems(entry: Entry) -> list[str]:
    """What a registered object's docstring lacks, a line each."""
    doc = inspect.cleandoc(entry.obj.__doc__ or "")
    own = arguments(entry.obj) if inspect.isclass(entry.obj) else []
    missing = [
        f"`{name}` under Args" for name in own if not _explained(entry.obj, name)
    ]
    if "Example:\n    >>> " not in doc:
        missing.append("an Example with `>>>`")
    if entry.kind in ("penalty", "loss"):
        if not formula(entry.obj):
            missing.append("its formula: code after a colon, or opening a paragraph")
        # What only composes other penalties has no paper of its own.
        composed = entry.kind == "penalty" and "strength" not in own
        if not composed and "\nSource: " not in doc:
            missing.append("a Source")
    if entry.kind == "loss":
        missing += [w for w in ("Shapes:", "Raises:") if f"\n{w}" not in doc]
    if entry.kind not in TITLES:
        missing.append(f"a page for its kind, '{entry.kind}', in TITLES")
    return [f"{entry.key} lacks {w}" for w in missing + _no_section(entry, own, doc)]


def _explained(cls: type, argument: str) -> bool:
    """Whether a class explains an argument, or takes it as a base that explains it.

    A class takes arguments as its base does if it has no constructor of its own, or
    says so of its `**kwargs`.
    """
    docs = [inspect.cleandoc(base.__doc__ or "") for base in cls.__mro__]
    passes = "__init__" not in vars(cls) or _explains(docs[0], "**kwargs")
    return any(_explains(doc, argument) for doc in (docs if passes else docs[:1]))


def _explains(doc: str, argument: str) -> bool:
    section = re.search(r"^Args:((?:\n    .*|\n)+)", doc, re.MULTILINE)
    return section is not None and f"\n    {argument}: " in section[1]


# Which kinds of objects must say which shapes they take, and what they refuse.
SECTIONS = {
    "Shapes": {"penalty", "loss", "layer"},
    "Raises": {
        "penalty",
        "loss",
        "layer",
        "optimizer",
        "schedule",
        "strength",
        "object",
    },
}


def _no_section(entry: Entry, own: list[str], doc: str) -> list[str]:
    """The sections that a docstring lacks; without arguments nothing is refused."""
    lacks = {name for name in SECTIONS if not re.search(rf"^{name}:", doc, re.M)}
    if not own:
        lacks.discard("Raises")
    return [
        f"`{name}:`"
        for name in SECTIONS
        if name in lacks and entry.kind in SECTIONS[name]
    ]


def reference_pages() -> dict[str, str]:
    """The text of each reference page by its path."""
    pages = {"reference/package.md": _package_page()}
    for kind, title in TITLES.items():
        if entries := own_entries(kind):
            sections = [_section(entry.obj) for entry in entries]
            prefix = f"{keras_penalties.__name__}>"
            key = f"The Keras key of a class is `{prefix}` and the name of the class."
            head = [f"# {title}", "", key, ""]
            text = "\n".join([*head, *_table(entries), "", *sections])
            pages[f"reference/{kind}.md"] = text
    return pages


def _table(entries: list[Entry]) -> Iterator[str]:
    """What a page has, a row each: of penalties also their use, and their maps."""
    penalties = entries[0].kind == "penalty"
    head = ["class", "string name", "what it is"]
    head += ["use when", "proximal map"] if penalties else []
    yield _row(head) + "\n" + _row(["---"] * len(head))
    for entry in entries:
        obj = entry.obj
        shown = summary(obj)
        if "`" not in shown and formula(obj):
            shown = f"{shown.rstrip('.:')}: `{formula(obj)}`"
        link = f"[{obj.__name__}](#{_path(obj)})"
        # Within code a bar is a bar; elsewhere it would end the cell.
        shown = re.sub(r"(`[^`]*`)|\|", lambda m: m[1] or r"\|", shown)
        cells = [link, f"`{entry.name}`", shown]
        yield _row([*cells, _use(obj), _has_map(obj)] if penalties else cells)


def _use(penalty: Any) -> str:
    """When to use a penalty, as the page on the choice says."""
    page = (ROOT / "docs" / "which_penalty.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|", page, re.MULTILINE)
    name = (
        " \\+ " if penalty.__name__ == "Sum" else f"`{penalty.__name__}\\b(?!.* \\+ )"
    )
    return "; ".join(use for use, which in rows if re.search(name, which))


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _has_map(penalty: Any) -> str:
    known = {example.has_prox for example in penalty.examples()}
    return "by its parts" if len(known) > 1 else "yes" if known == {True} else "no"


def _package_page() -> str:
    """The functions and base classes: what is public but not in the registry."""
    known = [entry.obj for entry in own_entries()]
    fronts = [vars(keras_penalties)[name] for name in keras_penalties.__all__]
    fronts = [keras_penalties, *(m for m in fronts if isinstance(m, ModuleType))]
    public: dict[Any, str] = {}
    for front in fronts:
        for name in front.__all__:
            obj = vars(front)[name]
            # A type such as `Literal["layer"]` can be called, but is neither.
            if (inspect.isclass(obj) or inspect.isroutine(obj)) and obj not in known:
                public.setdefault(obj, f"{front.__name__}.{name}")
    sections = [_section(obj, name) for obj, name in public.items()]
    return "\n".join(["# Functions and bases", "", *sections])


def _section(obj: Any, heading: str | None = None) -> str:
    """An object's docstring, and those of the methods that no base of it has."""
    members = []
    if inspect.isclass(obj):
        inherited = {name for base in obj.__mro__[1:] for name in dir(base)}
        public = [name for name in vars(obj) if not name.startswith("_")]
        members = [
            n for n in public if n not in inherited and callable(getattr(obj, n))
        ]
    options = {"members": members, "heading": heading or obj.__name__}
    return f"::: {_path(obj)}\n    options: {json.dumps(options)}\n"


def _path(obj: Any) -> str:
    return f"{obj.__module__}.{obj.__qualname__}"


def from_root(text: str) -> str:
    """A page of the root as a page of the docs: its relative links lead on."""
    moved = {source: path for path, source in ROOT_PAGES.items()}

    def link(match: re.Match[str]) -> str:
        before, label, target = match.groups()
        path, _, anchor = target.partition("#")
        if ":" in target or not path:
            return match[0]
        if path in moved or path.startswith("docs/"):
            path = moved.get(path, path.removeprefix("docs/"))
            return f"{before}[{label}]({path}{'#' if anchor else ''}{anchor})"
        return label  # a file of the repository, which the site does not hold

    return re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", link, text)


def with_sources(text: str) -> str:
    """Put a class's source where `<!-- source of module.Class -->` stands."""

    def source(match: re.Match[str]) -> str:
        module, _, name = match[1].rpartition(".")
        obj = getattr(importlib.import_module(module), name)
        return f"```python\n{inspect.getsource(obj)}```"

    return re.sub(r"<!-- source of (\S+) -->", source, text)
