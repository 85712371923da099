"""Errors of the user: one paragraph on stderr, no files left behind, none overwritten."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_runs import BACKBONE, pretrain_module

from lit_splitmask.checkpoints import save_backbone
from lit_splitmask.cli import main
from lit_splitmask.models import ViT, ViTConfig
from lit_splitmask.tokenizers import KMeans

MakeFolder = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

PRETRAIN = ["pretrain", "--recipe", "pretrain.yaml", "--data.root", "shapes", "--name", "x"]
FINETUNE = ["finetune", "--recipe", "finetune.yaml", "--data.root", "shapes", "--name", "x"]


class Refused:
    """Runs a command that must fail, and checks its error and the files."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: str, code: int = 1, says: tuple[str, ...] = ()) -> str:
        before = {
            path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file() and "data" not in path.parts
        }
        self.capsys.readouterr()
        assert main(list(arguments)) == code
        error = self.capsys.readouterr().err
        paragraph = error[error.index("error: ") :].strip()
        assert "Traceback" not in error
        assert "\n\n" not in paragraph
        assert len(paragraph) < 1_200
        for part in says:
            assert part in paragraph, paragraph
        after = {
            path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file() and "data" not in path.parts
        }
        assert after == before
        return paragraph


@pytest.fixture
def refused(work: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    return Refused(capsys)


@pytest.mark.parametrize("command", ["pretrain", "finetune", "compare"])
def test_a_folder_that_does_not_exist(command: str, refused: Refused) -> None:
    refused(command, "--data.root", "no/such", says=("no/such", "does not exist"))


@pytest.mark.parametrize("command", [PRETRAIN, FINETUNE])
def test_a_folder_that_does_not_exist_with_a_recipe(command: list[str], refused: Refused) -> None:
    refused(*command, "--data.root", "no/such", says=("no/such", "does not exist"))


@pytest.mark.parametrize("command", [PRETRAIN, FINETUNE, ["pretrain"], ["compare"]])
def test_a_folder_without_images(command: list[str], refused: Refused) -> None:
    Path("empty").mkdir()
    Path("empty/notes.txt").write_text("no image")
    refused(*command, "--data.root", "empty", says=("empty",))


@pytest.mark.parametrize("command", ["pretrain", "finetune", "compare"])
def test_no_folder_at_all(command: str, refused: Refused) -> None:
    assert main([command]) in (1, 2)
    error = refused.capsys.readouterr().err
    assert "Traceback" not in error
    assert "--data.root" in error


def test_a_single_class(refused: Refused) -> None:
    for number, file in enumerate(sorted(Path("shapes/disc").iterdir())):
        folder = Path("one") / ("train", "val", "test")[number % 3] / "disc"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder)
    refused(*FINETUNE, "--data.root", "one", says=("at least two classes",))


def test_images_without_labels_for_fine_tuning(refused: Refused, flat_folder: MakeFolder) -> None:
    flat_folder()
    refused(*FINETUNE, "--data.root", "flat_shapes", says=("at least two classes", "folder"))


def test_a_validation_class_that_training_lacks(refused: Refused, split_folder: MakeFolder) -> None:
    root = split_folder()
    (root / "val" / "disc").rename(root / "val" / "circle")
    refused(*FINETUNE, "--data.root", str(root), says=("circle", "train lacks"))


def test_weights_that_do_not_exist(refused: Refused) -> None:
    refused(*FINETUNE, "--weights", "no.safetensors", says=("no.safetensors", "check the path"))


def test_weights_of_another_width(refused: Refused) -> None:
    save_backbone("wide.safetensors", ViT(ViTConfig(image_size=32, **{**BACKBONE, "embed_dim": 64})))
    refused(*FINETUNE, "--weights", "wide.safetensors", says=("wide.safetensors", "64", "width 32"))


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_weights_of_another_kind_of_network(kind: str, refused: Refused) -> None:
    state = {"conv1.weight": torch.zeros(8, 3, 7, 7), "bn1.weight": torch.zeros(8), "fc.weight": torch.zeros(2, 8)}
    if kind == "pt":
        torch.save(state, "resnet.pt")
    else:
        save_file(state, "resnet.safetensors")
    refused(*FINETUNE, "--weights", f"resnet.{kind}", says=("no Vision Transformer", "conv1.weight"))


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt", "weights.ckpt"])
def test_weights_that_are_damaged(name: str, refused: Refused) -> None:
    Path(name).write_bytes(b"not weights at all" * 10)
    refused(*FINETUNE, "--weights", name, says=(name, "damaged"))


