"""Which method to pre-train with on few images, at an equal number of images seen and at equal time.

Compares training from scratch, SplitMask, MAE, BEiT, DINO and MoCo v3 with the same small ViT on TrashNet, by fine-tuned and
k-NN test accuracy and by paired differences to SplitMask. All jobs run through ``lit-splitmask compare`` and ``probe``;
finished ones are not run again:

    python benchmarks/comparison.py run --root trashnet6 --out runs/methods       # about 80 minutes on one core
    python benchmarks/comparison.py report --out runs/methods

At equal time, the passes of each method are chosen so that its pre-training lasts as long as SplitMask's, by steps that are timed
in turn, and training from scratch lasts as long as SplitMask's pre-training and fine-tuning together.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from lightning import Callback, LightningModule, Trainer

from lit_splitmask import modules
from lit_splitmask.callbacks import ExportWeights
from lit_splitmask.cli import main as command
from lit_splitmask.commands import recipes
from lit_splitmask.commands.run_cli import RunCLI, trainer_defaults
from lit_splitmask.commands.run_folder import RunFolder
from lit_splitmask.comparison import mean_and_sd, paired_difference

LABELS = {"pretrained": "SplitMask", "scratch_long": "scratch, equal total time"}
FOLDERS = {"pretrained": "pretrain", "scratch": "untrained"}
METHODS = ["mae", "beit", "dino", "mocov3"]
PASSES = 30
SEEDS = 3
STEPS_PER_PASS = 1_766 / 128
ROUNDS, TIMED_STEPS = 3, 40


def write_recipe(path: Path) -> None:
    """Writes the comparison recipe for CPUs with a shorter budget and a smaller grid."""
    recipe = recipes.comparison("compare_cpu")
    recipe["pretrain"]["data"]["init_args"]["budget"] = {"passes": PASSES}
    recipe["pretrain"]["data"]["init_args"]["num_epochs"] = 10
    recipe["finetune"]["data"]["init_args"]["budget"] = {"passes": 20}
    recipe["finetune"]["data"]["init_args"]["num_epochs"] = 10
    recipe["grid"] = recipe["grid"][:2]
    del recipe["joint"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(recipe))


def run(root: str, out: Path) -> None:
    """Runs both comparisons and all probes."""
    recipe = out / "recipe.yaml"
    if not recipe.exists():
        write_recipe(recipe)
    command = ["compare", "--data.root", root, "--recipe", str(recipe), "--seeds", str(SEEDS), "--out", str(out)]
    run_command([*command, "--methods", json.dumps(METHODS), "--equal_time", "false"])
    run_command([*command, "--methods", json.dumps(METHODS + for_equal_time(root, out)), "--equal_time", "true"])
    for seed in range(SEEDS):
        export_untrained(root, out, seed)
        for folder in ("untrained", "pretrain", *METHODS, *for_equal_time(root, out)):
            probe(root, out / f"{folder}-seed{seed}")


def export_untrained(root: str, out: Path, seed: int) -> None:
    """Exports the network before any training."""
    folder = RunFolder(out / f"untrained-seed{seed}")
    recipe = recipes.comparison(str(out / "recipe.yaml"))["pretrain"]
    _, module, _ = RunCLI(modules.Pretrain, [f"--data.root={root}", f"--model.seed={seed}"], recipe).build(folder, [])
    ExportWeights(str(folder.path / "backbone.safetensors")).export(module, step=0)


class Times(Callback):
    """Notes the seconds before training and the end of each step."""

    def __init__(self) -> None:
        self.created = time.perf_counter()
        self.ends: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.prepared = time.perf_counter() - self.created

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.ends.append(time.perf_counter())

    @property
    def step(self) -> float:
        """Seconds of the median step, without the first ones, which are slower."""
        return statistics.median(later - earlier for earlier, later in itertools.pairwise(self.ends[5:]))


def time_method(root: str, out: Path, recipe: dict[str, Any]) -> Times:
    """Times a few steps of a pre-training, and what precedes them, such as k-means."""
    arguments = [f"--data.root={root}", f"--data.index_dir={out / 'data'}", f"--data.budget.steps={TIMED_STEPS}"]
    arguments += [
        "--trainer.logger=false",
        "--trainer.enable_checkpointing=false",
        "--trainer.enable_progress_bar=false",
    ]
    with tempfile.TemporaryDirectory() as directory:
        cli = RunCLI(modules.Pretrain, [*arguments, "--data.num_epochs=1"], recipe)
        trainer, module, data = cli.build(RunFolder(Path(directory)), [])
        data.prepare_data()
        trainer.callbacks.append(times := Times())
        trainer.fit(module, datamodule=data)
    return times


def for_equal_time(root: str, out: Path) -> list[str]:
    """The methods with the passes that take as long as SplitMask; their steps are timed in turn, and only once."""
    known = out / "equal-time.json"
    if not known.exists():
        recipe = recipes.comparison(str(out / "recipe.yaml"))
        ours = {**recipe["pretrain"], "trainer": {**trainer_defaults(), **recipe["pretrain"].get("trainer", {})}}
        methods = {"pretrain": ours, **{name: recipes.with_method(ours, name, recipe["methods"]) for name in METHODS}}
        rounds = [{name: time_method(root, out, settings) for name, settings in methods.items()} for _ in range(ROUNDS)]
        step = {name: statistics.median(times[name].step for times in rounds) for name in methods}
        before = {name: statistics.median(times[name].prepared for times in rounds) for name in methods}
        print({name: (round(before[name], 1), round(step[name], 3)) for name in methods})
        passes = {
            name: (before["pretrain"] - before[name] + PASSES * STEPS_PER_PASS * step["pretrain"])
            / (STEPS_PER_PASS * step[name])
            for name in METHODS
        }
        known.write_text(json.dumps([f"{name}@{value:.1f}" for name, value in passes.items()]))
    return list(json.loads(known.read_text()))


def run_command(arguments: list[str]) -> None:
    """Runs lit-splitmask; exits if it fails."""
    if code := command(arguments):
        raise SystemExit(code)


def probe(root: str, folder: Path) -> None:
    """Measures k-NN and linear accuracy of the frozen features."""
    if (folder / "probe" / "probe.json").exists():
        return
    index = str(folder.parent / "data")
    arguments = ["probe", "--weights", str(folder / "backbone.safetensors"), "--data.root", root, "--blocks", "false"]
    run_command([*arguments, "--data.index_dir", index, "--out", str(folder / "probe")])


def report(root: str, out: Path) -> None:
    """Prints two tables in Markdown."""
    found = json.loads((out / "comparison.json").read_text())["results"][0]["arms"]
    arms = {arm["name"]: arm for arm in found}
    ours = accuracies(arms["pretrained"])
    for title, methods in (("equal images", METHODS), ("equal time", for_equal_time(root, out))):
        print(
            f"\n{title}\n\n| pre-training | fine-tuned, % | minus SplitMask | k-NN, % | linear, % | minutes of pre-training |"
        )
        print("|---|---|---|---|---|---|")
        for name in ("scratch", *(["scratch_long"] if title == "equal time" else []), "pretrained", *methods):
            fine = accuracies(arms[name])
            cells = [spread(fine.values()), "" if name == "pretrained" else str(paired_difference(ours, fine))]
            cells += ["", "", ""] if name == "scratch_long" else frozen(out, FOLDERS.get(name, name))
            print(f"| {LABELS.get(name, name)} | {' | '.join(cells)} |")


def frozen(out: Path, folder: str) -> list[str]:
    """k-NN and linear accuracy, and the minutes of pre-training."""
    paths = [out / f"{folder}-seed{seed}" / "probe" / "probe.json" for seed in range(SEEDS)]
    probes = [json.loads(path.read_text()) for path in paths]
    scores = [spread(one[kind]["accuracy"] for one in probes) for kind in ("knn", "linear")]
    if folder == "untrained":
        return [*scores, ""]
    results = [json.loads((out / f"{folder}-seed{seed}" / "result.json").read_text()) for seed in range(SEEDS)]
    fastest = min(result["seconds"] for result in results)  # the run least disturbed by other programs
    return [*scores, f"{fastest / 60:.1f}"]


def accuracies(arm: dict[str, Any]) -> dict[int, float]:
    """Test accuracy by seed."""
    return {int(seed): value for seed, value in arm["accuracy"].items()}


def spread(values: Any) -> str:
    """Mean and standard deviation in percent."""
    mean, sd = mean_and_sd([100 * value for value in values])
    return f"{mean:.1f} ± {sd:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["run", "report"])
    parser.add_argument("--root", default="trashnet6")
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    args = parser.parse_args()
    if args.stage == "run":
        run(args.root, args.out)
    report(args.root, args.out)


if __name__ == "__main__":
    main()
