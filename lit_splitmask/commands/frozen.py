"""What ``probe`` and ``embed`` share: a frozen backbone, and the features of a datamodule's images."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, Generic, TypeVar, cast

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from lit_splitmask.checkpoints import Weights, config_of, load_into, load_weights
from lit_splitmask.commands.parser import CONFIG_MODE, Parser
from lit_splitmask.commands.request import Request
from lit_splitmask.commands.run_cli import instantiate
from lit_splitmask.commands.tasks.registry import task_for_datamodule
from lit_splitmask.datamodules.image_data import ImageData
from lit_splitmask.errors import UserError
from lit_splitmask.files import as_typed
from lit_splitmask.images.window import show
from lit_splitmask.loading.samples import Samples
from lit_splitmask.models.vit import ViT
from lit_splitmask.seeding import derive_seed
from lit_splitmask.views import default_statistics, network_view

Options = TypeVar("Options")


class Frozen(Generic[Options]):
    """A frozen backbone and the images that it is applied to.

    Args:
        request: The command; its options are ``--weights``, ``--seed``, ``--data…`` and the fields of ``options``.
        options: A dataclass of the command's other options.

    Attributes:
        options: The values of these options.
        data: The datamodule.
        vit: The backbone, once it is open.
        name: Name of the weights and the images together, for files.
        images: The folder or list of the images.
        weights_path: The file of weights; None for random weights.

    Raises:
        UserError: The images are missing or have annotations, the weights cannot be read, or a setting is out of range.
    """

    def __init__(self, request: Request, options: type[Options]) -> None:
        path, command = request.weights, request.command
        if request.predicts_numbers:
            raise UserError(
                f"{command} does not use numbers. For the images alone, give --data Manifest, without --data.target; "
                "to measure how well frozen features predict the numbers: finetune --weights FILE --model.trained_blocks 0."
            )
        weights = None if path is None else load_weights(path)
        config = config_of(weights)
        fitting = [] if config.in_chans == 3 else [f"--data.channels={config.in_chans}"]
        window = None if weights is None else weights.info.get("pixel_window")
        fitting += [] if window is None else [f"--data.window={show(window)}"]
        parser = Parser(prog=f"lit-splitmask {command}", parser_mode=CONFIG_MODE, allow_abbrev=False)
        parser.add_argument("--weights", type=str | None, default=None)
        parser.add_argument("--seed", type=int, default=0)
        parser.add_class_arguments(options, as_group=False)
        parser.add_subclass_arguments(ImageData, "data")
        given = ["--data=ImageFolder", f"--data.image_size={config.image_size}", *fitting, *request.settings()]
        parsed = parser.parse_args(given)
        self.options: Options = options(**{field.name: parsed[field.name] for field in fields(cast(Any, options))})
        images = request.root or request.manifest
        if images is None:
            raise UserError(f"{command} needs images: --data.root DIR.")
        self.images, self.weights_path, self._weights = images, path, weights
        source = "random" if path is None else as_typed(path).parent.name
        self.name = f"{source}-{as_typed(images).stem}"
        self.data = cast(ImageData, instantiate(parser, parsed)["data"])
        if task_for_datamodule(type(self.data).__name__).name != "classify":
            raise UserError(
                f"{command} uses only images, but {type(self.data).__name__} reads annotations too: give the folder of the "
                "images, without --data."
            )
        self._seed = parsed.seed

    def open(self) -> None:
        """Reads the images and builds the network."""
        self.data.prepare_data()
        self.data.setup("test")
        self.vit = _network(self._weights, self.data.image_size, self._seed)
        info = {} if self._weights is None else self._weights.info
        mean, std = default_statistics(self.vit.config.in_chans)
        self._mean, self._std = torch.tensor(info.get("pixel_mean", mean)), torch.tensor(info.get("pixel_std", std))

    def features(
        self, samples: Samples, title: str, blocks: Sequence[int] = ()
    ) -> Iterator[tuple[list[Tensor], Tensor]]:
        """Computes features batch by batch.

        Args:
            samples: The images.
            title: Title of the progress bar.
            blocks: Indices of the blocks whose outputs are returned as well.

        Yields:
            Features (B, D) float32 of each block and of the whole network, means over the patches; and labels (B,) int64.
        """
        device = self.vit.pos_embed.device
        loader = self.data.eval_loader(samples)
        for batch in track(loader, title, console=Console(stderr=True), transient=True):
            with torch.no_grad():
                images = network_view(batch["image"].to(device), self._mean.to(device), self._std.to(device))
                outputs = [
                    *(self.vit.blocks_features(images, list(blocks)) if blocks else []),
                    self.vit.features(images),
                ]
                yield [output.float().mean(dim=1).cpu() for output in outputs], batch["label"]


def _network(weights: Weights | None, image_size: int, seed: int) -> ViT:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "initial weights"))
        vit = ViT(config_of(weights))
    if weights is not None:
        load_into(vit, weights)
    if vit.config.image_size != image_size:
        vit.resize(image_size)
    return vit.eval().to("cuda" if torch.cuda.is_available() else "cpu")
