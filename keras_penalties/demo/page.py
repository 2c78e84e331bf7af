"""The demo's report, a page of HTML."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import keras

from keras_penalties.tables import html_table

STYLE = """
body{font:16px/1.5 sans-serif;color:#1f2933;max-width:60rem;margin:2rem auto;
padding:0 1rem}img{max-width:100%}figure{margin:2rem 0}figcaption{color:#52606d}
table{border-collapse:collapse;display:block;overflow-x:auto}th{text-align:left}
td,th{padding:.2rem 2rem .2rem 0}td+td,th+th{text-align:right}
pre{overflow-x:auto;background:#f5f7fa;padding:1rem;font-size:14px}
"""


def report(
    figures: Sequence[Sequence[str]],
    captions: Mapping[str, str],
    objective: str,
    code: str,
    reloaded: str,
) -> str:
    """The page.

    Args:
        figures: The rows of the table that compares the two models.
        captions: A sentence on each picture, by the name of its file.
        objective: The terms of the penalised model.
        code: The Python code that trained both.
        reloaded: What a fresh process found.
    """
    pictures = "\n".join(
        f"<figure><img src='{name}' alt='{html.escape(text, quote=True)}'>"
        f"<figcaption>{html.escape(text)}</figcaption></figure>"
        for name, text in captions.items()
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>keras_penalties demo</title><style>{STYLE}</style></head><body>
<h1>One autoencoder, without and with penalties</h1>
<p>Both models start at the same weights and see the same 1,500 digits of scikit-learn
in as many steps of plain <code>fit</code>, by Keras {keras.__version__} on
{keras.backend.backend()}. The second one has this beside its loss:</p>
<pre>{html.escape(objective)}</pre>
{html_table(figures)}
{pictures}
<h2>Saved and reloaded</h2>
<p>{html.escape(reloaded)}</p>
<h2>The code that made it</h2>
<pre>{html.escape(code)}</pre>
</body></html>
"""
