"""The formulas of the methods' papers, one image at a time."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_splitmask.models import ViT
from lit_splitmask.objectives import DINO, MAE, BEiT, InstanceDiscrimination, MoCoV3, SimMIM


def embedded(vit: ViT, image: Tensor) -> list[Tensor]:
    """Patch embeddings of one image (C, H, W), without positions."""
    side, patch = image.shape[-1], vit.config.patch_size
    projection = vit.patch_embed.proj
    return [
        (projection.weight * image[:, top : top + patch, left : left + patch]).sum(dim=(1, 2, 3)) + projection.bias
        for top in range(0, side, patch)
        for left in range(0, side, patch)
    ]


def encoded(vit: ViT, tokens: list[Tensor]) -> Tensor:
    """Blocks and norm over one sequence, after the CLS token if there is one: (P + n, D)."""
    prefix = [vit.cls_token[0, 0] + vit.pos_embed[0, 0]] if vit.cls_token is not None else []
    sequence = torch.stack([*prefix, *tokens])[None]
    for block in vit.blocks:
        sequence = block(sequence)
    return vit.norm(sequence)[0]


def position(vit: ViT, i: int) -> Tensor:
    return vit.pos_embed[0, vit.num_prefix_tokens + i]


def descriptor(vit: ViT, image: Tensor) -> Tensor:
    """The CLS token, or the mean of the patches, of an image of the backbone's own size."""
    tokens = [token + position(vit, i) for i, token in enumerate(embedded(vit, image))]
    result = encoded(vit, tokens)
    return result[0] if vit.cls_token is not None else result.mean(dim=0)


def beit_in_loops(model: BEiT, images: Tensor, words: Tensor, keep: Tensor) -> Tensor:
    """Cross-entropy of the words of hidden patches, whose embeddings the mask token replaces."""
    terms = []
    for image, word, visible in zip(images, words, keep.tolist(), strict=True):
        result = encoded_with_mask_tokens(model, image, visible)
        terms += [F.cross_entropy(model.head(result[i]), word[i]) for i in range(len(result)) if i not in visible]
    return torch.stack(terms).mean()


def encoded_with_mask_tokens(model: BEiT | SimMIM, image: Tensor, visible: list[int]) -> Tensor:
    """Features of one image's patches, in which the mask token replaces the embeddings of hidden ones: (N, D)."""
    vit = model.backbone
    tokens = [
        (token if i in visible else model.mask_token[0, 0]) + position(vit, i)
        for i, token in enumerate(embedded(vit, image))
    ]
    return encoded(vit, tokens)[vit.num_prefix_tokens :]


def pixels_of(image: Tensor, i: int, patch: int) -> Tensor:
    """Pixels of patch ``i`` of one image, channel by channel: (C·P·P)."""
    columns = image.shape[-1] // patch
    top, left = i // columns * patch, i % columns * patch
    return image[:, top : top + patch, left : left + patch].flatten()


def simmim_in_loops(model: SimMIM, images: Tensor, keep: Tensor) -> Tensor:
    """Absolute error of every pixel of hidden patches, predicted from features with mask tokens."""
    patch, errors = model.backbone.config.patch_size, []
    for image, visible in zip(images, keep.tolist(), strict=True):
        result = encoded_with_mask_tokens(model, image, visible)
        for i in range(len(result)):
            if i not in visible:
                predicted = model.head.weight @ result[i] + model.head.bias
                errors += [(one - true).abs() for one, true in zip(predicted, pixels_of(image, i, patch), strict=True)]
    return torch.stack(errors).mean()


