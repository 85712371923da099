"""``lit-splitmask compare``: compares fine-tuning from own pre-training with training from scratch, over seeds."""

from pathlib import Path

import torch

from lit_splitmask.checkpoints import load_weights
from lit_splitmask.commands import recipe_choice, recipes
from lit_splitmask.commands.chance import chance_level
from lit_splitmask.commands.compare.checks import says_if_gone
from lit_splitmask.commands.compare.experiment import Comparison
from lit_splitmask.commands.compare.options import Options
from lit_splitmask.commands.compare.report import write_report
from lit_splitmask.commands.request import Request
from lit_splitmask.commands.run_cli import quiet, trainer_defaults
from lit_splitmask.errors import UserError
from lit_splitmask.files import as_typed
from lit_splitmask.images.glance import glance
from lit_splitmask.reserved import reserved
from lit_splitmask.shell import say


def compare(request: Request) -> int:
    """Runs the trainings that are not finished yet, and writes the report.

    Raises:
        UserError: An option, the recipe or the images cannot be used, or the output folder has results of other settings.
    """
    quiet()
    if request.predicts_numbers:
        raise UserError(
            "compare needs accuracies, which predicted numbers do not have. To find out whether pre-training is worth it, run "
            "finetune with and without --weights FILE, with several seeds (--model.seed), and compare the errors in test.json."
        )
    options = Options.parse(request.settings())
    if options.weights is not None:
        load_weights(options.weights)  # an error appears before anything is scanned or built
    found = glance(options.root)
    name, choice = options.recipe, None
    if name is None:
        choice = recipe_choice.choose(found.num_images, found.median_side, torch.cuda.is_available())
        name = choice.name.replace("splitmask", "compare", 1)
        say(f"Recipe {name}: {choice.reason}.")
    recipe = recipes.comparison(name)
    for part in [part for part in ("pretrain", "finetune", "joint", "self_training") if part in recipe]:
        changed = "" if choice is None else choice.fit(recipe[part])
        if changed:
            say(f"Changed in the recipe's {part} part: {changed}.")
        recipe[part]["trainer"] = {**trainer_defaults(), "devices": 1, **recipe[part].get("trainer", {})}
    out = Path(options.out or f"runs/compare-{as_typed(options.root).name}")
    comparison = Comparison(options, recipe, out)
    with reserved(out, "give another --out", may_exist=True), says_if_gone(out):
        groups = comparison.run()
    remarks = [chance_level(comparison.test_counts), *comparison.notes]
    write_report(groups, comparison.recommendations(groups), options, out, name, remarks)
    return 0