def test_an_image_size_that_patches_do_not_divide(refused: Refused) -> None:
    refused(*PRETRAIN, "--data.image_size", "36", says=("36", "patches of 8", "32", "40"))


@pytest.mark.parametrize("size", ["0", "-8"])
def test_an_image_size_that_is_not_positive(size: str, refused: Refused) -> None:
    refused(*PRETRAIN, "--data.image_size", size, says=(size,))


def test_an_odd_number_of_patches_under_block_masks(refused: Refused) -> None:
    refused(*PRETRAIN, "--data.image_size", "24", "--model.objective.masking", "BlockMasking", says=("3×3",))


def test_an_odd_patch_size(refused: Refused) -> None:
    arguments = ["--data.image_size", "35", "--model.backbone.patch_size", "7"]
    refused(*PRETRAIN, *arguments, says=("patch size must be even", "7"))


def test_a_run_that_exists(refused: Refused) -> None:
    Path("runs/x").mkdir(parents=True)
    Path("runs/x/precious.txt").write_text("mine")
    refused(*PRETRAIN, says=("runs/x", "already exists", "--name", "--resume"))
    refused(*FINETUNE, says=("runs/x", "already exists"))


def test_resuming_a_run_that_does_not_exist(refused: Refused) -> None:
    refused("pretrain", "--name", "x", "--resume", says=("no run", "runs/x"))
    refused("finetune", "--name", "x", "--resume", says=("no run", "runs/x"))


def test_resuming_without_a_name(refused: Refused) -> None:
    refused("pretrain", "--resume", says=("--name",))


def test_lightnings_commands_check_their_checkpoint_too(refused: Refused) -> None:
    Path("broken.ckpt").write_bytes(b"nothing")
    for path in ("broken.ckpt", "missing.ckpt"):
        refused("test", "--ckpt_path", path, says=(path,))
    refused("fit", "--ckpt_path", "last", says=("give the path of the checkpoint",))


def test_a_codebook_for_other_patches(refused: Refused) -> None:
    tokenizer = KMeans(8, vocabulary=16, pixels="centred")
    tokenizer.set_codebook(torch.rand(16, 192))
    tokenizer.save("codebook.safetensors")
    option = "--model.objective.tokenizer.codebook_file"
    refused(*PRETRAIN, option, "codebook.safetensors", says=("codebook.safetensors", "patch_size 8 instead of 4"))


def test_a_codebook_that_is_a_backbone(refused: Refused) -> None:
    save_backbone("backbone.safetensors", pretrain_module().vit)
    option = "--model.objective.tokenizer.codebook_file"
    refused(*PRETRAIN, option, "backbone.safetensors", says=("holds no codebook",))


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("--model.objective", "SplitMsk"),
        ("--model.objective.tokenizer", "KMean"),
        ("--model.objective.masking", "Uniform"),
        ("--data", "ImageFoldr"),
        ("--model.objective", "no.such.module.Class"),
        ("--model.objective", "lit_splitmask.masking.Nope"),
    ],
)
def test_an_unknown_class(option: str, name: str, refused: Refused) -> None:
    refused(*PRETRAIN, option, name, code=2, says=(name, "no class"))


def test_an_unknown_module_under_lightnings_commands(refused: Refused) -> None:
    refused("fit", "--model", "Pretrian", "--data", "ImageFolder", code=2, says=("Pretrian",))


@pytest.mark.parametrize("option", ["--no_such_option", "--model.optim.learning_rate", "--data.pixels"])
def test_an_unknown_option(option: str, refused: Refused) -> None:
    refused(*PRETRAIN, f"{option}=3", code=2, says=(option.rsplit(".", 1)[-1].lstrip("-"),))


