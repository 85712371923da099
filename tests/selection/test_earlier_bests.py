"""Earlier best checkpoints on disk."""

from pathlib import Path

from lit_splitmask.selection.earlier_bests import keep_earlier_best


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_the_oldest_are_deleted_and_forgotten(tmp_path: Path) -> None:
    best, steps = tmp_path / "best.ckpt", list[int]()
    for step in (3, 5, 8, 9):
        best.unlink(missing_ok=True)  # a checkpoint replaces the file, and does not write into it
        best.write_text(f"step {step}")
        steps = keep_earlier_best(best, step, steps, keep=2)
    assert steps == [8, 9]
    assert files(tmp_path) == {"best.ckpt": "step 9", "step-00000008.ckpt": "step 8", "step-00000009.ckpt": "step 9"}
    assert keep_earlier_best(best, 10, steps, keep=0) == []
    assert files(tmp_path) == {"best.ckpt": "step 9"}


def test_a_missing_best_checkpoint_leaves_everything_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "step-00000003.ckpt").write_text("step 3")
    assert keep_earlier_best(tmp_path / "best.ckpt", 5, [3], keep=2) == [3]
    assert files(tmp_path) == {"step-00000003.ckpt": "step 3"}


def test_an_earlier_best_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "best.ckpt").write_text("step 4, written just before a kill")
    (tmp_path / "step-00000003.ckpt").write_text("step 3")
    assert keep_earlier_best(tmp_path / "best.ckpt", 3, [], keep=2) == [3]
    assert (tmp_path / "step-00000003.ckpt").read_text() == "step 3"
