"""Misspelt options, classes and values: what the user probably meant, and no text of jsonargparse's own types."""

from pathlib import Path

import pytest

from lit_splitmask.cli import main

CASES = {
    "--data.bach_size 4": "did you mean batch_size?",
    "--trainer.max_step 3": "did you mean --trainer.max_steps?",
    "--model.optim.lrr 1": "did you mean --model.optim.lr?",
    "--model.objective SplitMsk": "'SplitMsk' for model.objective: did you mean SplitMask? Give one of BEiT, DINO,",
    "--model.objective.tokenizer KMean": "did you mean KMeans?",
    "--data ImageFoldr": "did you mean ImageFolder?",
    "--data.budget 3": "data.budget is 3, but it is set by its parts: --data.budget.images, --data.budget.passes",
    "--trainer.precision 17": "trainer.precision is 17, but must be 64, 32, 16, transformer-engine",
    "--data.num_epochs x": "num_epochs is x, but must be a whole number or null",
    "--config mine.yaml": "The settings do not say how to read the images: give --data ImageFolder",
}


@pytest.mark.parametrize("options", CASES)
def test_a_wrong_option_of_pretrain_is_answered_with_what_was_meant(
    options: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.yaml").write_text("data: {init_args: {batch_size: 4}}")
    recipe = [] if "mine.yaml" in options else ["--recipe", "pretrain.yaml"]
    assert main(["pretrain", "--data.root", "shapes", *recipe, *options.split()]) == 2
    said = capsys.readouterr().err
    assert CASES[options] in said
    assert "NestedArg" not in said
    assert "Subtypes" not in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        ("compare --data.root shapes --sedes 3", "did you mean --seeds?"),
        ("shard shapes --shard_m 3 --out o", "did you mean --shard_mb?"),
        ("fit --model Pretrain --data ImageFolder --trainer.max_step 3", "did you mean --trainer.max_steps?"),
        ("plan shapes --jsn", "did you mean --json?"),
        ("export --weigths f", "did you mean --weights?"),
        ("probe --data.root shapes --kk 3", "did you mean --k?"),
        ("finetune shapes --class_weights balanced", "did you mean --model.class_weights?"),
        ("finetune shapes --model.class_weights balancd", "Did you mean balanced?"),
    ],
)
def test_a_wrong_option_of_other_commands_too(
    command: str, meant: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command.split()) == 2
    assert meant in capsys.readouterr().err
