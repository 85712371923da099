"""Fine-tuning, or training from scratch, for classification."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from lit_splitmask.checkpoints import Weights
from lit_splitmask.errors import UserError
from lit_splitmask.mixing import Mixing
from lit_splitmask.models.vit import ViT, ViTConfig
from lit_splitmask.modules.downstream import DownstreamModule
from lit_splitmask.objectives.relative_localisation import RelativeLocalisation
from lit_splitmask.optim import OptimConfig
from lit_splitmask.seeding import generator_for


class Classify(DownstreamModule):
    """A ViT with mean pooling, a norm and a linear head, trained with soft targets (Table 9).

    The network is built when the number of classes is known: in the constructor if ``num_classes`` is given, otherwise when a
    trainer attaches a datamodule that has ``num_classes``.

    Args:
        weights: A pre-trained backbone (a file of this project or of timm); ``None`` for random initialisation.
        keep_head: Use the head and the class names of ``weights`` too, to evaluate or predict with a trained classifier.
        backbone: Shape of the ViT; ``None`` for that of ``weights``, or ViT-S/16.
        num_classes: Number of classes; ``None`` for that of the datamodule.
        optim: Optimizer and schedule; ``layer_decay`` is the layer-wise decay of the learning rate.
        drop_path: Rate of stochastic depth.
        mixup: Alpha of mixup; 0 switches it off.
        cutmix: Alpha of CutMix; 0 switches it off.
        label_smoothing: Fraction of the target that is spread over all classes.
        relative_localisation: Makes Liu et al.'s auxiliary loss from the network, such as the class
            :class:`RelativeLocalisation`; for training from scratch on few images.
        seed: Seed of the new layers, drop path and mixing.

    Raises:
        UserError: The weights cannot be read or do not fit the backbone; the shape of the backbone is not valid; ``keep_head`` is
            set without the weights of a trained classifier; or ``num_classes`` is less than 2.

    Example:
        >>> shape = ViTConfig(embed_dim=32, depth=1, num_heads=2, patch_size=8, image_size=32)
        >>> module = Classify(backbone=shape, num_classes=3)
        >>> module(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape
        torch.Size([2, 3])
    """

    kind = "classifier"
    backbone_prefix = ""
    needs_labels = True  # Manifest leaves out images without one
    required_images = "images with labels, each class in a folder of its own (DIR/train/<class>/… or DIR/<class>/…)"

    def __init__(
        self,
        weights: str | None = None,
        *,
        keep_head: bool = False,
        backbone: ViTConfig | None = None,
        num_classes: int | None = None,
        optim: OptimConfig = OptimConfig(lr=4e-3, reference_batch=1024, warmup=0.2, min_lr=1e-6, layer_decay=0.65),  # noqa: B008
        drop_path: float = 0.1,
        mixup: float = 0.8,
        cutmix: float = 1.0,
        label_smoothing: float = 0.1,
        relative_localisation: Callable[[ViT], RelativeLocalisation] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(weights, backbone=backbone, optim=optim, drop_path=drop_path, seed=seed)
        self._mixing = {"mixup": mixup, "cutmix": cutmix, "label_smoothing": label_smoothing}
        self._auxiliary = relative_localisation
        if keep_head:
            self.restore()
        elif num_classes is not None:
            self.build(num_classes)

    @property
    def vit(self) -> ViT:
        assert isinstance(self.network, ViT), "the network is built in setup()"
        return self.network

    @property
    def num_classes(self) -> int:
        """Number of classes of the head."""
        return self.vit.num_classes

    def check_images(self) -> None:
        super().check_images()
        if self.data.pool:
            raise UserError(
                f"The images of data.pool ({', '.join(map(str, self.data.pool))}) have no labels: leave data.pool out when "
                "fine-tuning."
            )

    def holds_head(self, weights: Weights) -> bool:
        return "class_names" in weights.info and "head.weight" in weights.state

    def make_network(self, config: ViTConfig, num_classes: int) -> ViT:
        """The ViT with a linear head; also makes the auxiliary loss."""
        network = ViT(config, num_classes)
        nn.init.trunc_normal_(network.get_parameter("head.weight"), std=2e-5)
        self.auxiliary = None if self._auxiliary is None else self._auxiliary(network)
        return network

    def after_building(self, num_classes: int) -> None:
        """Makes the mixing and the metrics."""
        self.mix = Mixing(num_classes, **self._mixing)
        scores: dict[str, Any] = {
            "accuracy": MulticlassAccuracy(num_classes, average="micro"),
            "macro_accuracy": MulticlassAccuracy(num_classes, average="macro"),
        }
        if num_classes >= 5:
            scores["accuracy_top5"] = MulticlassAccuracy(num_classes, average="micro", top_k=5)
        self.val_scores = MetricCollection(dict(scores), prefix="val/")
        self.test_scores = MetricCollection(scores, prefix="test/").clone()
        self.test_confusion = MulticlassConfusionMatrix(num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Class logits of images: (B, C, H, W) uint8 -> (B, classes)."""
        return self.vit(self.normalise(images))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        images, targets = self.mix(self.normalise(batch["image"]), batch["label"])
        tokens = self.vit.forward_features(images)
        loss, losses = F.cross_entropy(self.vit.forward_head(tokens), targets), {}
        if self.auxiliary is not None:
            generator = generator_for(self.seed, "pairs", *self.step_key(batch_idx))
            progress = self.trainer.global_step / self.trainer.estimated_stepping_batches
            localise, weight = self.auxiliary(tokens[:, self.vit.num_prefix_tokens :], generator, progress)
            loss = loss + weight * localise
            losses["localise"] = localise
        self.log_training({**losses, "loss": loss}, len(images), shown=["loss"])
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        logits = self(batch["image"])
        self.val_scores.update(logits, batch["label"])
        self.log("val/loss", F.cross_entropy(logits.float(), batch["label"]), sync_dist=self.trainer.world_size > 1)
        self.log_dict(self.val_scores, on_epoch=True, prog_bar=True)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        logits = self(batch["image"])
        self.test_scores.update(logits, batch["label"])
        self.test_confusion.update(logits, batch["label"])
        self.log_dict(self.test_scores, on_epoch=True)

    def on_test_epoch_end(self) -> None:
        """Logs the accuracy of each class; rows of ``confusion`` are true classes, columns predicted ones."""
        self.confusion = self.test_confusion.compute()
        self.test_confusion.reset()
        per_class = self.confusion.diag() / self.confusion.sum(dim=1)
        for name, accuracy in zip(self.class_names or [], per_class, strict=False):
            if torch.isfinite(accuracy):  # a class without test images has no accuracy
                self.log(f"test/accuracy/{name}", accuracy.to(self.device))

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Class probabilities (B, classes) and the images' indices (B,)."""
        return {"probabilities": self(batch["image"]).float().softmax(dim=1), "index": batch["index"]}
