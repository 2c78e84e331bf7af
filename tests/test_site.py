"""The built site: a user's words find the right page, a class names its own file.

No browser runs here. The tests build the site and ask its own index by lunr.py, in the
way in which the script of the theme asks lunr.js: so words, weights and titles are
tested, but neither the script nor the search box.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from keras_penalties.registry import registered

pytest.importorskip("mkdocs")
pytestmark = [pytest.mark.slow, pytest.mark.one_backend]

ENTRIES = registered(package="keras_penalties")
ROOT = Path(__file__).parents[1]
QUESTIONS = {
    "L1 on all Dense kernels": "howto/l2_on_all_layers/",
    "weight decay": "howto/l2_on_all_layers/",
    "VAE": "howto/vae/",
    "KL annealing": "howto/vae/",
    "how do I anneal KL": "howto/vae/",
    "prune": "smaller_models/",
    "quantize": "howto/save_load_export/",
    "ONNX": "howto/save_load_export/",
    "LoRA": "howto/lora/",
    "fine-tune": "fine_tuning/",
    "EWC": "fine_tuning/",
    "focal loss": "howto/class_weights/",
    "missing labels": "howto/missing_labels/",
    "unknown labels": "howto/missing_labels/",
    "distillation": "howto/distillation/",
    "gradient penalty GAN": "howto/gan/",
    "TensorBoard": "howto/tensorboard_tuner/",
    "multi-output": "howto/two_outputs/",
    "FAQ": "howto/",
    "group lasso": "reference/penalty/",
    "nuclear norm": "reference/penalty/",
    "kl_sparsity": "reference/penalty/",
    "sparse autoencoder": "dictionaries/",
}


class Search:
    """The index of a site, asked as mkdocs-material's `search/_/index.ts` asks it."""

    def __init__(self, site: Path) -> None:
        lunr = pytest.importorskip("lunr")
        index = json.loads((site / "search" / "search_index.json").read_text())
        self.config = index["config"]
        self.docs = {doc["location"]: doc for doc in index["docs"]}
        builder = lunr.get_default_builder("en")
        for known in (builder.pipeline, builder.search_pipeline):
            known.reset()
        builder.pipeline.add(lunr.stop_word_filter.stop_word_filter)
        builder.ref("location")
        for name in ("title", "text"):
            builder.field(name, boost=self.config["fields"][name]["boost"])
        builder.b(0)
        for doc in index["docs"]:
            entry = {name: self.words(doc[name]) for name in ("title", "text")}
            entry["location"] = doc["location"]
            builder.add(entry, {"boost": doc.get("boost", 1)})
        self.index = builder.build()

    def words(self, text: str) -> str:
        parts = re.split(self.config["separator"], re.sub("<[^>]*>", " ", text))
        return " ".join(part for part in parts if part)

    def pages(self, question: str) -> list[str]:
        """The pages in the order in which the box shows them."""
        words = self.words(question).lower().split()
        best: dict[str, float] = defaultdict(float)
        for hit in self.index.search(" ".join(f"{word}*" for word in words)):
            terms = hit["match_data"].metadata
            found = sum(any(t.startswith(w) for t in terms) for w in words) / len(words)
            page, _, section = hit["ref"].partition("#")
            score = hit["score"] * (1 + ((not section) + found) ** 2)
            best[page] = max(best[page], score)
        return sorted(best, key=best.__getitem__, reverse=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", site]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return site


@pytest.fixture(scope="module")
def search(site):
    return Search(site)


@pytest.mark.parametrize(("question", "page"), QUESTIONS.items())
def test_a_question_finds_its_page_among_the_first_three(search, question, page):
    assert page in search.pages(question)[:3]


def test_nothing_is_found_where_nothing_is(search):
    assert search.pages("xylophone") == []


@pytest.mark.parametrize("kind", sorted({entry.kind for entry in ENTRIES}))
def test_the_reference_names_the_file_of_each_class(site, kind):
    page = (site / "reference" / kind / "index.html").read_text()
    for entry in ENTRIES:
        if entry.kind == kind:
            name = f"{entry.obj.__module__}.{entry.obj.__name__}"
            section = page.partition(f'<h2 id="{name}"')[2].partition("<h2 id=")[0]
            file = entry.obj.__module__.replace(".", "/")
            assert f"Source code in <code>{file}.py<" in section


def test_nothing_is_fetched_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loads = re.findall(r"<(?:script|link|img)\b[^>]*>", page.read_text())
        assert len(loads) > 2
        assert not [tag for tag in loads if re.search("(src|href)=.?https?:", tag)]
