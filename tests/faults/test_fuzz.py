"""Intact files with a few bytes changed at random, the same ones in every run: none does harm."""

import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hostile_files import backbone, coco_set, dicom, encoded, program, saved
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_hostile_files import outcomes

from lit_splitmask.models import ViT, ViTConfig

Edit = tuple[str, float, bytes]

EDITS = st.lists(
    st.tuples(
        st.sampled_from(["replace", "insert", "remove", "cut", "repeat"]),
        st.floats(0, 1),
        st.one_of(
            st.binary(min_size=1, max_size=8),
            st.sampled_from(
                [b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0" * 8, b"PK\x05\x06", b"*a", b"[[", b'"', b"9" * 400, b"1e999"]
            ),
        ),
    ),
    min_size=1,
    max_size=4,
)


def changed(content: bytes, edits: list[Edit]) -> bytes:
    """The content with edits at places that are given as fractions of its length."""
    for kind, where, value in edits:
        at = int(where * len(content))
        after = {
            "replace": at + len(value),
            "insert": at,
            "remove": at + 4 * len(value),
            "cut": len(content),
            "repeat": at,
        }[kind]
        middle = {"remove": b"", "cut": b"", "repeat": content[at : at + 200] * 20}.get(kind, value)
        content = content[:at] + middle + content[after:]
    return content


@cache
def state() -> bytes:
    return saved(
        {
            "state_dict": dict(
                ViT(ViTConfig(embed_dim=32, depth=1, num_heads=2, patch_size=8, image_size=32)).state_dict()
            )
        }
    )


@cache
def annotations() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        coco_set(Path(folder) / "set")
        stored = json.loads((Path(folder) / "set" / "annotations" / "instances_train.json").read_text())
        return json.dumps(stored).encode()


RECIPE = b"""recipe: splitmask_cpu
model: {backbone: {depth: 1, embed_dim: 32, num_heads: 2}, objective: {class_path: SplitMask, init_args: &a {matching: 1.0}}}
data: {class_path: ImageFolder, init_args: {image_size: 32, budget: {steps: 2}}}
trainer: {max_steps: 2, callbacks: []}
"""
LIST = b"path,label,split,group\n" + b"".join(
    b"shapes/%d.png,%s,train,g%d\n" % (n, b"ab"[n % 2 :][:1], n) for n in range(4)
)

BASES: dict[str, tuple[str, Callable[[], bytes], int]] = {
    "weights": ("weights", cache(backbone), 16),
    "state dict": ("pickles", state, 12),
    "program": ("pickles", cache(program), 8),
    "configuration": ("configurations", lambda: RECIPE, 16),
    "list": ("tables", lambda: LIST, 12),
    "annotations": ("annotations", annotations, 12),
    "image DICOM": ("images", cache(dicom), 6),
    **{
        f"image {kind}": (
            "images",
            cache(lambda kind=kind: encoded(kind, "P" if kind == "GIF" else "RGB", (64, 48))),
            6,
        )
        for kind in ("PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "PPM", "TGA")
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BASES)
def test_changed_files_do_no_harm(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    kind, base, number = BASES[name]

    @settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(EDITS)
    def check(edits: list[Edit]) -> None:
        content = changed(base(), edits)
        folder = tmp_path_factory.mktemp("fuzz")

        def write(path: Path) -> None:
            if kind == "annotations":
                coco_set(path, text=content)
            else:
                path.write_bytes(content)

        for outcome in outcomes(kind, write, folder):
            assert outcome.is_safe, outcome

    check()
