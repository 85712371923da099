"""Run lengths of masks."""

import numpy as np
import torch

from lit_splitmask.annotations import rle


def test_compressed_runs_are_read_as_pycocotools_does() -> None:
    generator = np.random.default_rng(0)
    for density in (0.0, 0.02, 0.5, 1.0):
        mask = generator.random((37, 53)) < density
        pixels = mask.flatten(order="F")
        ends = np.flatnonzero(np.diff(pixels)) + 1
        runs = np.diff(np.concatenate([[0], ends, [pixels.size]])).tolist()
        expected = [0, *runs] if pixels[0] else runs
        assert rle.run_lengths(rle.encode(torch.from_numpy(mask)[None])[0]["counts"]) == expected
