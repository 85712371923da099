"""Every recipe that is shipped is parsed, and trains two steps on a tiny backbone."""

import shlex
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from reference.tiny_methods import METHODS
from replicas import REPLICAS
from scenes import write_scenes
from tiny_runs import one_thread  # noqa: F401

from lit_splitmask import datamodules
from lit_splitmask.cli import main
from lit_splitmask.commands import recipe_choice, recipes, tables
from lit_splitmask.commands.request import Request
from lit_splitmask.commands.tasks.registry import TASKS, classifier_recipe
from lit_splitmask.datamodules import glance
from lit_splitmask.datamodules.paper import TABLE_9
from lit_splitmask.errors import UserError

MakeFolder = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

ALL = recipes.available()
COMPARISONS = [name for name in ALL if name.startswith("compare")]
PRETRAINING = recipes.pretraining_recipes()
FINETUNING = [name for name in ALL if name.startswith(("finetune", "joint", "self_training"))]
SEGMENTING = [name for name in ALL if name.startswith("segment")]
REGRESSION = [name for name in ALL if name.startswith("regress")]  # trained in commands/test_regression_commands.py
DETECTION = [name for name in ALL if name.startswith("detect")]  # trained in test_detection_recipes.py

TINY = """--model.backbone.embed_dim 32 --model.backbone.depth 2 --model.backbone.num_heads 2 --model.backbone.patch_size 8
--data.image_size 32 --data.batch_size 4 --data.num_workers 0 --data.budget.steps 2 --trainer.accelerator cpu"""
OPTIONS_OF = {class_name: METHODS[method].recipe_options for method, class_name in recipes.methods().items()}
"""Options that shrink a method's own networks, by the class of its objective."""
SIZE = "--model.backbone.size tiny"


