"""Pre-training that starts from weights: what its settings take from them."""

from dataclasses import asdict
from typing import Any

from lit_splitmask.checkpoints import config_of, load_weights
from lit_splitmask.commands import recipe_choice, recipes
from lit_splitmask.commands.request import Request
from lit_splitmask.commands.run_folder import RunFolder
from lit_splitmask.config_files import settings_in
from lit_splitmask.errors import UserError

LINKED = ("image_size", "in_chans")
"""Parts of the shape that follow the images."""

NAMED = ("embed_dim", "depth", "num_heads")
"""Parts of the shape that a named size stands for."""


def fit_to_weights(request: Request, settings: dict[str, Any]) -> None:
    """Gives a recipe the shape of ``--weights``, and its images their size and channels.

    A built-in recipe's shape gives way. What the user's own files and options say of the shape stays, so that a shape that
    contradicts the weights is refused when they are loaded.

    Args:
        request: The command line.
        settings: Settings, which are changed.

    Raises:
        UserError: The weights or a file of settings cannot be read.
    """
    assert request.weights is not None
    weights = load_weights(request.weights)
    config = config_of(weights).resolved()
    files = [*([request.recipe] if request.recipe not in (None, *recipes.available()) else []), *request.configs]
    own = [settings_in(str(file)) for file in files]
    shapes = [(file.get("model") or {}).get("backbone") or {} for file in own]
    model = settings.setdefault("model", {})
    backbone = {name: value for name, value in asdict(config).items() if name not in (*LINKED, "drop_path")}
    if request.value("--model.backbone.size") is not None or any("size" in shape for shape in shapes):
        backbone = {name: value for name, value in backbone.items() if name not in NAMED}
    model["backbone"] = {"drop_path": 0.1, **model.get("backbone", {}), **backbone}
    for shape in shapes:
        model["backbone"] |= shape
    sized = any("image_size" in ((file.get("data") or {}).get("init_args") or {}) for file in own)
    recipe_choice.fit_to_weights(settings, config.timm_args(), size=not sized, window=weights.info.get("pixel_window"))


def goes_on(request: Request, settings: dict[str, Any]) -> Request:
    """The request to resume a run, whose checkpoint holds all weights: those that it started from are not loaded again.

    Args:
        request: The command line.
        settings: Settings of the run, which are changed if it has a checkpoint.

    Raises:
        UserError: Other weights are given than those that the run started from.
    """
    started = settings.get("model", {}).get("weights")
    if request.weights is not None and request.weights != started:
        raise UserError(
            f"The run {request.name} started from {started or 'random weights'}, not from {request.weights}: leave out "
            "--weights to resume it, or leave out --resume and give another --name."
        )
    if RunFolder.existing(request.runs_dir, request.name).newest_checkpoint() is not None:
        settings.get("model", {})["weights"] = None
    given = tuple(option for option in request.given if option.key not in ("--weights", "--model.weights"))
    return Request(request.command, given)
