"""The help texts of the command line. Light."""

from lit_splitmask.commands import recipes

USAGE = """\
usage: lit-splitmask COMMAND [options]      (lit-splitmask COMMAND --help lists a command's options)

Pre-train a Vision Transformer on your own images, fine-tune it, and find out whether pre-training was worth it.

  plan       check a folder: odd images, duplicates, time and memory         lit-splitmask plan DIR
  pretrain   pre-train a backbone on images without labels                   lit-splitmask pretrain DIR
  finetune   train for a task, from that backbone or from scratch            lit-splitmask finetune DIR --weights W
  compare    is pre-training worth it? several seeds, a table, a verdict     lit-splitmask compare DIR
  probe      evaluate frozen features: k-NN and linear probes                lit-splitmask probe DIR --weights W
  embed      write the features of all images, and draw a map of them        lit-splitmask embed DIR --weights W
  export     write a network for timm, as ONNX or for torch.export.load      lit-splitmask export --weights W --format timm
  report     a run or a comparison as one HTML page                          lit-splitmask report RUN
  shard      write the images into a few large files, also for a bucket      lit-splitmask shard DIR --out DIR
  reproduce  the paper's tables and figures, row by row                      lit-splitmask reproduce
  recipes    list the built-in recipes                                       lit-splitmask recipes
  convert-dalle
             convert OpenAI's d-VAE encoder to safetensors                   lit-splitmask convert-dalle --weights encoder.pkl
  completion complete commands and options in your shell                     lit-splitmask completion bash

  fit | validate | test | predict
             LightningCLI with any module and datamodule                     lit-splitmask fit --model Pretrain --data ImageFolder

DIR is the folder of images; --data.root DIR means the same.
Image folders: DIR/train/CLASS/*.jpg (with val/ and test/), DIR/CLASS/*.jpg, or DIR/**/*.jpg without labels; or a CSV file.
Segmentation: images and label maps of the same names, such as DIR/images/train/*.jpg and DIR/annotations/train/*.png.
Detection, in COCO's format: DIR/train/*.jpg and DIR/annotations/instances_train.json, or as Roboflow and CVAT export it.
plan says how a folder is read, and why; docs/guide/folders.md lists all layouts. --layout NAME overrides it.
"""

_RUN_OPTIONS = """\
  --data.root DIR              folder of images
  --layout NAME                what the folder is: splits, classes, subfolders, flat (no labels), segmentation or coco
                               (default: what plan says)
  --name NAME                  name of the run; its folder is runs/NAME (default: a free name)
  --resume                     continue the run --name from its last checkpoint (default: the one that has not finished)
  --recipe NAME|FILE           settings to start from (lit-splitmask recipes lists the built-in ones)
  --config FILE                more settings; may be given several times
  --data.image_size PIXELS, --data.batch_size IMAGES, --data.num_workers N, --data.seed N, --model.seed N
  --data.budget.passes|images|steps N
                               length of training: passes over the images, images seen, or optimizer steps
  --trainer.OPTION             any option of Lightning's Trainer: devices, strategy, precision, …
  --print_config               print the resulting settings, and train nothing
  --help_all                   list every option with its type
"""