def mae_in_loops(model: MAE, images: Tensor, keep: Tensor) -> Tensor:
    """Squared error of the standardised pixels of hidden patches; all decoder tokens carry positions."""
    vit, patch, terms = model.backbone, model.backbone.config.patch_size, []
    for image, visible in zip(images, keep.tolist(), strict=True):
        tokens = embedded(vit, image)
        latent = encoded(vit, [tokens[i] + position(vit, i) for i in visible])[vit.num_prefix_tokens :]
        seen = {i: model.decoder_embed(latent[number]) for number, i in enumerate(visible)}
        sequence = torch.stack(
            [seen.get(i, model.decoder.mask_token[0, 0]) + model.decoder.pos_embed[0, i] for i in range(len(tokens))]
        )[None]
        for block in model.decoder.blocks:
            sequence = block(sequence)
        decoded = model.decoder.norm(sequence)[0]
        for i in range(len(tokens)):
            if i not in visible:
                pixels = pixels_of(image, i, patch)
                target = (pixels - pixels.mean()) / (pixels.var() + 1e-6).sqrt()
                terms.append((model.head(decoded[i]) - target).square().mean())
    return torch.stack(terms).mean()


def mocov3_in_loops(model: MoCoV3, one: Tensor, two: Tensor) -> Tensor:
    """InfoNCE times 2τ of each view's query against the other view's keys, both directions summed."""
    teacher, loss = model.teacher_backbone.network, torch.zeros(())
    queries = [
        model.predictor(model.projector(torch.stack([descriptor(model.backbone, x) for x in view])))
        for view in (one, two)
    ]
    keys = [
        model.teacher_projector(torch.stack([descriptor(teacher, x) for x in view])).detach() for view in (one, two)
    ]
    for query, key in ((queries[0], keys[1]), (queries[1], keys[0])):
        for i in range(len(query)):
            scores = [cosine(query[i], other) / model.temperature for other in key]
            total = torch.stack([torch.exp(score) for score in scores]).sum()
            loss = loss - torch.log(torch.exp(scores[i]) / total) * 2 * model.temperature / len(query)
    return loss


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b) / (a.norm() * b.norm())


def dino_in_loops(model: DINO, crops: list[Tensor], temperature: float) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy over all pairs of a teacher's crop and another crop of the student, and the next centre."""

    def scores(vit: ViT, head: torch.nn.Module, image: Tensor) -> Tensor:
        x = head.mlp(descriptor(vit, image))
        x = x / x.norm()
        return torch.stack(
            [length[0] * (x @ w) / w.norm() for w, length in zip(head.prototypes, head.lengths, strict=True)]
        )

    teacher, head = model.teacher_backbone.network, model.teacher_head.network
    terms, seen = [], []
    for b in range(len(crops[0])):
        given = [scores(teacher, head, crop[b]).detach() for crop in crops[:2]]
        student = [scores(model.backbone, model.head, crop[b]) for crop in crops]
        seen += given
        for i, target in enumerate(given):
            p = torch.softmax((target - model.centre) / temperature, dim=0)
            for j, s in enumerate(student):
                if i != j:
                    terms.append(-(p * torch.log_softmax(s / model.student_temperature, dim=0)).sum())
    centre = model.centre * model.centre_momentum + torch.stack(seen).mean(dim=0) * (1 - model.centre_momentum)
    return torch.stack(terms).mean(), centre


def moved_along_half_a_cosine(start: float, progress: float) -> float:
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2


def instance_discrimination_in_loops(
    model: InstanceDiscrimination, crops: Sequence[tuple[Tensor, Tensor]], index: Tensor, smoothing: float
) -> Tensor:
    """Cross-entropy over all training images of the mean patch, for crops that are mixed already, with their sources."""
    vit, terms = model.backbone, []
    for images, sources in crops:
        for image, shares in zip(images, sources, strict=True):
            tokens = [token + position(vit, i) for i, token in enumerate(embedded(vit, image))]
            pooled = encoded(vit, tokens)[vit.num_prefix_tokens :].mean(dim=0)
            log_probabilities = torch.log_softmax(model.head(pooled), dim=0)
            target = torch.full_like(log_probabilities, smoothing / len(log_probabilities))
            for number, share in zip(index.tolist(), shares.tolist(), strict=True):
                target[number] += (1 - smoothing) * share
            terms.append(-(target.detach() * log_probabilities).sum())
    return torch.stack(terms).mean()
