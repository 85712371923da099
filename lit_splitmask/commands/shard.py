"""``lit-splitmask shard``: writes the images of a folder as shards, for disks that are slow with small files, and for buckets."""

import shlex
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from lit_splitmask.commands.ahead import CPU_RECIPE
from lit_splitmask.commands.parser import CONFIG_MODE, Parser
from lit_splitmask.commands.request import Request
from lit_splitmask.commands.run_cli import instantiate, quiet
from lit_splitmask.datamodules.file_data import FileData
from lit_splitmask.datamodules.image_data import ImageData
from lit_splitmask.errors import UserError
from lit_splitmask.files import read_bytes
from lit_splitmask.images.shards import litdata, write_shards
from lit_splitmask.reserved import reserved
from lit_splitmask.shell import copyable, say
from lit_splitmask.units import size


def shard(request: Request) -> int:
    """Writes the images of all splits.

    Raises:
        UserError: The images cannot be used, the folder is not empty, or litdata is not installed.
    """
    quiet()
    parser = Parser(prog="lit-splitmask shard", parser_mode=CONFIG_MODE, allow_abbrev=False)
    parser.add_argument("--out", type=str | None, default=None)
    parser.add_argument("--shard_mb", type=float, default=64.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_subclass_arguments(ImageData, "data")
    parsed = parser.parse_args(["--data=ImageFolder", "--data.cache_gb=0", *request.settings()])
    if parsed.out is None:
        raise UserError("shard writes many large files: give their folder with --out DIR.")
    if parsed.shard_mb <= 0:
        raise UserError(f"--shard_mb is {parsed.shard_mb:g}, but must be more than 0.")
    data = instantiate(parser, parsed)["data"]
    if not isinstance(data, FileData) or data.pool:
        raise UserError(
            "shard writes images with their classes from one folder: give --data.root DIR, or a list or published dataset with "
            "--data CLASS; label maps, boxes and data.pool are not written."
        )
    if getattr(getattr(data, "split_options", None), "labels", None) in ("several", "numbers"):
        raise UserError(
            "shard writes one class per image, not several labels or a number: train from the list instead."
        )
    litdata()  # before the folder is scanned
    data.prepare_data()
    source, root = data.open_source(), data.root
    total = sum(map(len, source.splits.values()))
    with (
        reserved(
            Path(parsed.out), "give another folder with --out DIR", may_exist=True
        ),  # write_shards checks that it is empty
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        bar = progress.add_task("Writing shards", total=total)

        def read(file: str) -> bytes:
            progress.advance(bar)
            return read_bytes(root / file)

        record = write_shards(
            Path(parsed.out),
            {name: (samples.files, samples.labels.tolist()) for name, samples in source.splits.items()},
            read,
            class_names=source.class_names,
            statistics=(source.mean, source.std),
            window=source.window,
            shard_bytes=round(parsed.shard_mb * 1e6),
            seed=parsed.seed,
        )
    count = sum(len(split.shards) for split in record.splits.values())
    num_bytes = sum(split.num_bytes for split in record.splits.values())
    out = shlex.quote(parsed.out)
    recipe = "splitmask" if torch.cuda.is_available() else CPU_RECIPE
    say(
        f"Wrote {total:,} images in {count:,} shards ({size(num_bytes)}) to {parsed.out}. Copy them to a bucket if you like "
        f"(aws s3 sync {out} s3://BUCKET/FOLDER), and train:\n"
        + copyable(["lit-splitmask", "pretrain", "--data", "Shards", "--data.root", parsed.out, "--recipe", recipe])
    )
    return 0
