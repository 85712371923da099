"""Which method to pre-train with on few images: equal images seen, and equal time.

From scratch, SplitMask, MAE, BEiT, DINO and MoCo v3 with the same small ViT on TrashNet; fine-tuned and k-NN test accuracy, with
paired differences to SplitMask. All of it goes through ``lit-splitmask compare`` and ``probe``; what is finished is kept:

    python benchmarks/comparison.py run --root trashnet6 --out runs/methods       # about 80 minutes on one core
    python benchmarks/comparison.py report --out runs/methods

In the part with equal time, each method's passes are such that its pre-training lasts as long as SplitMask's did.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

from lit_splitmask.cli import main as command
from lit_splitmask.commands import recipes
from lit_splitmask.comparison import mean_and_sd, paired_difference

METHODS = ["mae", "beit", "dino", "mocov3"]
PASSES = 30
SEEDS = 3


def write_recipe(path: Path) -> None:
    """The comparison for CPUs with a shorter budget and a smaller grid."""
    recipe = recipes.comparison("compare_cpu")
    recipe["pretrain"]["data"]["init_args"]["budget"] = {"passes": PASSES}
    recipe["pretrain"]["data"]["init_args"]["num_epochs"] = 10
    recipe["finetune"]["data"]["init_args"]["budget"] = {"passes": 20}
    recipe["finetune"]["data"]["init_args"]["num_epochs"] = 10
    recipe["grid"] = recipe["grid"][:2]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(recipe))


def seconds_of(out: Path, method: str) -> float:
    """Of a method's pre-training, the fastest of its runs: the one that other programs disturbed least."""
    return min(
        json.loads((out / f"{method}-seed{seed}" / "result.json").read_text())["seconds"] for seed in range(SEEDS)
    )


def run(root: str, out: Path) -> None:
    """Both comparisons and all probes."""
    recipe = out / "recipe.yaml"
    if not recipe.exists():
        write_recipe(recipe)
    shared = ["--data.root", root, "--recipe", str(recipe), "--seeds", str(SEEDS), "--equal_time", "false"]
    images, time = out / "equal-images", out / "equal-time"
    compare(["compare", *shared, "--methods", json.dumps(METHODS), "--out", str(images)])
    ours = seconds_of(images, "pretrain")
    passes = {method: round(PASSES * ours / seconds_of(images, method), 1) for method in METHODS}
    more = ["--methods", json.dumps(METHODS), "--method_passes", json.dumps(passes)]
    if not (out / "passes.json").exists():
        (out / "passes.json").write_text(json.dumps(passes))
    more[-1] = (out / "passes.json").read_text()
    compare(["compare", *shared, *more, "--out", str(time)])
    for folder in (images, time):
        for method in ("pretrain", *METHODS):
            for seed in range(SEEDS):
                probe(root, folder / f"{method}-seed{seed}")


def compare(arguments: list[str]) -> None:
    if code := command(arguments):
        raise SystemExit(code)


def probe(root: str, folder: Path) -> None:
    """k-NN and linear accuracy of the frozen features."""
    if (folder / "probe" / "probe.json").exists():
        return
    index = str(folder.parent / "data")
    arguments = ["probe", "--weights", str(folder / "backbone.safetensors"), "--data.root", root, "--blocks", "false"]
    compare([*arguments, "--data.index_dir", index, "--out", str(folder / "probe")])


def report(out: Path) -> None:
    """Two tables in Markdown."""
    for name in ("equal-images", "equal-time"):
        found = json.loads((out / name / "comparison.json").read_text())["results"][0]["arms"]
        arms = {arm["name"]: arm for arm in found}
        ours = accuracies(arms["pretrained"])
        print(f"\n{name}\n\n| pre-training | fine-tuned, % | minus SplitMask | k-NN, % | linear, % | minutes before |")
        print("|---|---|---|---|---|---|")
        for arm in arms:
            fine = accuracies(arms[arm])
            difference = "" if arm == "pretrained" else str(paired_difference(ours, fine))
            cells = [spread(fine.values()), difference]
            if arm == "scratch":
                cells += ["", "", ""]
            else:
                folder = "pretrain" if arm == "pretrained" else arm
                probes = [
                    json.loads((out / name / f"{folder}-seed{s}" / "probe" / "probe.json").read_text())
                    for s in range(SEEDS)
                ]
                cells += [spread(one[kind]["accuracy"] for one in probes) for kind in ("knn", "linear")]
                cells.append(f"{seconds_of(out / name, folder) / 60:.1f}")
            print(f"| {'SplitMask' if arm == 'pretrained' else arm} | {' | '.join(cells)} |")


def accuracies(arm: dict[str, Any]) -> dict[int, float]:
    return {int(seed): value for seed, value in arm["accuracy"].items()}


def spread(values: Any) -> str:
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
    report(args.out)


if __name__ == "__main__":
    main()
