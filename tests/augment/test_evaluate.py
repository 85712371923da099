import numpy as np
import pytest

from lit_splitmask.augment.evaluate import EvalTransform


def test_the_centre_is_cropped() -> None:
    image = np.zeros((100, 200, 3), dtype=np.uint8)
    image[:, 50:150] = 255
    assert (EvalTransform(20, crop_ratio=1.0)(image)[:, 2:-2] == 255).all()
    assert (EvalTransform(20, crop_ratio=0.8)(image) == 255).all()


@pytest.mark.parametrize("shape", [(1, 1), (5, 300), (7, 2), (500, 400)])
def test_images_of_any_size_can_be_evaluated(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 90, dtype=np.uint8)
    crop = EvalTransform(32)(image)
    assert crop.shape == (32, 32, 3)
    assert (crop == 90).all()


def test_downscaling_is_antialiased() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (448, 448, 3), dtype=np.uint8)
    assert EvalTransform(56)(noise).std() < noise.std() / 3
