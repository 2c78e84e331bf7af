"""The answer of `keras-penalties inspect`, for programs and for people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_penalties_cli.inspection.archive import Refused, SavedModel, opened
from keras_penalties_cli.inspection.hosts import Term
from keras_penalties_cli.inspection.objective import (
    data_losses,
    optimizers,
    terms_and_faults,
)
from keras_penalties_cli.inspection.risks import notes
from keras_penalties_cli.inspection.saved import Saved, number, printable, shown, word


def inspected(path: Path) -> dict[str, Any]:
    """All that the file says of its objective, ready for JSON.

    Raises:
        Refused: if it is no saved model, or none that is read.
    """
    with opened(path) as model:
        try:
            terms, faults = terms_and_faults(model)
            root = Saved(model.config)
            return {
                "file": str(path),
                "model": {"class": root.name, "name": root.own_name or None},
                "keras_version": _said(model, "keras_version"),
                "saved": _said(model, "date_saved"),
                "losses": [
                    {"output": x.output or None, "loss": shown(x.loss)}
                    | {"weight": _finite(x.weight)}
                    for x in data_losses(model)
                ],
                "terms": [_term(term) for term in terms],
                "optimizers": optimizers(model),
                "notes": [{"kind": n.kind, "text": n.text} for n in notes(model)],
                "unread": [*model.unread, *faults],
            }
        except RecursionError:  # the depth is bounded, so this is a fault of ours
            raise Refused("the config is nested too deep") from None


def _said(model: SavedModel, name: str) -> str | None:
    return word(model.metadata.get(name)) or None


def _term(term: Term) -> dict[str, Any]:
    given = number(term.given)
    return {
        "name": term.name,
        "host": term.host,
        "target": term.target,
        "penalty": shown(term.penalty, without=() if given is None else ("strength",)),
        "strength": {
            "now": _finite(term.now),
            "built_with": shown(term.given) if given is None else _finite(given),
            "step": term.step,
            "text": printable(term.strength),
        },
        "acts": term.acts,
    }


def _finite(value: float | None) -> float | str | None:
    """JSON has no infinite number."""
    return value if value is None or math.isfinite(value) else str(value)


def printed(report: dict[str, Any]) -> str:
    """The answer as text."""
    return printable_lines(_lines(report))


def printable_lines(lines: Iterator[str]) -> str:
    """Lines that show a file's names, without what a terminal would obey."""
    return "\n".join(printable(line) for line in lines)


def _lines(report: dict[str, Any]) -> Iterator[str]:
    model = report["model"]
    name = f" '{model['name']}'" if model["name"] else ""
    version = f", Keras {report['keras_version']}" if report["keras_version"] else ""
    date = f", saved {report['saved']}" if report["saved"] else ""
    yield f"{report['file']}: {model['class']}{name}{version}{date}"
    yield from _section("Data losses", map(_loss_line, report["losses"]))
    if not report["losses"]:
        yield from ("", "The file names no data loss: the model was not compiled.")
    if report["terms"]:
        head = ("term", "strength", "target", "host", "acts", "penalty")
        rows = [
            (
                term["name"],
                term["strength"]["text"],
                term["target"],
                term["host"],
                "yes" if term["acts"] else "no: frozen",
                term["penalty"],
            )
            for term in report["terms"]
        ]
        yield from _section("Terms", _table([head, *rows]))
    else:
        yield from ("", "No penalty and no regularizer is in the config.")
    yield from _section("Optimizer", map(_optimizer_line, report["optimizers"]))
    yield from _section("To know before loading", (n["text"] for n in report["notes"]))
    yield from _section("Not read", report["unread"])


def _section(title: str, lines: Any) -> Iterator[str]:
    found = list(lines)
    if found:
        yield ""
        yield title
        yield from (f"  {line}" for line in found)


def _loss_line(loss: dict[str, Any]) -> str:
    output = f"{loss['output']}: " if loss["output"] else ""
    weight = "" if loss["weight"] is None else f", weight {loss['weight']:.6g}"
    return f"{output}{loss['loss']}{weight}"


def _optimizer_line(optimizer: dict[str, Any]) -> str:
    settings = ", ".join(f"{k}={v}" for k, v in list(optimizer["settings"].items())[:8])
    decay = optimizer["weight_decay"]
    says = f", with weight decay {decay:.6g}" if decay else ""
    return f"{optimizer['class']}({settings}){says}"


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    rows = [tuple(printable(cell) for cell in row) for row in rows]
    widths = [min(max(map(len, column)), 60) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(n) for cell, n in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
