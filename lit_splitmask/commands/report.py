"""The plot of a comparison."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from lit_splitmask.checkpoints import write_atomically
from lit_splitmask.comparison import Arm, mean_and_sd, share_verdict


def draw(groups: Mapping[float, Sequence[Arm]], title: str, path: Path) -> None:
    """Writes a PNG: one panel a share of the labels, a dot a seed, lines between the arms of a seed, a bar the mean."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 4.2 * len(groups), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(groups), squeeze=False)[0]
    for axis, (share, arms) in zip(axes, groups.items(), strict=True):
        for seed in arms[0].accuracy:
            axis.plot([100 * arm.accuracy[seed] for arm in arms], "o-", color="0.75", markersize=4, linewidth=0.8)
        for place, arm in enumerate(arms):
            mean, _ = mean_and_sd([100 * a for a in arm.accuracy.values()])
            axis.plot([place - 0.2, place + 0.2], [mean, mean], color="C0", linewidth=3)
            axis.annotate(f"{mean:.1f}", (place, mean), textcoords="offset points", xytext=(0, 7), ha="center")
        axis.set_xticks(range(len(arms)), [arm.label.replace(", ", ",\n") for arm in arms], fontsize=8)
        axis.margins(x=0.15, y=0.15)
        axis.set_ylabel("test accuracy, %")
        axis.set_title(f"{share:.0%} of the labels\n{share_verdict(arms).split(':')[0]}", fontsize=10)
    figure.suptitle(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomically(path, buffer.getvalue())
