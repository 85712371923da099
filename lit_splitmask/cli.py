"""The command ``lit-splitmask``. Light: torch and Lightning are imported only once a command is known to need them."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lit_splitmask import __version__
from lit_splitmask.commands.arguments import value_of
from lit_splitmask.errors import UserError

USAGE = """\
usage: lit-splitmask COMMAND [options]      (lit-splitmask COMMAND --help lists a command's options)

Pre-train a Vision Transformer on your own images, fine-tune it, and see whether it was worth it.

  plan       look first: odd images, duplicates, time:  lit-splitmask plan DIR
  pretrain   learn a backbone from images alone:        lit-splitmask pretrain --data.root DIR
  finetune   train for a task from it:                 lit-splitmask finetune --weights W --data.root DIR
  compare    was pre-training worth it? seeds, table:   lit-splitmask compare --data.root DIR
  probe      what are frozen features worth?            lit-splitmask probe --weights W --data.root DIR
  embed      features of all images, and a map:         lit-splitmask embed --weights W --data.root DIR
  recipes    list the settings that come along
  convert-dalle
             OpenAI's d-VAE encoder as safetensors:     lit-splitmask convert-dalle --weights encoder.pkl

  fit | validate | test | predict
             LightningCLI with any module and datamodule: lit-splitmask fit --model Pretrain --data ImageFolder …

Own folders are DIR/train/CLASS/*.jpg (and val/, test/), DIR/CLASS/*.jpg, or DIR/**/*.jpg without labels; for segmentation
DIR/images/train/*.jpg with label maps of the same names, DIR/annotations/train/*.png (and val/, test/); for detection
DIR/train/*.jpg with DIR/annotations/instances_train.json (and val), as COCO has them.
"""

_RUN_OPTIONS = """\
  --data.root DIR              the folder of images
  --name NAME                  the run's folder is runs/NAME; by default a free one is chosen
  --resume                     go on with the run --name from its last checkpoint
  --recipe NAME|FILE           settings to start from (lit-splitmask recipes lists them)
  --config FILE                more settings; several may be given
  --data.image_size PIXELS, --data.batch_size IMAGES, --data.num_workers N, --data.seed N, --model.seed N
  --data.budget.passes|images|steps N
                               how long to train: passes over the folder, images seen, or optimizer steps
  --trainer.OPTION             every option of Lightning's Trainer: devices, strategy, precision, …
  --print_config               print all settings, with these options applied; --help_all lists them with their types
"""

HELP = {
    "plan": """\
usage: lit-splitmask plan DIR [options]

Trains nothing: tells what the images are, which are odd or occur twice, which recipes fit, and what training would take
on this machine, from a few timed steps. Writes only the record of the splits.

  --data.root DIR              the folder of images, instead of DIR
  --data.index_dir DIR         where the record of the splits is kept (runs/data)
  --recipe NAME|FILE           plan pre-training with these settings (lit-splitmask recipes lists them)
  --json                       print one JSON object instead of tables
""",
    "pretrain": f"""\
usage: lit-splitmask pretrain --data.root DIR [options]

Learns a backbone from images alone, and writes runs/NAME/backbone.safetensors.

{_RUN_OPTIONS}\
  --model.objective SplitMask|BEiT|MAE|DINO|MoCoV3|Supervised (each has recipes: lit-splitmask recipes)
  --model.objective.tokenizer RandomProjection|RandomPatches|KMeans|DallE, --model.objective.masking BlockMasking|UniformMasking
  --model.backbone.size tiny|small|base|large, --model.optim.lr RATE
""",
    "finetune": f"""\
usage: lit-splitmask finetune [--weights FILE] --data.root DIR [options]

Trains for a task, from pre-trained weights or from scratch without them; tests the result; writes it as classifier.safetensors,
segmenter.safetensors or detector.safetensors.

  --weights FILE               backbone.safetensors of a pre-training, a checkpoint, or weights of a timm ViT
  --task classify|segment|detect
                               by default that of the folder: label maps, COCO annotations, or else classes
{_RUN_OPTIONS}\
  --data.label_share SHARE     use this share of the training labels
  --model.optim.lr RATE, --model.optim.layer_decay FACTOR, --model.mixup ALPHA, --model.cutmix ALPHA
  --data.void N, --data.classes FILE, --data.short_side PIXELS
                               of label maps: the value without a label (255), class names one a line, the size of images
  --data.masks true|false, --data.max_size PIXELS
                               of annotations: whether masks are learned too, the longest side of images
""",
    "compare": """\
usage: lit-splitmask compare --data.root DIR [options]

Is pre-training on these images worth it? Fine-tunes from own pre-training and trains from scratch, over seeds.

  --data.root DIR              the folder of images, with labels
  --out DIR                    where everything is kept (runs/compare-<folder>); what is finished there is not run again
  --recipe NAME|FILE           a comparison recipe: settings of both stages and the grid that is tuned over on val
  --seeds N                    seeds; each has a pre-training of its own (3)
  --label_shares 1,0.1         shares of the training labels to fine-tune with (1)
  --weights FILE               one more arm: local weights, such as ImageNet's
  --methods mae,dino@50        more arms: other methods' pre-training (beit, mae, dino, mocov3, supervised; @PASSES)
  --equal_time true|false      also train from scratch for as long as both stages take together (true)
  --set_pretrain '["--data.budget.passes=50"]', --set_finetune '[…]'
                               options of those commands that are set over the recipe's
""",
    "probe": """\
usage: lit-splitmask probe [--weights FILE] --data.root DIR [options]

What are a backbone's frozen features worth? k-NN, a linear probe, and a linear probe of each block (Figure 5), fitted on the
training images and scored on the test images (or on val). Writes a table, probe.json and probe.png.

  --weights FILE               backbone.safetensors, weights of a timm ViT, or a checkpoint; random weights without it
  --data.root DIR              the folder of images, with labels; --data CLASS for another datamodule
  --data.image_size PIXELS     the size at which images are seen; by default that of the weights
  --out DIR                    where the results go (runs/probe-<weights>-<images>)
  --k N                        neighbours that vote (20)
  --blocks true|false          also probe each block (true)
  --most_images N              training images that are used (20,000)
  --seed N                     of random weights
""",
    "embed": """\
usage: lit-splitmask embed [--weights FILE] --data.root DIR [options]

Writes a backbone's features of all images as NPZ: features (N, D), path, label, split, class_names; and a map of some as PNG.

  --weights FILE               backbone.safetensors, weights of a timm ViT, or a checkpoint; random weights without it
  --data.root DIR              the folder of images; --data CLASS for another datamodule
  --data.image_size PIXELS     the size at which images are seen; by default that of the weights
  --out FILE.npz               the file (runs/embed-<weights>-<images>.npz); the map has the same name
  --most_on_map N              images on the map (2,000)
  --seed N                     of random weights
""",
    "convert-dalle": """\
usage: lit-splitmask convert-dalle [--weights FILE|URL] [--out FILE.safetensors]

Reads OpenAI's pickled encoder of DALL-E's d-VAE, the tokenizer of BEiT, without running what a pickle may say, and writes its
tensors as safetensors.

  --weights FILE|URL           encoder.pkl, or a state dict of it (https://cdn.openai.com/dall-e/encoder.pkl)
  --out FILE                   dalle_encoder.safetensors
""",
}

LIGHTNING_COMMANDS = ("fit", "validate", "test", "predict")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 1 for a :class:`UserError`, 2 for wrong options, 130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    try:
        if arguments[0] in HELP and any(a in ("-h", "--help") for a in arguments[1:]):
            print(HELP[arguments[0]], end="")
            return 0
        check_root(arguments)
        return _command(arguments[0])(arguments[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning turns Ctrl-C into exit(1)
            print("interrupted", file=sys.stderr)
            return 130
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 2


def check_root(arguments: list[str]) -> None:
    """Reports a folder that does not exist, before the slow imports."""
    root = value_of(arguments, "--data.root") or value_of(arguments, "--root")
    if root is not None and not Path(root).expanduser().is_dir():
        kind = "is a file" if Path(root).expanduser().exists() else "does not exist"
        raise UserError(f"The data folder {root} {kind} (from {Path.cwd()}). Pass the folder that holds the images.")


def _command(name: str) -> Callable[[list[str]], int]:
    """The function that runs a command, imported now."""
    if name == "plan":
        from lit_splitmask.commands.plan import plan

        return plan
    if name == "pretrain":
        from lit_splitmask.commands.training import pretrain

        return pretrain
    if name == "finetune":
        from lit_splitmask.commands.training import finetune

        return finetune
    if name == "compare":
        from lit_splitmask.commands.compare import compare

        return compare
    if name == "probe":
        from lit_splitmask.commands.probe import probe

        return probe
    if name == "embed":
        from lit_splitmask.commands.embed import embed

        return embed
    if name == "convert-dalle":
        from lit_splitmask.commands.convert_dalle import convert_dalle

        return convert_dalle
    if name == "recipes":
        from lit_splitmask.commands.recipes import list_recipes

        return list_recipes
    if name in LIGHTNING_COMMANDS:
        from lit_splitmask.commands.lightning_commands import lightning

        return lambda arguments: lightning([name, *arguments])
    known = "plan, pretrain, finetune, compare, probe, embed, recipes, convert-dalle, fit, validate, test, predict"
    print(f"error: there is no command {name!r}; the commands are {known}.", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    sys.exit(main())