def test_an_unknown_option_of_compare(refused: Refused) -> None:
    assert main(["compare", "--data.root", "shapes", "--sheds", "2"]) == 2
    error = refused.capsys.readouterr().err
    assert "sheds" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--data.batch_size", "many"),
        ("--model.optim.lr", "fast"),
        ("--model.backbone.size", "huge"),
        ("--resume", "maybe"),
        ("--trainer.max_steps", "1.5"),
        ("--model.objective.tokenizer.vocabulary", "big"),
    ],
)
def test_a_value_of_the_wrong_type(option: str, value: str, refused: Refused) -> None:
    refused(*PRETRAIN, option, value, code=2, says=(value, option.rsplit(".", 1)[-1].lstrip("-")))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--model.optim.lr", "-1"),
        ("--model.optim.warmup", "2"),
        ("--data.batch_size", "0"),
        ("--data.label_share", "2"),
        ("--data.budget.steps", "0"),
        ("--model.objective.tokenizer.vocabulary", "1"),
        ("--model.backbone.num_heads", "5"),
    ],
)
def test_a_value_out_of_range(option: str, value: str, refused: Refused) -> None:
    refused(*PRETRAIN, option, value, says=(value,))
    assert not Path("runs/x").exists()


@pytest.mark.parametrize("command", ["pretrain", "finetune", "compare"])
def test_an_unknown_recipe(command: str, refused: Refused) -> None:
    known = "splitmask_cpu"
    refused(command, "--data.root", "shapes", "--recipe", "splitmsk", says=("splitmsk", known, "lit-splitmask recipes"))
    refused(command, "--data.root", "shapes", "--recipe", "\u20ac\u20ac", says=("lit-splitmask recipes lists.",))


def test_a_recipe_that_is_not_yaml(refused: Refused) -> None:
    Path("bad.yaml").write_text("model: [1, 2\ndata: }")
    refused("pretrain", "--data.root", "shapes", "--recipe", "bad.yaml", says=("bad.yaml", "not valid YAML"))


def test_a_recipe_of_another_command(refused: Refused) -> None:
    refused("compare", "--data.root", "shapes", "--recipe", "splitmask_cpu", says=("not for compare", "grid"))


@pytest.mark.parametrize(
    ("command", "recipe", "intended"),
    [
        ("pretrain", "finetune_cpu", "finetune"),
        ("pretrain", "compare_cpu", "compare"),
        ("finetune", "mae_cpu", "pretrain"),
        ("finetune", "compare_cpu", "compare"),
        ("plan", "segment_cpu", "finetune"),
    ],
)
def test_a_recipe_for_another_training(command: str, recipe: str, intended: str, refused: Refused) -> None:
    refused(
        command, "--data.root", "shapes", "--recipe", recipe, says=(f"{recipe} is a recipe for {intended}, not for",)
    )


def test_too_few_patches_for_the_vocabulary(refused: Refused) -> None:
    option = "--model.objective.tokenizer.vocabulary"
    refused(*PRETRAIN, option, "5000", says=("k-means", "5,000", "smaller vocabulary"))
    assert not Path("runs/x").exists()


def test_two_budgets_at_once(refused: Refused) -> None:
    refused(*PRETRAIN, "--data.budget.steps", "3", "--data.budget.passes", "2", says=("steps=3", "passes=2"))


def test_a_name_can_be_used_again_after_an_error(refused: Refused) -> None:
    refused(*PRETRAIN, "--model.objective.tokenizer.vocabulary", "5000")
    assert main([*PRETRAIN, "--data.budget.steps", "1"]) == 0


def test_a_classifier_is_tested_on_other_classes(refused: Refused, split_folder: MakeFolder) -> None:
    assert main([*FINETUNE, "--data.budget.steps", "2"]) == 0
    shutil.copytree("shapes", "renamed")
    Path("renamed/disc").rename("renamed/circle")
    arguments = ["test", "--config", "runs/x/predict.yaml", "--data.root", "renamed"]
    refused(*arguments, says=("disc", "circle"))


def test_errors_leave_no_folder_behind(refused: Refused) -> None:
    refused(*PRETRAIN, "--data.image_size", "36")
    refused(*FINETUNE, "--weights", "no.safetensors")
    refused(*PRETRAIN, "--data.batch_size", "many", code=2)
    assert not Path("runs").exists()
