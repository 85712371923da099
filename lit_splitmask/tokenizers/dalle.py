"""Words from the encoder of DALL-E's discrete VAE (Ramesh et al., 2021), as in BEiT and Table 2.

OpenAI's encoder (``dall_e/encoder.py``) has 53.8 million parameters and 8,192 words; a word stands for 8×8 pixels of the
half-size view.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_splitmask.checkpoints import read_safetensors, write_safetensors
from lit_splitmask.errors import UserError
from lit_splitmask.tokenizers.base import Tokenizer

URL = "https://cdn.openai.com/dall-e/encoder.pkl"
WIDTH, GROUPS, BLOCKS, VOCABULARY = 256, 4, 2, 8192
PATCH = 8
POST_GAIN = 1 / (GROUPS * BLOCKS) ** 2
EPS = 0.1


def shapes() -> dict[str, tuple[int, ...]]:
    """Shapes of the encoder's tensors, by their names in OpenAI's module."""
    by_name: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, inputs: int, outputs: int, side: int) -> None:
        by_name[f"{name}.w"], by_name[f"{name}.b"] = (outputs, inputs, side, side), (outputs,)

    convolution("blocks.input", 3, WIDTH, 7)
    inputs = WIDTH
    for group in range(1, GROUPS + 1):
        outputs = WIDTH * 2 ** (group - 1)
        for block in range(1, BLOCKS + 1):
            name, hidden = f"blocks.group_{group}.block_{block}", outputs // 4
            if inputs != outputs:
                convolution(f"{name}.id_path", inputs, outputs, 1)
            convolution(f"{name}.res_path.conv_1", inputs, hidden, 3)
            convolution(f"{name}.res_path.conv_2", hidden, hidden, 3)
            convolution(f"{name}.res_path.conv_3", hidden, hidden, 3)
            convolution(f"{name}.res_path.conv_4", hidden, outputs, 1)
            inputs = outputs
    convolution("blocks.output.conv", inputs, VOCABULARY, 1)
    return by_name


def check_shapes(state: dict[str, Tensor], source: str | Path) -> None:
    """Checks that a state dict is the encoder's.

    Args:
        state: The tensors by name.
        source: Path of their file, for the message.

    Raises:
        UserError: A tensor is missing, has another shape, or is unknown.
    """
    expected = shapes()
    wrong = [name for name, shape in expected.items() if name not in state or tuple(state[name].shape) != shape]
    wrong += sorted(state.keys() - expected.keys())
    if wrong:
        raise UserError(
            f"{source} does not hold the encoder of DALL-E's d-VAE: {len(wrong)} of its tensors are missing, of another shape or "
            f"unknown ({', '.join(wrong[:3])}, …). Give {URL}, or the file that lit-splitmask convert-dalle writes."
        )


class DallE(Tokenizer):
    """The frozen encoder. Checkpoints do not contain its weights; a resumed run reads them again.

    Args:
        patch_size: Side of a patch in the half-size view, in pixels; must be 8.
        in_chans: Channels of the view; must be 3.
        weights: A file written by ``lit-splitmask convert-dalle``.
        exact: Whether to compute in float32 in any precision of the trainer. In bfloat16 the encoder, which takes most of a small
            ViT's step, needs half the time, and some patches get another word with nearly the same score.

    Raises:
        UserError: ``patch_size`` is not 8 or ``in_chans`` not 3; ``weights`` is missing; or the file does not exist, is damaged,
            or does not hold the encoder.
    """

    def __init__(self, patch_size: int, in_chans: int = 3, *, weights: str | None = None, exact: bool = False) -> None:
        super().__init__(patch_size, in_chans, vocabulary=VOCABULARY)
        if (patch_size, in_chans) != (PATCH, 3):
            raise UserError(
                f"DALL-E's words stand for {PATCH}×{PATCH} pixels of a half-size view in colour: they need a backbone with "
                f"patches of {2 * PATCH} px and 3 channels, not patches of {2 * patch_size} px and {in_chans} channel(s)."
            )
        if weights is None:
            raise UserError(
                "DALL-E's words need the weights of its encoder: convert them once with lit-splitmask convert-dalle, and give "
                "the file as model.objective.tokenizer.weights."
            )
        state, _ = read_safetensors(weights)
        check_shapes(state, weights)
        self._tensors = {name: tensor.float() for name, tensor in state.items()}
        self.exact = exact

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves the weights as well, in float32. They are not buffers, which DDP would send to all processes at each step."""
        self._tensors = {name: tensor.to(fn(tensor).device) for name, tensor in self._tensors.items()}
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def forward(self, view: Tensor) -> Tensor:
        """Visual words of half-size views: (B, 3, h, w) float in [0, 1] -> (B, N) int64 in [0, V)."""
        device = view.device.type
        is_float16 = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
        # float16's range is too small for the encoder
        with torch.autocast(device, enabled=False) if self.exact or is_float16 else nullcontext():
            return self.logits(view).float().argmax(dim=1).flatten(1)

    def logits(self, view: Tensor) -> Tensor:
        """Logits of all words: (B, 3, h, w) float in [0, 1] -> (B, V, h/8, w/8) float. Maps pixels to [0.1, 0.9] first."""
        x = self._convolve("blocks.input", (1 - 2 * EPS) * view.float() + EPS)
        for group in range(1, GROUPS + 1):
            for block in range(1, BLOCKS + 1):
                x = self._block(f"blocks.group_{group}.block_{block}", x)
            if group < GROUPS:
                x = F.max_pool2d(x, 2)
        return self._convolve("blocks.output.conv", F.relu(x))

    def _block(self, name: str, x: Tensor) -> Tensor:
        shortcut = self._convolve(f"{name}.id_path", x) if f"{name}.id_path.w" in self._tensors else x
        for number in range(1, 5):
            x = self._convolve(f"{name}.res_path.conv_{number}", F.relu(x))
        return shortcut + POST_GAIN * x

    def _convolve(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self._tensors[f"{name}.w"], self._tensors[f"{name}.b"]
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)


def save_encoder(state: dict[str, Tensor], path: str | Path) -> None:
    """Writes the encoder's state dict as a file for ``weights`` of :class:`DallE`; it is not checked here."""
    write_safetensors(path, state, {"tokenizer": "dalle"})
