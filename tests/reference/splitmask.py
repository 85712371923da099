"""Section 4 of the paper, step by step: each half is encoded alone; losses are loops over images and patches."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_splitmask.objectives import SplitMask


def info_nce_in_loops(a: Tensor, b: Tensor, temperature: float, same_branch_negatives: bool = False) -> Tensor:
    """Eq. 2, one image and one direction at a time; the mean of both directions."""
    a = torch.stack([row / row.norm() for row in a])
    b = torch.stack([row / row.norm() for row in b])
    terms = []
    for anchors, others in ((a, b), (b, a)):
        for i, anchor in enumerate(anchors):
            positive = torch.exp(anchor @ others[i] / temperature)
            total = positive
            for j in range(len(anchors)):
                if j != i:
                    total = total + torch.exp(anchor @ others[j] / temperature)
                    if same_branch_negatives:
                        total = total + torch.exp(anchor @ anchors[j] / temperature)
            terms.append(-torch.log(positive / total))
    return torch.stack(terms).mean()


def eq_1_in_loops(view: Tensor, codebook: Tensor, patch_size: int, mean: Tensor, std: Tensor, centred: bool) -> Tensor:
    """The visual word of every patch by cosine similarity, one patch and one word at a time: (B, N) int64."""
    result = []
    for image in view:
        words = []
        for top in range(0, image.shape[1], patch_size):
            for left in range(0, image.shape[2], patch_size):
                patch = (image[:, top : top + patch_size, left : left + patch_size] - mean) / std
                if centred:
                    patch = torch.stack([channel - channel.mean() for channel in patch])
                x = patch.flatten()
                similarities = [float(x @ e / (x.norm() * e.norm())) for e in codebook]
                words.append(max(range(len(codebook)), key=similarities.__getitem__))
        result.append(words)
    return torch.tensor(result)


def branch(model: SplitMask, image: Tensor, keep: list[int]) -> Tensor:
    """Encodes the patches ``keep`` of one image (C, H, W) and decodes the full sequence: (N, D), D the decoder's width."""
    backbone, decoder = model.backbone, model.decoder
    embedded = backbone.patch_embed(image[None])[0]  # (N, D)
    visible = torch.stack([embedded[i] + backbone.pos_embed[0, i] for i in keep])[None]
    for block in backbone.blocks:
        visible = block(visible)
    encoded = backbone.norm(visible)[0]
    if isinstance(model.decoder_embed, nn.Linear):  # the decoder has a width of its own
        weight, bias = model.decoder_embed.weight, model.decoder_embed.bias
        encoded = torch.stack([weight @ token + bias for token in encoded])
    seen = dict(zip(keep, encoded, strict=True))
    sequence = [
        seen[i] if i in seen else decoder.mask_token[0, 0] + decoder.pos_embed[0, i]
        for i in range(backbone.num_patches)
    ]
    tokens = torch.stack(sequence)[None]
    for block in decoder.blocks:
        tokens = block(tokens)
    return decoder.norm(tokens)[0]


def splitmask_in_loops(
    model: SplitMask, images: Tensor, words: Tensor, keep_a: Tensor, keep_b: Tensor
) -> dict[str, Tensor]:
    """The losses of SplitMask (without CLS token), one image at a time."""
    terms, descriptors = [], {"a": [], "b": []}
    for image, word, a, b in zip(images, words, keep_a.tolist(), keep_b.tolist(), strict=True):
        for name, keep in (("a", a), ("b", b)):
            decoded = branch(model, image, keep)
            hidden = [i for i in range(len(decoded)) if i not in keep]
            terms += [F.cross_entropy(model.head(decoded[i]), word[i]) for i in hidden]
            descriptors[name].append(decoded.mean(dim=0))
    inpaint = torch.stack(terms).mean()
    match = info_nce_in_loops(torch.stack(descriptors["a"]), torch.stack(descriptors["b"]), model.temperature)
    return {"loss": inpaint + model.match_weight * match, "inpaint": inpaint, "match": match}