_HELP = {
    "plan": """\
usage: lit-splitmask plan DIR [options]

Trains nothing. Reports what the folder holds, which files are odd or duplicates, which recipes fit, and what training would cost
on this machine, from a few timed steps. Writes only the index of the splits.

  --data.root DIR              folder of images, instead of DIR
  --data.manifest FILE.csv     list of images, instead of a folder
  --layout NAME                what the folder is: splits, classes, subfolders, flat (no labels), segmentation or coco
  --data.index_dir DIR         folder of the index of the splits (default: runs/data)
  --recipe NAME|FILE           plan pre-training with this recipe (lit-splitmask recipes lists the built-in ones)
  --json                       print one JSON object instead of tables
  --no_timing                  say what the images are and which commands train, without timing steps
""",
    "pretrain": f"""\
usage: lit-splitmask pretrain DIR [options]

Pre-trains a backbone on images without labels, and writes it as runs/NAME/backbone.safetensors.

  --weights FILE               start from these weights: backbone.safetensors, a checkpoint, or weights of a timm ViT
                               (default: random weights)
{_RUN_OPTIONS}\
  --model.objective CLASS      the method: {{classes}}
  --model.objective.tokenizer RandomProjection|RandomPatches|KMeans|DallE, --model.objective.masking BlockMasking|UniformMasking
  --model.backbone.size tiny|small|base|large, --model.optim.lr RATE
  --data.pool '[DIR, …]'       more folders of images, without labels
""",
    "finetune": f"""\
usage: lit-splitmask finetune DIR [--weights FILE] [options]

Trains for a task, from pre-trained weights or from scratch, evaluates the result, and writes it as classifier.safetensors,
regressor.safetensors, segmenter.safetensors or detector.safetensors in runs/NAME.

  --weights FILE               backbone.safetensors, a checkpoint, or a timm ViT, also hf-hub:NAME (default: random weights)
  --auxiliary CLASS            joint training: adds this loss, also on unlabelled images: SelfTraining|{{classes}}
  --data.unlabelled_share SHARE, --data.pool '[DIR, …]', --model.auxiliary_weight FACTOR
                               joint training: share of each batch without labels, folders of more images without labels
  --task classify|regress|segment|detect
                               default: what the folder holds: classes, label maps, or COCO annotations
  --data.manifest FILE.csv --data.target COLUMN
                               regress: predict the numbers in a column of a list; --model.loss smooth_l1|mse
{_RUN_OPTIONS}\
  --data.label_share SHARE     use this share of the training labels
  --data.balance SHARE, --model.class_weights balanced|'[1, 5, …]'
                               rare classes: sample them more often (1: all classes equally often), weight them in the loss
  --model.trained_blocks N     train the last N blocks and the head only (0: the head)
  --monitor SCORE, --early_stopping N, --moving_average SHARE
                               score on val by which the best epoch is kept; stop after N validations without a better one; keep
                               the weights' moving average over this share of the steps
  --model.optim.lr RATE, --model.optim.layer_decay FACTOR, --model.mixup ALPHA, --model.cutmix ALPHA
  --data.void N, --data.classes FILE, --data.colours FILE, --data.short_side PIXELS
                               label maps: value that means no label (255), class names, one per line, table of the colours of
                               RGB maps (default: labelmap.txt and the like in DIR), short side of the images
  --data.values '[0, 255]'     label maps: the value of each class (default: those that occur)
  --data.annotations FILE, --data.masks true|false, --data.max_size PIXELS
                               COCO annotations: the file, if it has an unusual name, whether to learn masks as well as boxes,
                               longest side of the images
""",
    "compare": """\
usage: lit-splitmask compare DIR [options]

Is pre-training on these images worth it? Fine-tunes from own pre-training, and trains from scratch, jointly and by self-training,
with several seeds. Ends with a recommendation, which is a command.

  --data.root DIR              folder of images, with labels
  --layout NAME                what the folder is: splits, classes or subfolders (default: what plan says)
  --out DIR                    folder of all results (default: runs/compare-FOLDER); finished trainings in it are not repeated
  --recipe NAME|FILE           comparison recipe: settings of both stages, and the grid to tune over on val
  --seeds N|auto               number of seeds, each with its own pre-training (3); auto adds seeds until a difference is shown
  --max_seeds N                largest number of seeds of --seeds auto (10)
  --label_shares 1,0.1         shares of the training labels to fine-tune with (1)
  --weights FILE               two more arms: weights that you have, such as ImageNet's, and these trained further on your images
  --methods NAME,NAME@PASSES   more arms: other methods of pre-training ({methods})
  --equal_time true|false      also train from scratch, and jointly, for as long as both stages take together (true)
  --set_pretrain '["--data.budget.passes=50"]', --set_finetune '[…]'
                               options of pretrain and finetune that override the recipe
""",
    "probe": """\
usage: lit-splitmask probe DIR [--weights FILE] [options]

How good are a backbone's frozen features? Fits k-NN, a linear probe, and a linear probe of each block (Figure 5) on the training
images, and scores them on the test images (or on val). Writes probe.json and probe.png.

  --weights FILE               backbone.safetensors, a checkpoint, or weights of a timm ViT (default: random weights)
  --data.root DIR              folder of images, with labels; --data CLASS for another datamodule
  --data.image_size PIXELS     size of the images (default: that of the weights)
  --out DIR                    folder of the results (default: runs/probe-WEIGHTS-IMAGES)
  --k N                        number of neighbours (20)
  --blocks true|false          probe each block too (true)
  --linear auto|solved|streamed  hold features in memory, or stream all from files (auto: stream above --most_images or 1 GiB)
  --most_images N              largest number of training images of the solved probe (20,000)
  --seed N                     seed of random weights (0)
""",
    "export": """\
usage: lit-splitmask export --weights FILE --format timm|onnx|torch-export [options]

Writes a trained network to a new folder, for use without this project, with its preprocessing and a model card (README.md): the
code that reads an image, and the numbers of the run. Compares its outputs with those of the original, and writes nothing if they
differ. Several formats, as in --format timm,onnx, get a folder each. Backbones, classifiers and regressors in every
format, segmenters for onnx and torch-export; no detectors.

  --weights FILE               backbone, classifier, regressor or segmenter.safetensors of a run
  --format timm                a folder for timm.create_model("local-dir:DIR", pretrained=True), transformers and the hub
  --format onnx                model.onnx, checked with onnxruntime (pip install 'lit-splitmask[export]')
  --format torch-export        model.pt2, for torch.export.load
  --out DIR                    the folder, new or empty (default: the weights' name and the format); several: DIR-FORMAT
  --crop_ratio SHARE           centre crop of evaluation (default: the run's; 0.875 if the file does not say)
""",
    "report": """\
usage: lit-splitmask report RUN [--out FILE.html]

Writes one HTML page of a run, a comparison or a probe: the verdict, which checkpoint to keep, the numbers with intervals, the
pictures, the settings, and the commands that come next. The page embeds its pictures, and opens offline.

  RUN                          the folder, or the name of a run in runs
  --out FILE.html              the page (default: report.html in the folder)
""",
    "embed": """\
usage: lit-splitmask embed DIR [--weights FILE] [options]

Writes a backbone's features of all images as NPZ: features (N, D), path, label, split, class_names; and a map of them as PNG,
and, with bokeh (pip install 'lit-splitmask[plots]'), as one HTML page that shows the image under the pointer.

  --weights FILE               backbone.safetensors, a checkpoint, or weights of a timm ViT (default: random weights)
  --data.root DIR              folder of images; --data CLASS for another datamodule
  --data.image_size PIXELS     size of the images (default: that of the weights)
  --out FILE.npz               the file (default: runs/embed-WEIGHTS-IMAGES.npz); the map is a PNG of the same name
  --most_on_map N              largest number of images on the map (2,000)
  --seed N                     seed of random weights (0)
""",
    "shard": """\
usage: lit-splitmask shard DIR --out DIR [options]

Writes the images as they are, with their splits and classes, into a few large files, for training with --data Shards: from a
disk that is slow with small files, or, once they are copied there, from a bucket. Needs litdata (pip install
'lit-splitmask[stream]').

  --data.root DIR              folder of images; --data CLASS for another datamodule
  --out DIR                    folder of the shards; it must be empty
  --layout NAME                what the folder is: splits, classes, subfolders or flat (default: what plan says)
  --data.statistics imagenet|dataset|half
                               pixel statistics to store with the images (imagenet)
  --shard_mb MEGABYTES         size of a shard (64)
  --seed N                     seed of the order in which the training images are stored (0)
""",
    "reproduce": """\
usage: lit-splitmask reproduce [TABLE] [--row ROW --data.root DIR] [options]

Lists the rows of the paper's tables and figures: their trainings, steps and numbers. With --row and --data.root, runs a row:
pre-training, fine-tuning, evaluation. The same command again runs what is not finished. Writes results.json.

  TABLE                        table1, table2, table4 to table8, figure2, figure3, figure5 or figure6 (default: all)
  --row ROW                    one row of the table, such as splitmask-s-cars of table6
  --data.root DIR              the dataset that the row is evaluated on, in its official layout (docs/datasets.md)
  --pretrain_root DIR          the dataset that it is pre-trained on, if that is another one
  --weights FILE               start from these weights instead of those of the row's pre-training
  --tokenizer FILE             DALL-E's encoder, for rows with its words (lit-splitmask convert-dalle makes it)
  --scale SHARE                this share of the paper's passes or steps in every training (1)
  --seeds 0,1,2                seeds, each with trainings of its own (0)
  --out DIR                    folder of the trainings and results (default: runs/reproduce, or runs/reproduce-scaleSHARE)
  --set_pretrain '["--data.batch_size=256"]', --set_finetune '[…]', --set_probe '[…]'
                               more options of pretrain, finetune and probe
  --dry_run                    print the commands of the row, and run nothing
  --hours                      list hours on this machine too, from a few timed steps on synthetic images (minutes for a table)
  --json                       list as JSON, with the commands
""",
    "recipes": """\
usage: lit-splitmask recipes

Lists the built-in recipes, for --recipe of the other commands.
""",
    "convert-dalle": """\
usage: lit-splitmask convert-dalle [--weights FILE|URL] [--out FILE.safetensors]

Converts OpenAI's pickled encoder of DALL-E's d-VAE, the tokenizer of BEiT, to safetensors. Runs no code in the pickle.

  --weights FILE|URL           encoder.pkl, or its state dict (default: https://cdn.openai.com/dall-e/encoder.pkl)
  --out FILE.safetensors       the converted encoder (default: dalle_encoder.safetensors)
""",
    "completion": """\
usage: lit-splitmask completion bash|zsh|fish|tcsh|powershell

Prints the script that makes the shell complete commands, options, files and the names of recipes. Needs shtab (pip install
'lit-splitmask[completion]'). For bash, where the package bash-completion is installed:

  lit-splitmask completion bash > ~/.local/share/bash-completion/completions/lit-splitmask
""",
}

LIGHTNING_COMMANDS = ("fit", "validate", "test", "predict")
"""Commands whose help their parser writes."""


def documented() -> tuple[str, ...]:
    """The commands that have a help here."""
    return tuple(_HELP)


def run_options() -> str:
    """The help on the options that all runs have."""
    return _RUN_OPTIONS


def help_of(command: str) -> str | None:
    """The help of a command; None if its parser writes it."""
    text = _HELP.get(command)
    if text is None:
        return None
    methods = recipes.methods()
    return text.replace("{methods}", ", ".join(methods)).replace("{classes}", "|".join(methods.values()))
