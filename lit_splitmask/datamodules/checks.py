"""Checks of the settings of datamodules."""

from lit_splitmask.errors import UserError


def check_counts(**settings: int | None) -> None:
    """Checks that settings, given by name, are at least 1 or None.

    Raises:
        UserError: One is less than 1.
    """
    for name, value in settings.items():
        if value is not None and value < 1:
            raise UserError(f"{name}={value}, but it must be at least 1.")


def check_enough_images(num_images: int, num_processes: int) -> None:
    """Checks that every process has an image to evaluate or predict, which Lightning needs.

    Raises:
        UserError: There are fewer images than processes, but not none.
    """
    if 0 < num_images < num_processes:
        raise UserError(
            f"{num_images} image(s) cannot be divided among {num_processes} processes: use fewer devices for evaluation and "
            f"prediction (--trainer.devices={num_images} or 1)."
        )