@pytest.fixture
def root(class_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return class_folder(per_class=5)


def test_there_are_recipes_for_every_command() -> None:
    assert sorted(COMPARISONS + PRETRAINING + FINETUNING + SEGMENTING + DETECTION + REGRESSION) == ALL
    assert COMPARISONS
    assert PRETRAINING
    assert FINETUNING
    assert SEGMENTING


@pytest.mark.parametrize("name", ALL)
def test_a_recipe_opens_with_what_it_is_and_how_to_launch_it(name: str) -> None:
    text = (files("lit_splitmask.recipes") / f"{name}.yaml").read_text()
    header = [line for line in text.splitlines() if line.startswith("#")]
    assert text.startswith("# ")
    assert len(header[0]) > 20
    assert "Expected:" in text or "expected:" in text
    assert any(f"lit-splitmask {command}" in text for command in ("pretrain", "finetune", "compare")) or "make " in text


@pytest.mark.parametrize("name", PRETRAINING + FINETUNING + SEGMENTING + DETECTION + REGRESSION + COMPARISONS)
def test_the_command_in_a_recipe_names_the_recipe_itself(name: str) -> None:
    text = (files("lit_splitmask.recipes") / f"{name}.yaml").read_text()
    for line in text.splitlines():
        if line.startswith("#") and "--recipe" in line:
            words = shlex.split(line.lstrip("# "))
            assert words[words.index("--recipe") + 1] == name


def images_for(name: str, root: Path) -> Path:
    """A replica of the dataset that a recipe is for, or the folder of shapes."""
    dataset = recipes.read(name)["data"]["class_path"]
    if dataset not in REPLICAS:
        return root
    REPLICAS[dataset](root.parent / "replica")
    return root.parent / "replica"


def smaller(recipe: dict[str, Any]) -> str:
    """The command line that shrinks a pre-training recipe."""
    return f"{TINY} {SIZE} {OPTIONS_OF[recipe['model']['objective']['class_path']]}"


def test_every_method_with_recipes_is_tested() -> None:
    assert recipes.methods().keys() == METHODS.keys()


@pytest.mark.parametrize("name", [name for name in PRETRAINING if name != "beit_dalle"])
def test_a_pretraining_recipe_trains(name: str, root: Path) -> None:
    assert train("pretrain", name, images_for(name, root), smaller(recipes.read(name))) == 0
    assert Path("runs/x/backbone.safetensors").is_file()


@pytest.mark.parametrize("name", FINETUNING)
def test_a_fine_tuning_recipe_trains(name: str, root: Path) -> None:
    assert train("finetune", name, images_for(name, root), f"{TINY} {SIZE}") == 0
    assert Path("runs/x/classifier.safetensors").is_file()


@pytest.mark.parametrize("name", SEGMENTING)
def test_a_segmentation_recipe_trains(name: str, root: Path) -> None:
    scenes = write_scenes(root.parent / "scenes", {"train": 4, "val": 2})
    deep = TINY.replace("depth 2", "depth 4")
    assert train("finetune", name, scenes, f"{deep} {SIZE} --model.channels 8 --data.short_side 40") == 0
    assert Path("runs/x/segmenter.safetensors").is_file()


def test_the_segmentation_of_ade20k_has_the_papers_schedule() -> None:
    recipe, partner = recipes.read("segment_ade20k"), recipes.read("splitmask_ade20k")
    data, model = recipe["data"]["init_args"], recipe["model"]
    assert (data["budget"], data["batch_size"], data["image_size"]) == ({"steps": 160_000}, 16, 512)
    assert round(model["optim"]["warmup"] * 160_000) == 1500
    assert (model["optim"]["schedule"], model["optim"]["min_lr"]) == ("poly", 0.0)
    for key in ("size", "positions"):
        assert model["backbone"][key] == partner["model"]["backbone"][key]
    assert recipe_choice.finetuning("splitmask_ade20k").name == "segment_ade20k"


def test_every_dataset_of_the_paper_has_its_recipes() -> None:
    datasets = {recipes.read(name)["data"]["class_path"] for name in PRETRAINING}
    assert set(REPLICAS) <= datasets
    tuned = {recipes.read(name)["data"]["class_path"] for name in FINETUNING}
    titles = {getattr(datamodules, name).facts.title: name for name in REPLICAS}
    assert {titles[title] for title in TABLE_9} <= tuned


@pytest.mark.parametrize(
    ("name", "dataset"),
    [("splitmask_cars", "StanfordCars"), ("splitmask_ade20k", "ADE20K"), ("finetune_inat2018", "INaturalist2018")],
)
def test_a_recipe_keeps_what_its_base_says(name: str, dataset: str) -> None:
    recipe, base = (
        recipes.read(name),
        recipes.read({"splitmask_cars": "splitmask_small_set"}.get(name, name.split("_")[0])),
    )
    assert recipe["data"]["class_path"] == dataset
    assert "recipe" not in recipe
    assert recipe["data"]["init_args"]["batch_size"] == base["data"]["init_args"]["batch_size"]
    changed = {"finetune_inat2018": "repeats", "splitmask_ade20k": "max_scale"}.get(name)
    given = (
        recipe["data"]["init_args"]["augment"]["init_args"].keys()
        - base["data"]["init_args"]["augment"]["init_args"].keys()
    )
    assert given == ({changed} if changed else set())


@pytest.mark.parametrize("name", [name for name in FINETUNING if name.startswith("finetune")])
def test_a_fine_tuning_recipe_goes_with_a_pre_training_one(name: str) -> None:
    partner = name.replace("finetune_few", "finetune").replace("finetune", "splitmask", 1)
    assert partner in PRETRAINING
    labels = 5.0 if "few" in name else None
    assert recipe_choice.for_few_labels(recipe_choice.finetuning(partner), labels).name == name


def choice_for(root: Path, *options: str) -> recipe_choice.Choice:
    """What finetune chooses for a folder without a GPU."""
    request = Request.read("finetune", ["--data.root", str(root), *options])
    return classifier_recipe("splitmask_cpu", root, request)


@pytest.mark.parametrize(
    ("train", "share", "name"),
    [
        (49, "1", "finetune_few_cpu"),
        (50, "1", "finetune_cpu"),
        (51, "1", "finetune_cpu"),
        (51, "0.9", "finetune_few_cpu"),
        (51, "0.99", "finetune_cpu"),
    ],
)
def test_fewer_than_50_labels_a_class_have_a_recipe_of_their_own(
    train: int, share: str, name: str, tmp_path: Path
) -> None:
    for split, count in {"train": train, "val": 2, "test": 60}.items():
        for kind in ("cat", "dog"):
            folder = tmp_path / "pets" / split / kind
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number}.jpg").touch()
    choice = choice_for(tmp_path / "pets", "--data.label_share", share)
    assert choice.name == name
    labels = round(train * float(share))
    assert (f"about {labels} labels per class, fewer than 50, for the network" in choice.reason) == ("few" in name)


