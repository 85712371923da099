"""Used by ``overfitting.py``: correlations, regrets and curves of the finished runs."""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from overfitting_sets import DIRECTIONS, Setting
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from scipy.stats import t as student

from lit_splitmask.files import write_atomically
from lit_splitmask.selection.rule import Reading, Rule, decide


@dataclass(frozen=True)
class Run:
    """Results of one run's checkpoints.

    Attributes:
        history: Signals by increasing step.
        accuracies: Test accuracy after fine-tuning by step, the mean over fine-tunings.
        train_losses: Inpainting loss of the passes before, by step.
    """

    history: list[Reading]
    accuracies: dict[int, float]
    train_losses: dict[int, float]

    def regret(self, step: int) -> float:
        """How much worse a checkpoint is than the best one after the start."""
        return max(self.accuracies[reading.step] for reading in self.history) - self.accuracies[step]


def read_runs(out: Path) -> dict[str, list[Run]]:
    """The finished runs of each set."""
    runs: dict[str, list[Run]] = {}
    for name, setting in SETS.items():
        for folder in sorted((out / name).glob("seed*")):
            found = {int(path.stem[3:]): json.loads(path.read_text()) for path in sorted(folder.glob("at-*.json"))}
            done = [len(e.get("accuracies", [])) >= setting.finetunings and "values" in e for e in found.values()]
            if len(done) == len(setting.at_passes) and all(done):
                history = [Reading(step, entry["values"], entry["errors"]) for step, entry in found.items()]
                accuracies = {step: statistics.mean(entry["accuracies"]) for step, entry in found.items()}
                losses = {step: entry["train_inpaint"] for step, entry in found.items()}
                runs.setdefault(name, []).append(Run(history[1:], accuracies, losses))  # without the untrained network
    return runs


def choices(run: Run, total_steps: int) -> dict[str, int]:
    """The step that each rule chooses."""
    chosen = {"last": run.history[-1].step}
    for signal in [signal.name for signal in SIGNALS]:
        for window, margin in ((1, 0.0), (1, 1.0), (Rule.window, Rule.margin)):
            rule = Rule((signal,), window=window, margin=margin)
            step = decide(run.history, directions=DIRECTIONS, total_steps=total_steps, rule=rule).best_step
            assert step is not None
            chosen[f"{signal}, mean of {window}, margin of {margin:g} errors"] = step
    return chosen


def report(out: Path) -> None:
    """Prints correlations and regrets, draws the curves, and writes overfitting.json."""
    runs = read_runs(out)
    console = Console(width=130)
    for name, of_set in runs.items():
        table = Table("signal", "rank correlation with fine-tuned accuracy, run by run", "mean", title=name)
        for signal in SIGNALS:
            direction = 1 if signal.better == "max" else -1
            correlations = []
            for one in of_set:
                values = [direction * reading.values[signal.name] for reading in one.history]
                correlations.append(float(spearmanr(values, [one.accuracies[r.step] for r in one.history]).statistic))
            table.add_row(signal.name, ", ".join(f"{value:+.2f}" for value in correlations), interval(correlations))
        console.print(table)
        table = Table("rule", "steps chosen", "regret, points", title=f"{name}: best checkpoint minus the rule's")
        chosen = [choices(one, SETS[name].num_steps) for one in of_set]
        for rule in chosen[0]:
            regrets = [100 * one.regret(steps[rule]) for one, steps in zip(of_set, chosen, strict=True)]
            table.add_row(rule, ", ".join(f"{steps[rule]:,}" for steps in chosen), interval(regrets))
        at_random = [100 * statistics.mean(one.regret(r.step) for r in one.history) for one in of_set]
        table.add_row("a random one", "", interval(at_random))
        console.print(table)
    draw(runs, out / "overfitting.png")
    stored = {
        name: [
            {"history": [r.as_json() for r in one.history], "accuracies": [one.accuracies[r.step] for r in one.history]}
            for one in of_set
        ]
        for name, of_set in runs.items()
    }
    write_atomically(out / "overfitting.json", json.dumps(stored, indent=1).encode())


def interval(values: list[float]) -> str:
    """Mean and, for three or more values, Student's 95 % interval."""
    mean = statistics.mean(values)
    if len(values) < 3:
        return f"{mean:.2f}"
    half = float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.2f} [{mean - half:.2f}, {mean + half:.2f}]"


def draw(runs: dict[str, list[Run]], path: Path) -> None:
    """Draws accuracy, losses and signals over the passes, with one row per set and one line per run."""
    signals = [signal.name for signal in SIGNALS]
    figure = Figure(figsize=(3.2 * (2 + len(signals)), 2.8 * len(runs)), layout="constrained")
    grid = figure.subplots(len(runs), 2 + len(signals), squeeze=False)
    for row, (name, of_set) in zip(grid, runs.items(), strict=True):
        for one in of_set:
            steps = [reading.step for reading in one.history]
            passes = [step / SETS[name].steps_per_pass for step in steps]
            row[0].plot(passes, [100 * one.accuracies[step] for step in steps], marker=".")
            row[1].plot(passes, [one.train_losses[step] for step in steps], marker=".")
            for axes, signal in zip(row[2:], signals, strict=True):
                axes.plot(passes, [reading.values[signal] for reading in one.history], marker=".")
        for axes, title in zip(row, ["fine-tuned accuracy, %", "training loss", *signals], strict=True):
            axes.set(title=f"{name}: {title}", xscale="log", xlabel="passes")
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=80)
