"""The map of ``embed`` as one HTML page with thumbnails. Needs bokeh (extra ``plots``)."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from lit_splitmask.files import write_atomically

THUMBNAIL = 96
"""Longest side of a thumbnail in pixels."""

MOST_IN_LEGEND = 20

TOOLTIP = """
<div style="max-width: 15rem; overflow-wrap: anywhere">
<img src="@thumbnail" alt="" style="min-width: 96px; image-rendering: pixelated"><br>@name<br>@class_name (@split)
</div>"""
"""What is shown on hover. Bokeh escapes the values."""


NO_NETWORK = (
    """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; """
    """style-src 'unsafe-inline'; img-src data: blob:; font-src data:">"""
)
"""Keeps the page from loading anything: bokeh would fetch MathJax for a name that looks like TeX."""


def thumbnail(image: Tensor) -> str:
    """A small picture of an image (C, H, W) uint8, as a data URI."""
    pixels = image.permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def write_map_page(
    path: Path,
    points: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    names: Sequence[str],
    splits: Sequence[str],
    thumbnails: Sequence[str],
) -> None:
    """Writes the page, which holds its script and its images, atomically.

    Args:
        path: The page.
        points: (n, 2) places on the map.
        labels: (n,) labels, -1 without.
        class_names: Class names by label.
        names: Names of the images.
        splits: The split of each image.
        thumbnails: Data URIs of the images.
    """
    from bokeh.embed import file_html
    from bokeh.models import HoverTool
    from bokeh.palettes import Category20_20
    from bokeh.plotting import ColumnDataSource, figure
    from bokeh.resources import INLINE

    plot = figure(sizing_mode="stretch_both", min_height=400, tools="pan,wheel_zoom,reset", active_scroll="wheel_zoom")
    plot.axis.visible = plot.grid.visible = False
    plot.toolbar.logo = None  # a link to another site
    plot.add_tools(HoverTool(tooltips=TOOLTIP))
    present = np.unique(labels)
    for label in present:
        rows = np.flatnonzero(labels == label).tolist()
        name = class_names[label] if label >= 0 else "no label"
        columns = {
            "x": points[rows, 0],
            "y": points[rows, 1],
            "name": [_plain(names[row]) for row in rows],
            "split": [splits[row] for row in rows],
            "thumbnail": [thumbnails[row] for row in rows],
            "class_name": [_plain(name)] * len(rows),
        }
        legend: dict[str, Any] = {"legend_label": _plain(name)} if len(present) <= MOST_IN_LEGEND else {}
        plot.scatter(
            "x", "y", source=ColumnDataSource(columns), size=7, color=Category20_20[label % 20], alpha=0.8, **legend
        )
    if len(present) <= MOST_IN_LEGEND:
        plot.legend.click_policy = "hide"
        plot.legend.title = "a click hides a class"
    page = file_html(plot, INLINE, _plain(path.stem)).replace("<head>", f"<head>\n{NO_NETWORK}", 1)
    write_atomically(path, page.encode())


def _plain(text: str) -> str:
    """A text as valid UTF-8; names of files may hold other bytes."""
    return text.encode("utf-8", "replace").decode()