@pytest.mark.parametrize(("per_class", "name"), [(69, "finetune_few_cpu"), (72, "finetune_cpu")])
def test_images_that_will_be_held_out_are_not_counted_as_labels(per_class: int, name: str, tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        (tmp_path / "pets" / kind).mkdir(parents=True)
        for number in range(per_class):
            (tmp_path / "pets" / kind / f"{number}.jpg").touch()
    assert choice_for(tmp_path / "pets").name == name  # seven tenths are for training


def test_recipes_without_a_variant_for_few_labels_stay(tmp_path: Path) -> None:
    few = [
        recipe_choice.for_few_labels(recipe_choice.finetuning(name), 5).name
        for name in ("splitmask_tiny_images", "splitmask")
    ]
    assert few == ["finetune_tiny_images", "finetune_few"]
    assert recipe_choice.for_few_labels(recipe_choice.Choice("finetune_cpu", "asked for"), None).name == "finetune_cpu"


@pytest.mark.parametrize(("weights", "name"), [([], "finetune_cpu"), (["--weights", "w"], "finetune_few_cpu")])
def test_few_labels_have_their_recipe_after_a_pre_training_only(weights: list[str], name: str, root: Path) -> None:
    choice = TASKS["classify"].default_recipe(Request.read("finetune", ["--data.root", str(root), *weights]))
    assert choice.name == name
    assert ("labels per class, fewer than 50, " in choice.settings()[1]) == bool(weights)


@pytest.mark.parametrize("share", ["0", "2", "some"])
def test_a_share_of_the_labels_that_is_none_is_reported_as_ever(
    share: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = f"{TINY} {SIZE} --data.label_share {share} --name few".split()
    assert main(["finetune", "--data.root", str(root), *options]) != 0
    assert "label_share" in capsys.readouterr().err


def parts_of(recipe: dict[str, Any]) -> list[str]:
    """The trainings of a comparison, in their order."""
    return [part for part in ("pretrain", "finetune", "joint", "self_training") if part in recipe]


@pytest.mark.parametrize("name", COMPARISONS)
def test_all_parts_of_a_comparison_train_with_every_point_of_the_grid(name: str, root: Path) -> None:
    recipe = recipes.comparison(name)
    assert len(recipe["grid"]) >= (1 if name == "compare_digits" else 2)  # the demo has no time to tune
    for part in parts_of(recipe):
        command = "pretrain" if part == "pretrain" else "finetune"
        Path(f"{part}.yaml").write_text(yaml.safe_dump(recipe[part]))
        point = {} if part == "pretrain" else recipe["grid"][0]
        given = " ".join(f"--{key} {value}" for key, value in point.items())
        options = smaller(recipe[part]) if part == "pretrain" else f"{TINY} {SIZE}"
        assert train(command, f"{part}.yaml", root, f"{options} {given} --name {part}") == 0
    for point in recipe["grid"]:
        given = " ".join(f"--{key} {value}" for key, value in point.items())
        assert train("finetune", "finetune.yaml", root, f"{TINY} {given} --print_config") == 0


@pytest.mark.parametrize("name", COMPARISONS)
def test_all_arms_of_a_comparison_have_the_same_network(name: str) -> None:
    recipe = recipes.comparison(name)
    given = [recipe[part]["model"].get("backbone", {}) for part in parts_of(recipe)]
    shared = {"size": "small", "patch_size": 16}
    ours, *theirs = ({**shared, **{k: v for k, v in shape.items() if k != "drop_path"}} for shape in given)
    assert all(shape == ours for shape in theirs)
    assert len({recipe[part]["data"]["init_args"]["image_size"] for part in parts_of(recipe)}) == 1


@pytest.mark.parametrize("name", COMPARISONS)
def test_joint_training_differs_from_fine_tuning_by_its_objective_and_its_mixture_only(name: str) -> None:
    recipe = recipes.comparison(name)
    beside = {part: recipe[part] for part in parts_of(recipe)[2:]}
    assert beside
    for part, settings in beside.items():
        method = settings["model"].pop("auxiliary")["class_path"]
        assert method in (("SelfTraining",) if part == "self_training" else ("MAE", "InstanceDiscrimination"))
        settings["model"].pop("auxiliary_weight", None)
        if method != "MAE":  # shares the mixed images with the labels
            assert settings["model"].pop("cutmix") == 1.0
            settings["model"]["cutmix"] = recipe["finetune"]["model"]["cutmix"]
        assert settings["data"]["init_args"].pop("unlabelled_share") == 0.5
        assert settings == recipe["finetune"]


@pytest.mark.parametrize("name", COMPARISONS)
def test_a_comparison_scales_passes_so_it_counts_in_them(name: str) -> None:
    assert recipes.comparison(name)["finetune"]["data"]["init_args"]["budget"].keys() == {"passes"}


def train(command: str, recipe: str, root: Path, options: str) -> int:
    arguments = [command, "--recipe", recipe, "--data.root", str(root), "--name", "x", *options.split()]
    return main(arguments)


@pytest.mark.parametrize(
    ("num_images", "median_side", "gpu", "name"),
    [
        (1_797, 8, False, "splitmask_tiny_images"),
        (1_000_000, 32, True, "splitmask_tiny_images"),
        (2_000, 40, False, "splitmask_cpu"),
        (1_000_000, 500, False, "splitmask_cpu"),
        (500, 500, True, "splitmask_own"),
        (49_999, 224, True, "splitmask_own"),
        (50_000, 224, True, "splitmask_own_large"),
        (1_281_167, 400, True, "splitmask_own_large"),
    ],
)
def test_the_choice_follows_size_number_and_machine(num_images: int, median_side: int, gpu: bool, name: str) -> None:
    choice = recipe_choice.choose(num_images, median_side, gpu)
    assert choice.name == name
    assert f"{num_images:,} images" in choice.reason


@pytest.mark.parametrize("median_side", [8, 64, 500])
@pytest.mark.parametrize("num_images", [100, 100_000])
@pytest.mark.parametrize("gpu", [False, True])
def test_every_choice_is_shipped_with_its_comparison(num_images: int, median_side: int, gpu: bool) -> None:
    name = recipe_choice.choose(num_images, median_side, gpu).name
    assert name in PRETRAINING
    assert name.replace("splitmask", "compare", 1) in COMPARISONS


@pytest.mark.parametrize(("num_images", "batch"), [(3, 2), (80, 64), (159, 64), (160, 128), (2_000, 128)])
def test_a_chosen_recipe_has_no_image_twice_in_a_batch(num_images: int, batch: int) -> None:
    settings, reason = recipe_choice.choose(num_images, 300, gpu=False).settings()
    assert settings["data"]["init_args"]["batch_size"] == batch
    assert (f"in batches of {batch}" in reason) == (batch < 128)
    asked = recipe_choice.Choice("splitmask_cpu", "asked for").settings()
    assert asked == (recipes.read("splitmask_cpu"), "asked for")


def test_a_chosen_fine_tuning_has_no_image_twice_in_a_batch_either(class_folder: MakeFolder) -> None:
    folder = class_folder(per_class=8)
    num_images = glance(str(folder)).num_images
    request = Request.read("finetune", ["--data.root", str(folder)])
    settings, reason = TASKS["classify"].default_recipe(request).settings()
    assert 0.4 * num_images <= settings["data"]["init_args"]["batch_size"] <= 0.8 * num_images
    assert "exceed the number of training images" in reason


def test_the_settings_of_a_method_take_reading_its_recipe_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, usual, seen = recipes.read("splitmask_cpu"), recipes.read_settings, []
    monkeypatch.setattr(recipes, "read_settings", lambda path: (seen.append(Path(path).stem), usual(path))[1])
    recipes.with_method(ours, "mae", "cpu")
    assert seen == ["mae_cpu", "splitmask_cpu"]  # from which it starts
    with pytest.raises(UserError, match="no method 'finetune' to compare with: choose one of beit, dino"):
        recipes.with_method(ours, "finetune", "cpu")


@pytest.mark.parametrize("name", COMPARISONS)
@pytest.mark.parametrize("method", [method for method in METHODS if method != "splitmask"])
def test_compared_methods_share_what_the_comparison_is_not_about(name: str, method: str) -> None:
    recipe = recipes.comparison(name)
    ours, suffix = recipe["pretrain"], recipe.get("methods")
    own = recipes.read(f"{method}_{suffix}" if suffix else method)
    theirs = recipes.with_method(ours, method, suffix)
    assert theirs["model"]["optim"] == own["model"]["optim"]
    assert theirs["trainer"].get("gradient_clip_val") == own.get("trainer", {}).get("gradient_clip_val")
    assert theirs["model"]["backbone"]["drop_path"] == own["model"]["backbone"].get("drop_path", 0.0)
    if method == "beit":
        assert (
            theirs["model"]["objective"]["init_args"]["tokenizer"]
            == ours["model"]["objective"]["init_args"]["tokenizer"]
        )
    augment, flip = (
        theirs["data"]["init_args"]["augment"],
        ours["data"]["init_args"]["augment"]["init_args"].get("hflip"),
    )
    settings = augment["init_args"]
    crops = [settings[crop] for crop in ("first", "second", "local") if crop in settings] or [settings]
    assert [crop.get("hflip") for crop in crops] == [flip] * len(crops)
    assert (len(crops) > 1) == (augment["class_path"] == "MultiCrop")


@pytest.mark.parametrize(
    ("name", "partner"), [("mae_cpu", "finetune_cpu"), ("mae", "finetune"), ("splitmask_cars", "finetune_cars")]
)
def test_a_fine_tuning_goes_with_each_pre_training(name: str, partner: str) -> None:
    assert recipe_choice.finetuning(name).name == partner


def test_a_recipe_is_read_by_path_too(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("trainer: {max_steps: 3}")
    assert recipes.read(str(path)) == {"trainer": {"max_steps": 3}}


@pytest.mark.parametrize("text", ["", "- 1\n- 2", "just text"])
def test_a_file_without_settings_is_no_recipe(text: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="no settings"):
        recipes.read(str(path))


def test_the_page_of_datasets_is_made_from_what_the_code_uses() -> None:
    page = Path(__file__).parents[1] / "docs" / "datasets.md"
    assert page.read_text() == tables.page(), "run: python -m lit_splitmask.commands.tables > docs/datasets.md"


def test_table_9_is_the_papers() -> None:
    rows = {row[0]: row[1:] for row in tables.table_9()}
    assert rows[""] == [
        "iNaturalist 2018",
        "iNaturalist 2019",
        "Food-101",
        "Stanford Cars",
        "Clipart",
        "Painting",
        "Sketch",
    ]
    assert rows["learning rate"] == ["0.00014"] * 3 + ["0.004"] * 4
    assert rows["layer decay"] == ["none"] * 3 + ["0.65"] * 4
    assert rows["warm-up epochs"] == ["5"] * 3 + ["60"] * 4
    assert rows["copies of an image in a row"] == ["3"] * 3 + ["1"] * 4
    assert rows["RandAugment"] == ["`rand-m7-mstd0.5-inc1`"] * 3 + ["`rand-m9-mstd0.5-inc1`"] * 4
    same = {"epochs": "300", "batch size": "1,024", "weight decay": "0.05", "label smoothing": "0.1"}
    same |= {"stochastic depth": "0.1", "mixup, cutmix": "0.8, 1", "test crop ratio": "0.875"}
    assert {key: set(rows[key]) for key in same} == {key: {value} for key, value in same.items()}


@pytest.mark.parametrize(
    ("num_images", "gpu", "names"),
    [
        (100, True, ("segment_own", "detect_own")),
        (20_000, True, ("segment_ade20k", "detect_coco_3x")),
        (100, False, ("segment_cpu", "detect_cpu")),
        (20_000, False, ("segment_cpu", "detect_cpu")),
    ],
)
def test_annotated_images_are_trained_on_by_their_number(num_images: int, gpu: bool, names: tuple[str, str]) -> None:
    chosen = recipe_choice.choose_segmentation(num_images, gpu), recipe_choice.choose_detection(num_images, gpu)
    assert tuple(one.name for one in chosen) == names
