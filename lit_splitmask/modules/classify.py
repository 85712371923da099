"""Fine-tuning, or training from scratch, for classification."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from lit_splitmask.checkpoints import Weights
from lit_splitmask.contract import classification_data, has_several_labels
from lit_splitmask.errors import UserError
from lit_splitmask.mixing import Mixing
from lit_splitmask.models.teacher import Teacher
from lit_splitmask.models.vit import ViT, ViTConfig
from lit_splitmask.modules.class_scores import (
    ClassPrecision,
    accuracies,
    check_same_kind,
    mean_over_labelled,
    soft_loss,
)
from lit_splitmask.modules.class_weights import ClassWeights, check_class_weights, tensor_of
from lit_splitmask.modules.downstream import DownstreamModule
from lit_splitmask.modules.objective_host import TrainsObjective
from lit_splitmask.modules.probe_head import solve_head
from lit_splitmask.objectives.base import Objective, store_once
from lit_splitmask.optim import OptimConfig
from lit_splitmask.seeding import generator_for


class Classify(TrainsObjective, DownstreamModule):
    """A ViT with mean pooling, a norm and a linear head, trained with soft targets (Table 9).

    With an ``auxiliary`` objective it is joint training (Das et al., 2024): the objective's loss, on images with labels and on
    those without (``data.unlabelled_share``), is added to the cross-entropy. An objective that ``takes_features`` sees the mixed
    images and shares the forward pass of the classifier; any other sees the unmixed images, in a pass of its own. The
    patch features are normalised for it, as in pre-training. The classifier is exported, without the objective's own layers.

    If the datamodule says that an image may have ``several_labels``, the loss is the binary cross-entropy of each class, the
    score is the mean average precision (``val/map``), and predictions are a probability per class. The exported file says so too.

    The network is built when the number of classes is known: in the constructor if ``num_classes`` is given, otherwise when a
    trainer attaches a datamodule that has ``num_classes``.

    Args:
        weights: A pre-trained backbone (a file of this project or of timm); ``None`` for random initialisation.
        keep_head: Use the head and the class names of ``weights`` too, to evaluate or predict with a trained classifier.
        backbone: Shape of the ViT; ``None`` for that of ``weights``, or ViT-S/16.
        num_classes: Number of classes; ``None`` for that of the datamodule.
        optim: Optimizer and schedule; ``layer_decay`` is the layer-wise decay of the learning rate.
        drop_path: Rate of stochastic depth.
        trained_blocks: Train the last blocks of the backbone only, this many, and what follows them: 0 for a frozen backbone,
            ``None`` for everything. Frozen blocks have no stochastic depth, and need weights.
        mixup: Alpha of mixup; 0 switches it off.
        cutmix: Alpha of CutMix; 0 switches it off.
        label_smoothing: Fraction of the target that is spread over all classes.
        class_weights: Factors on the training loss of images by their class: a list in the order of the classes, or ``balanced``,
            which makes all classes count the same. The losses of evaluation have none.
        auxiliary: Makes a pre-training objective from the network, such as the class :class:`MAE`, to train alongside the labels.
        auxiliary_weight: Factor on the objective's loss, more than 0.
        probe_head: Start with the solved linear probe of the training images as the head, instead of a random head (LP-FT); for
            few labels. The images are read once more, without augmentation.
        seed: Seed of the new layers, drop path and mixing.

    Attributes:
        test_hits: Whether each test image that this process tested was classified correctly, by its index.

    Raises:
        UserError: The weights cannot be read or do not fit the backbone; the shape of the backbone is not valid; ``keep_head`` is
            set without the weights of a trained classifier, or with ``probe_head``; ``num_classes`` is less than 2;
            ``trained_blocks`` is not a number of blocks, or is given without weights, or 0 with an auxiliary objective;
            ``auxiliary_weight`` is not positive; ``class_weights`` are not weights; or the auxiliary objective does not accept
            the backbone or its own arguments.

    Example:
        >>> shape = ViTConfig(embed_dim=32, depth=1, num_heads=2, patch_size=8, image_size=32)
        >>> module = Classify(backbone=shape, num_classes=3)
        >>> module(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape
        torch.Size([2, 3])
    """

    kind = "classifier"
    backbone_prefix = ""
    needs_labels = True  # Manifest leaves out images without one
    takes_several_labels = True
    required_images = "images with labels, each class in its own folder (DIR/train/<class>/… or DIR/<class>/…)"

    def __init__(
        self,
        weights: str | None = None,
        *,
        keep_head: bool = False,
        backbone: ViTConfig | None = None,
        num_classes: int | None = None,
        optim: OptimConfig = OptimConfig(lr=4e-3, reference_batch=1024, warmup=0.2, min_lr=1e-6, layer_decay=0.65),  # noqa: B008
        drop_path: float = 0.1,
        trained_blocks: int | None = None,
        mixup: float = 0.8,
        cutmix: float = 1.0,
        label_smoothing: float = 0.1,
        class_weights: ClassWeights = None,
        auxiliary: Callable[[ViT], Objective] | None = None,
        auxiliary_weight: float = 1.0,
        probe_head: bool = False,
        seed: int = 0,
    ) -> None:
        if keep_head and probe_head:
            raise UserError("keep_head keeps the head of the weights, and probe_head replaces it: set one of them.")
        super().__init__(
            weights, backbone=backbone, optim=optim, drop_path=drop_path, seed=seed, trained_blocks=trained_blocks
        )
        self._mixing = {"mixup": mixup, "cutmix": cutmix, "label_smoothing": label_smoothing}
        if auxiliary_weight <= 0:
            raise UserError(
                f"auxiliary_weight is {auxiliary_weight:g}; it must be positive. Leave auxiliary out to train without."
            )
        if trained_blocks == 0 and auxiliary is not None:
            raise UserError(
                "trained_blocks=0 freezes the backbone, so the auxiliary objective has nothing to train: leave one of them out."
            )
        check_class_weights(class_weights)
        self._class_weights = class_weights
        self._make_auxiliary, self.auxiliary_weight = auxiliary, auxiliary_weight
        self.test_hits: dict[int, bool] = {}
        self.several_labels = False
        self.auxiliary: Objective | None = None
        store_once(self, "auxiliary.backbone", "network")
        self._probe_head = probe_head
        if keep_head:
            self.restore()
        elif num_classes is not None:
            self.build(num_classes)

    @property
    def hosted(self) -> Objective | None:
        return self.auxiliary

    @property
    def uses_unlabelled(self) -> bool:
        return self._make_auxiliary is not None

    @property
    def vit(self) -> ViT:
        assert isinstance(self.network, ViT), "the network is built in setup()"
        return self.network

    @property
    def num_classes(self) -> int:
        """Number of classes of the head."""
        return self.vit.num_classes

    def setup(self, stage: str) -> None:
        several = has_several_labels(self.datamodule) if stage != "predict" else self.several_labels
        if several and (self._make_auxiliary is not None or self._probe_head):
            raise UserError(
                "auxiliary and probe_head need one label per image, but here an image may have several: leave them out."
            )
        if self.network is None:
            self.several_labels = several
        check_same_kind(self.several_labels, several)
        super().setup(stage)
        if stage != "fit":
            return
        self.mix.class_weights = tensor_of(
            self._class_weights,
            self.class_names or [],
            classification_data(self.datamodule),
            several=self.several_labels,
        )
        if self.mix.class_weights is not None:
            low, high = self.mix.class_weights.aminmax()
            self.print(f"Weights of the classes in the loss: from {low:.3g} to {high:.3g}.")
        if self.auxiliary is not None:
            self.attach_objective()
            self.check_objective()

    def check_images(self) -> None:
        super().check_images()
        if self.data.pool and not self.data.unlabelled_share:
            raise UserError(
                f"The images of data.pool ({', '.join(map(str, self.data.pool))}) have no labels: leave data.pool out when "
                "fine-tuning, or train on them too with an auxiliary objective (--auxiliary MAE, for example) and "
                "data.unlabelled_share above 0, such as 0.5."
            )

    def holds_head(self, weights: Weights) -> bool:
        return "class_names" in weights.info and "head.weight" in weights.state and "regressor" not in weights.info

    def exported_settings(self) -> dict[str, Any]:
        return {"several_labels": True} if self.several_labels else {}

    def restore_settings(self, settings: dict[str, Any]) -> None:
        self.several_labels = bool(settings.get("several_labels"))

    def make_network(self, config: ViTConfig, num_classes: int) -> ViT:
        """The ViT with a linear head; also makes the auxiliary objective."""
        network = ViT(config, num_classes)
        nn.init.trunc_normal_(network.get_parameter("head.weight"), std=2e-5)
        self.network = network  # registered before the objective, so that its parameters have the network's names
        self.auxiliary = None if self._make_auxiliary is None else self._make_auxiliary(network)
        return network

    def restore(self) -> None:
        super().restore()
        self._match_teachers()

    def _match_teachers(self) -> None:
        """Gives the objective's teachers the weights of the network, which were loaded after the objective was made."""
        for part in () if self.auxiliary is None else self.auxiliary.modules():
            if isinstance(part, Teacher) and isinstance(part.network, ViT):
                part.network.load_state_dict(self.vit.state_dict())

    def after_building(self, num_classes: int) -> None:
        """Makes the mixing and the metrics."""
        self._match_teachers()
        self.mix = Mixing(num_classes, **self._mixing)
        self.val_scores, self.test_scores = accuracies(num_classes, "val/"), accuracies(num_classes, "test/")
        self.test_confusion = MulticlassConfusionMatrix(num_classes)
        self.precision_of_classes = ClassPrecision(num_classes)

    def on_fit_start(self) -> None:
        """Prepares the auxiliary objective, and solves the head if requested; a resumed run has it in its checkpoint.

        Raises:
            UserError: The datamodule does not offer its training images without augmentation.
        """
        super().on_fit_start()
        if not self._probe_head or self.trainer.ckpt_path is not None:
            return
        images: Any = None if self.data.split_images is None else self.data.split_images("train")
        if images is None:
            raise UserError(
                "probe_head needs the training images without augmentation, which this datamodule does not offer: give it "
                'split_images("train"), or turn off probe_head.'
            )
        probe = solve_head(self.vit, images, self.normalise, self.trainer.precision_plugin.val_step_context)
        self.print(f"The head starts as the linear probe of the training images (weight decay {probe.penalty:g}).")

    def forward(self, images: Tensor) -> Tensor:
        """Class logits of images: (B, C, H, W) uint8 -> (B, classes)."""
        return self.vit(self.normalise(images))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Skips the objective of a checkpoint unless training continues: evaluation and prediction do not know its images."""
        super().on_load_checkpoint(checkpoint)
        if self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            return
        own = {name: value for name, value in self.state_dict().items() if name.startswith("auxiliary.")}
        theirs = {k: v for k, v in checkpoint["state_dict"].items() if not k.startswith("auxiliary.")}
        checkpoint["state_dict"] = {**theirs, **own}

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        if self.auxiliary is None:
            images, targets = self.mix(self.normalise(batch["image"]), batch["label"])
            loss = soft_loss(self.vit(images), targets, self.several_labels, self.mix.class_weights)
            losses: dict[str, Tensor] = {}
        else:
            classify, views = self._classify(batch, self.auxiliary.takes_features)
            generator = generator_for(self.seed, "pairs", *self.step_key(batch_idx))
            losses = self.objective_losses(views, generator)
            auxiliary = losses.pop("loss")
            loss = classify + self.auxiliary_weight * auxiliary
            losses |= {"auxiliary": auxiliary, "classify": classify}
        self.log_training({**losses, "loss": loss}, len(batch["image"]), shown=["loss"])
        return loss

    def _classify(self, batch: dict[str, Tensor], shares_features: bool) -> tuple[Tensor, dict[str, Any]]:
        """The loss of the images with labels, and the views for the objective.

        Args:
            batch: A batch in which the label -1 means no label.
            shares_features: Whether the objective sees the same mixed images, and the features computed here.
        """
        has_label = batch["label"] >= 0
        if not shares_features:
            images, labels = self.normalise(batch["image"][has_label]), batch["label"][has_label]
            mixed, targets = (
                self.mix(images, labels) if len(labels) else (images, images.new_zeros(0, self.num_classes))
            )
            return mean_over_labelled(self.vit(mixed), targets), self.training_views(batch)
        views = self.training_views(batch)
        unmixed = views["images"]
        images, sources = self.mix.mix_apart(unmixed, has_label)
        tokens = self.vit.forward_features(images)
        logits = self.vit.forward_head(tokens)
        targets = self.mix.targets(batch["label"][has_label], sources[has_label][:, has_label])
        loss = mean_over_labelled(logits[has_label], targets)
        features = self.vit.fc_norm(tokens[:, self.vit.num_prefix_tokens :])
        views |= {"images": images, "unmixed": unmixed, "sources": sources, "features": features, "logits": logits}
        return loss, views

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        logits = self(batch["image"])
        if self.several_labels:
            self.precision_of_classes.update(logits.float().sigmoid(), batch["label"].int())
            loss = F.binary_cross_entropy_with_logits(logits.float(), batch["label"].float())
            self.log_held_out({"loss": loss}, len(logits))
            return
        self.val_scores.update(logits, batch["label"])
        self.log_held_out({"loss": F.cross_entropy(logits.float(), batch["label"])}, len(logits))
        self.log_dict(self.val_scores, on_epoch=True, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        if self.several_labels:
            self._log_precision("val")

    def _log_precision(self, stage: str) -> Tensor:
        """Logs the mean average precision over the classes that occur; the average precision of each class."""
        per_class: Tensor = self.precision_of_classes.compute()
        self.precision_of_classes.reset()
        self.log(f"{stage}/map", per_class.nanmean(), prog_bar=True, sync_dist=self.trainer.world_size > 1)
        return per_class

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        logits = self(batch["image"])
        if self.several_labels:
            self.precision_of_classes.update(logits.float().sigmoid(), batch["label"].int())
            return
        self.test_scores.update(logits, batch["label"])
        self.test_confusion.update(logits, batch["label"])
        if "index" in batch:
            hits = logits.argmax(dim=1) == batch["label"]
            self.test_hits.update(zip(batch["index"].tolist(), hits.tolist(), strict=True))
        self.log_dict(self.test_scores, on_epoch=True)

    def on_test_epoch_start(self) -> None:
        self.test_hits.clear()

    def on_test_epoch_end(self) -> None:
        """Logs the accuracy of each class; rows of ``confusion`` are true classes, columns predicted ones."""
        if self.several_labels:
            for name, precision in zip(self.class_names or [], self._log_precision("test"), strict=True):
                if torch.isfinite(precision):
                    self.log(f"test/ap/{name}", precision, sync_dist=self.trainer.world_size > 1)
            return
        self.confusion = self.test_confusion.compute()
        self.test_confusion.reset()
        per_class = self.confusion.diag() / self.confusion.sum(dim=1)
        for name, accuracy in zip(self.class_names or [], per_class, strict=False):
            if torch.isfinite(accuracy):  # a class without test images has no accuracy
                self.log(f"test/accuracy/{name}", accuracy.to(self.device), sync_dist=self.trainer.world_size > 1)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Class probabilities (B, classes) and the images' indices (B,)."""
        logits = self(batch["image"]).float()
        probabilities = logits.sigmoid() if self.several_labels else logits.softmax(dim=1)
        return {"probabilities": probabilities, "index": batch["index"]}
