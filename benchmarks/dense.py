"""Mask R-CNN over our ViT-S against torchvision's ResNet-50, at the same image size: time and memory.

Both train on the same random images and boxes (forward, backward, AdamW) and detect objects in them; their timings alternate.
Peak memory is measured in a separate process for each: that of the GPU's allocator, or on a CPU the growth of the process in
training.

    python benchmarks/dense.py --height 800 --width 1216 --batch 2
    python benchmarks/dense.py --height 256 --width 384 --batch 1 --rounds 3 --threads 1
"""

import argparse
import multiprocessing
import resource
import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from timing import alternate, machine, median_ratio
from torch import Tensor
from torchvision.models.detection import maskrcnn_resnet50_fpn

from lit_splitmask.models import ViT, ViTConfig, use_fused_attention
from lit_splitmask.models.mask_rcnn import DetectorConfig, MaskRCNN

CLASSES = 80
OURS, THEIRS = "ours, ViT", "torchvision, ResNet-50"


def make_images(args: argparse.Namespace) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Images of noise with seven rectangular objects each, as many as COCO has on average."""
    generator = torch.Generator().manual_seed(0)
    images, targets = [], []
    for _ in range(args.batch):
        images.append(torch.rand(3, args.height, args.width, generator=generator).to(args.device))
        corner = torch.rand(7, 2, generator=generator) * 0.5
        boxes = torch.cat([corner, corner + 0.1 + 0.4 * torch.rand(7, 2, generator=generator)], dim=1)
        boxes = boxes * torch.tensor([args.width, args.height] * 2)
        masks = torch.zeros(7, args.height, args.width, dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes.long().tolist(), strict=True):
            mask[top:bottom, left:right] = 1
        labels = torch.randint(CLASSES, (7,), generator=generator)
        target = {"boxes": boxes, "labels": labels, "masks": masks}
        targets.append({name: value.to(args.device) for name, value in target.items()})
    return images, targets


def make_tasks(args: argparse.Namespace, name: str) -> dict[str, Callable[[], object]]:
    """A training step and a detection pass of one of the two networks."""
    torch.manual_seed(0)
    images, targets = make_images(args)
    sizes = [(args.height, args.width)] * args.batch
    model: Any
    if name == OURS:
        vit = ViT(ViTConfig(size=args.size, image_size=224, patch_size=args.patch_size, positions="sincos"))
        model = MaskRCNN(vit, CLASSES, config=DetectorConfig(grad_checkpointing=args.checkpoint)).to(args.device)
        use_fused_attention(model, args.device == "cuda")
        losses, detect = lambda: model.losses(images, targets), lambda: model.detect(images, sizes)
    else:
        sides = {"min_size": min(sizes[0]), "max_size": max(sizes[0])}
        model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES + 1, **sides).to(
            args.device
        )
        shifted = [{**target, "labels": target["labels"] + 1} for target in targets]  # 0 is the background
        losses, detect = lambda: model(images, shifted), lambda: model(images)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-6)

    def context() -> AbstractContextManager[None]:
        return torch.autocast(args.device, dtype=torch.bfloat16) if args.precision == "bf16" else nullcontext()

    def step() -> None:
        model.train()
        optimizer.zero_grad(set_to_none=True)
        with context():
            loss = sum(losses().values(), torch.zeros((), device=args.device))
        loss.backward()
        optimizer.step()

    @torch.no_grad()
    def inference() -> None:
        model.eval()
        with context():
            detect()

    return {"training step": step, "inference": inference}


def peak_gib(args: argparse.Namespace, name: str, results: Any) -> None:
    """Puts the peak memory of two training steps, in GiB, into a queue."""
    if args.threads:
        torch.set_num_threads(args.threads)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    step = make_tasks(args, name)["training step"]
    step()
    step()
    if args.device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    results.put(peak / 2**30)


def memory(args: argparse.Namespace, name: str) -> float:
    """Peak memory of training in GiB, measured in a fresh process."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=peak_gib, args=(args, name, results))
    process.start()
    value = float(results.get())
    process.join()
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small", choices=["tiny", "small", "base"])
    parser.add_argument("--patch-size", type=int, default=16)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1216)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument(
        "--checkpoint", action="store_true", help="recompute our blocks in the backward pass to save memory"
    )
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="threads on a CPU; 0 for torch's default")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)

    peaks = {name: memory(args, name) for name in (OURS, THEIRS)}
    tasks = {name: make_tasks(args, name) for name in (OURS, THEIRS)}
    title = f"Mask R-CNN, {args.batch} images of {args.height}×{args.width}, ViT-{args.size}/{args.patch_size}, {args.precision}"
    table = Table("", "median s", "ratio", "peak GiB", title=title)
    for task in ("training step", "inference"):
        seconds = alternate({name: tasks[name][task] for name in tasks}, args.rounds, device=args.device)
        for name, values in seconds.items():
            ratio = f"{median_ratio(values, seconds[THEIRS]):.2f}"
            peak = f"{peaks[name]:.2f}" if task == "training step" else ""
            table.add_row(f"{task}: {name}", f"{statistics.median(values):.3f}", ratio, peak)
    Console().print(table, f"{machine(args.device)}; medians of {args.rounds} alternating rounds")


if __name__ == "__main__":
    main()
