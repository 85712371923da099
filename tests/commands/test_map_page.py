"""The map of ``embed`` as a page with thumbnails."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lit_splitmask.commands.map_page import thumbnail, write_map_page


@pytest.mark.parametrize("channels", [1, 3])
def test_the_page_holds_its_script_and_its_thumbnails_and_escapes_names(tmp_path: Path, channels: int) -> None:
    pytest.importorskip("bokeh", reason="needs the extra plots")
    small = thumbnail(torch.zeros(channels, 200, 100, dtype=torch.uint8))
    points, labels = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0, -1])
    write_map_page(
        tmp_path / "map.html",
        points,
        labels,
        ["</script><b>"],
        names=["a.png", "b\udcff.png"],
        splits=["train", "val"],
        thumbnails=[small, small],
    )
    text = (tmp_path / "map.html").read_text()
    assert text.count(small.partition(",")[2]) == 2
    assert "</script><b>" not in text
    assert "default-src 'none'" in text
    assert '<script src="' not in text
    assert "<link" not in text
