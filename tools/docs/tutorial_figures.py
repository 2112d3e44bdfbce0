"""Copy the demo's figures into docs/figures, reduced: the first part of ``make docs-figures``.

Figures without a PNG are rendered from their SVG by Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

WIDTH = 1400
COLOURS = 256
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Path of the demo's figure to its name in docs/figures, in the order of the tutorial.
FIGURES = {
    "ingest/wildtype_1.qc": "qc",
    "grn/embryo/stability": "stability",
    "grn/embryo/network": "network",
    "grn/embryo/regulons": "regulons",
    "pretrain/hybrid/training": "training",
    "embed/hybrid/embryo": "embedding",
    "finetune/fate/task": "task_fate",
    "finetune/knockout/task": "task_knockout",
    "explain/fate/drivers": "drivers",
    "explain/fate/regulons": "regulon_attribution",
    "explain/fate/checks": "checks",
    "explain/fate/in_silico": "in_silico",
    "studies/development/development": "development",
    "studies/development/pseudotime": "pseudotime",
    "studies/development/drivers": "driver_trends",
    "studies/spatial/spatial": "spatial",
    "studies/spatial/coherence": "coherence",
    "studies/perturbation/perturbation": "perturbation",
    "studies/perturbation/maps": "perturbation_maps",
    "studies/perturbation/genes": "perturbation_genes",
}


def draw(svg: Path, folder: Path) -> Path:
    """Render an SVG as a PNG in a folder, at twice its size."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"Rendering {svg} needs one of {', '.join(BROWSERS)} on PATH.")
    header = svg.read_text()[:2000].split("viewBox=", 1)[1]
    width, height = map(float, header.split('"')[1].split()[2:])
    page, picture = folder / "page.html", folder / f"{svg.stem}.png"
    page.write_text(
        f"<body style='margin:0'><img src='{svg.resolve().as_uri()}' style='width:{width}px'>"
    )
    command = [browser, "--headless", "--no-sandbox", "--hide-scrollbars"]
    command += ["--allow-file-access-from-files", "--force-device-scale-factor=2"]
    command += [f"--window-size={round(width)},{round(height)}", f"--screenshot={picture}"]
    subprocess.run([*command, page.as_uri()], check=True, capture_output=True, timeout=120)
    return picture


def shrink(source: Path, target: Path) -> None:
    """Write a picture reduced to a page's width and a palette of colours."""
    with Image.open(source) as picture:
        flat = Image.new("RGB", picture.size, "white")
        flat.paste(picture, mask=picture.getchannel("A") if "A" in picture.getbands() else None)
    if flat.width > WIDTH:
        flat = flat.resize(
            (WIDTH, round(flat.height * WIDTH / flat.width)), Image.Resampling.LANCZOS
        )
    flat.quantize(COLOURS, kmeans=2, dither=Image.Dither.NONE).save(target, optimize=True)


def main() -> None:
    """Copy all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="results of the demo")
    parser.add_argument("figures", type=Path, help="folder of the figures")
    options = parser.parse_args()
    options.figures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        for source, name in FIGURES.items():
            picture = options.results / f"{source}.png"
            if not picture.exists():
                picture = draw(options.results / f"{source}.svg", Path(temporary))
            shrink(picture, options.figures / f"{name}.png")


if __name__ == "__main__":
    main()
