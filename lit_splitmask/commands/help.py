"""The help texts of the command line. Light."""

from lit_splitmask.commands import recipes

USAGE = """\
usage: lit-splitmask COMMAND [options]      (lit-splitmask COMMAND --help lists a command's options)

Pre-train a Vision Transformer on your own images, fine-tune it, and find out whether it was worth it.

  plan       check a folder first: odd images, duplicates, time and memory   lit-splitmask plan DIR
  pretrain   pre-train a backbone on images alone                            lit-splitmask pretrain --data.root DIR
  finetune   train for a task, from that backbone or from scratch            lit-splitmask finetune --weights W --data.root DIR
  compare    was pre-training worth it? several seeds, a table, a verdict    lit-splitmask compare --data.root DIR
  probe      evaluate frozen features: k-NN and linear probes                lit-splitmask probe --weights W --data.root DIR
  embed      write the features of all images, and draw a map of them        lit-splitmask embed --weights W --data.root DIR
  recipes    list the built-in recipes
  convert-dalle
             convert OpenAI's d-VAE encoder to safetensors                   lit-splitmask convert-dalle --weights encoder.pkl

  fit | validate | test | predict
             LightningCLI with any module and datamodule                     lit-splitmask fit --model Pretrain --data ImageFolder …

Image folders: DIR/train/CLASS/*.jpg (with val/ and test/), DIR/CLASS/*.jpg, or DIR/**/*.jpg without labels.
Segmentation: DIR/images/train/*.jpg and label maps of the same names in DIR/annotations/train/*.png (with val/ and test/).
Detection, in COCO's format: DIR/train/*.jpg and DIR/annotations/instances_train.json (with val).
"""

_RUN_OPTIONS = """\
  --data.root DIR              the folder of images
  --name NAME                  name of the run; its folder is runs/NAME (default: a free name)
  --resume                     continue the run --name from its last checkpoint
  --recipe NAME|FILE           the settings to start from (lit-splitmask recipes lists the built-in ones)
  --config FILE                more settings; may be given several times
  --data.image_size PIXELS, --data.batch_size IMAGES, --data.num_workers N, --data.seed N, --model.seed N
  --data.budget.passes|images|steps N
                               length of training: passes over the images, images seen, or optimizer steps
  --trainer.OPTION             any option of Lightning's Trainer: devices, strategy, precision, …
  --print_config               print all settings after these options; --help_all lists every option with its type
"""

_HELP = {
    "plan": """\
usage: lit-splitmask plan DIR [options]

Trains nothing. Reports what the folder holds, which files are odd or occur twice, which recipes fit, and what training would
cost on this machine, from a few timed steps. Writes only the record of the splits.

  --data.root DIR              the folder of images, instead of DIR
  --data.index_dir DIR         where the record of the splits is kept (default: runs/data)
  --recipe NAME|FILE           plan pre-training with this recipe (lit-splitmask recipes lists the built-in ones)
  --json                       print one JSON object instead of tables
""",
    "pretrain": f"""\
usage: lit-splitmask pretrain --data.root DIR [options]

Pre-trains a backbone on images alone, and writes runs/NAME/backbone.safetensors.

{_RUN_OPTIONS}\
  --model.objective CLASS      the method: {{classes}}
  --model.objective.tokenizer RandomProjection|RandomPatches|KMeans|DallE, --model.objective.masking BlockMasking|UniformMasking
  --model.backbone.size tiny|small|base|large, --model.optim.lr RATE
""",
    "finetune": f"""\
usage: lit-splitmask finetune [--weights FILE] --data.root DIR [options]

Trains for a task, from pre-trained weights or from scratch without them, tests the result, and writes it as
classifier.safetensors, segmenter.safetensors or detector.safetensors.

  --weights FILE               backbone.safetensors of a pre-training, a checkpoint, or weights of a timm ViT
  --task classify|segment|detect
                               default: what the folder holds: label maps, COCO annotations, or classes
{_RUN_OPTIONS}\
  --data.label_share SHARE     use this share of the training labels
  --model.optim.lr RATE, --model.optim.layer_decay FACTOR, --model.mixup ALPHA, --model.cutmix ALPHA
  --data.void N, --data.classes FILE, --data.short_side PIXELS
                               for label maps: the value that means no label (255), class names one per line, size of the images
  --data.masks true|false, --data.max_size PIXELS
                               for COCO annotations: whether to learn masks too, the longest side of the images
""",
    "compare": """\
usage: lit-splitmask compare --data.root DIR [options]

Is pre-training on these images worth it? Fine-tunes from your own pre-training and trains from scratch, with several seeds.

  --data.root DIR              the folder of images, with labels
  --out DIR                    where everything is kept (default: runs/compare-FOLDER); finished runs there are not repeated
  --recipe NAME|FILE           a comparison recipe: the settings of both stages, and the grid to tune over on val
  --seeds N                    number of seeds, each with its own pre-training (3)
  --label_shares 1,0.1         shares of the training labels to fine-tune with (1)
  --weights FILE               one more arm: weights that you have, such as ImageNet's
  --methods NAME,NAME@PASSES   more arms: other methods of pre-training ({methods})
  --equal_time true|false      also train from scratch for equal total time: that of both stages together (true)
  --set_pretrain '["--data.budget.passes=50"]', --set_finetune '[…]'
                               options of these commands that override the recipe
""",
    "probe": """\
usage: lit-splitmask probe [--weights FILE] --data.root DIR [options]

How good are a backbone's frozen features? Fits k-NN, a linear probe, and a linear probe of each block (Figure 5) on the training
images, and scores them on the test images (or on val). Writes a table, probe.json and probe.png.

  --weights FILE               backbone.safetensors, a checkpoint, or weights of a timm ViT (default: random weights)
  --data.root DIR              the folder of images, with labels; --data CLASS for another datamodule
  --data.image_size PIXELS     size of the images (default: that of the weights)
  --out DIR                    where the results go (default: runs/probe-WEIGHTS-IMAGES)
  --k N                        number of neighbours (20)
  --blocks true|false          probe each block too (true)
  --most_images N              largest number of training images (20,000)
  --seed N                     seed of random weights
""",
    "embed": """\
usage: lit-splitmask embed [--weights FILE] --data.root DIR [options]

Writes a backbone's features of all images as NPZ: features (N, D), path, label, split, class_names; and a map of them as PNG.

  --weights FILE               backbone.safetensors, a checkpoint, or weights of a timm ViT (default: random weights)
  --data.root DIR              the folder of images; --data CLASS for another datamodule
  --data.image_size PIXELS     size of the images (default: that of the weights)
  --out FILE.npz               the file (default: runs/embed-WEIGHTS-IMAGES.npz); the map has the same name
  --most_on_map N              largest number of images on the map (2,000)
  --seed N                     seed of random weights
""",
    "convert-dalle": """\
usage: lit-splitmask convert-dalle [--weights FILE|URL] [--out FILE.safetensors]

Converts OpenAI's pickled encoder of DALL-E's d-VAE, the tokenizer of BEiT, to safetensors, without running any code in the pickle.

  --weights FILE|URL           encoder.pkl, or a state dict of it (default: https://cdn.openai.com/dall-e/encoder.pkl)
  --out FILE                   default: dalle_encoder.safetensors
""",
}


def help_of(command: str) -> str | None:
    """The help of a command; None where a parser writes it."""
    text = _HELP.get(command)
    if text is None:
        return None
    methods = recipes.methods()
    return text.replace("{methods}", ", ".join(methods)).replace("{classes}", "|".join(methods.values()))
