"""The page of cells: what it packs is what is known, and no name can do anything."""

import base64
import json
import re

import numpy as np
import pandas as pd

from scdyn.plotting import views

EVIL = "</script><script>document.title='evil'</script>"


def content(page):
    text = re.search(r'<script type="application/json" id="cells">(.*?)</script>', page, re.S)
    return json.loads(text[1])


def unpacked(text, kind):
    return np.frombuffer(base64.b64decode(text), dtype=kind)


def make(n=6, **columns):
    layout = np.column_stack([np.arange(n) * 2.0, np.arange(n) * 1.0])
    table = pd.DataFrame(columns, index=[f"c{i}" for i in range(n)])
    return views.render_view("a page", {"UMAP": layout}, table, {"x": "#0072B2"}, "note", 1)


def test_positions_and_values_come_back():
    score = [0.0, 0.5, 1.0, np.nan, 0.25, 1.0]
    found = content(make(label=["x", "y", None, "x", "y", "x"], score=score))
    assert found["cells"] == [f"c{i}" for i in range(6)]
    layout = found["layouts"]["UMAP"]
    xy = unpacked(layout["xy"], "<u2").reshape(6, 2)
    assert layout["ratio"] == 2 and np.allclose(
        xy / 65534 * 10, np.arange(6)[:, None] * 2, atol=1e-3
    )
    label = found["columns"]["label"]
    names = [label["names"][code] for code in unpacked(label["values"], "<u2")]
    assert names == ["x", "y", "", "x", "y", "x"]
    assert label["colours"][label["names"].index("x")] == "#0072B2"
    codes = unpacked(found["columns"]["score"]["values"], "u1")
    assert codes[3] == 255 and np.allclose(
        codes[[0, 1, 2, 4, 5]] / 254, [0, 0.5, 1, 0.25, 1], atol=0.01
    )


def test_a_cell_without_a_position_is_placed_nowhere():
    layout = np.array([[0.0, 0.0], [np.nan, np.nan], [1.0, 1.0]])
    packed = unpacked(views.encode_layout(layout)["xy"], "<u2").reshape(3, 2)
    assert packed.tolist() == [[0, 0], [65535, 65535], [65534, 65534]]


def test_names_are_text_and_nothing_else():
    table = pd.DataFrame({"label": [EVIL, "x"]}, index=[EVIL, "c1"])
    page = views.render_view(EVIL, {"UMAP": np.eye(2)}, table, {}, EVIL, 1)
    assert "<script>document.title" not in page
    assert page.count("<script") == page.count("</script>") == 2  # the data's and the page's own
    found = content(page)
    assert found["cells"][0] == EVIL and EVIL in found["columns"]["label"]["names"]
    # The page's script writes names as text alone.
    assert not re.search(
        r"innerHTML|insertAdjacentHTML|document\.write|eval", page.split('id="cells">')[1]
    )


def test_the_page_asks_for_nothing_outside():
    assert not re.search(r"https?:|src=|href=|import |fetch\(|url\(", make(label=["x"] * 6))


def test_of_too_many_cells_some_are_drawn_and_it_says_so(monkeypatch):
    monkeypatch.setattr(views, "MOST_CELLS", 4)
    page = make(label=list("uvwxyz"))
    assert "4 of 6 cells" in page
    found = content(page)
    label = found["columns"]["label"]
    drawn = [label["names"][code] for code in unpacked(label["values"], "<u2")]
    by_name = dict(zip([f"c{i}" for i in range(6)], "uvwxyz", strict=True))
    assert [by_name[name] for name in found["cells"]] == drawn and len(drawn) == 4
