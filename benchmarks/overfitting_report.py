"""Used by ``overfitting.py``: correlations, regrets and curves of the finished runs."""

import json
import math
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
        setting: How it was trained.
        history: Signals by increasing step, without the untrained network's.
        accuracies: Test accuracy by step, of the judge: after fine-tuning, the mean over fine-tunings, or of the linear probe;
            step 0 is the untrained network.
        probes: Test accuracy of a linear probe on the images of fine-tuning, by step.
        train_losses: Loss of the passes before, by step.
    """

    setting: Setting
    history: list[Reading]
    accuracies: dict[int, float]
    probes: dict[int, float]
    train_losses: dict[int, float]

    def regret(self, step: int) -> float:
        """How much worse a checkpoint is than the best one after the start."""
        return max(self.accuracies[reading.step] for reading in self.history) - self.accuracies[step]

    @property
    def signals(self) -> list[str]:
        """Names of the signals that have values throughout."""
        return [name for name in self.setting.signals if all(math.isfinite(r.values[name]) for r in self.history)]


JUDGES = {"finetune": "fine-tuned", "probe": "linear probe"}
"""What the test accuracy of a checkpoint may come from, and its name in tables."""


def read_runs(out: Path, judge: str) -> dict[str, list[Run]]:
    """The runs of each setting whose checkpoints have all been judged; with ``probe``, fine-tunings may be missing."""
    runs: dict[str, list[Run]] = {}
    for path in sorted(out.glob("*/setting.json")):
        setting = Setting.recorded(path.parent)
        for folder in sorted(path.parent.glob("seed*")):
            found = {int(path.stem[3:]): json.loads(path.read_text()) for path in sorted(folder.glob("at-*.json"))}
            least = setting.finetunings if judge == "finetune" else 0
            done = [len(e.get("accuracies", [])) >= least and "values" in e for e in found.values()]
            if len(done) == len(setting.at_passes) and all(done):
                history = [Reading(step, entry["values"], entry["errors"]) for step, entry in found.items()]
                probes = {step: entry["probe"] for step, entry in found.items()}
                accuracies = probes
                if judge == "finetune":
                    accuracies = {step: statistics.mean(entry["accuracies"]) for step, entry in found.items()}
                losses = {step: entry["train_loss"] for step, entry in found.items()}
                runs.setdefault(path.parent.name, []).append(Run(setting, history[1:], accuracies, probes, losses))
    return runs


def choices(run: Run) -> dict[str, int]:
    """The step that each rule chooses."""
    chosen = {"last": run.history[-1].step}
    rules = {"default rule": Rule()}
    for signal in run.signals:
        for window, margin in ((1, 0.0), (1, 1.0), (Rule.window, Rule.margin)):
            rules[f"{signal}, mean of {window}, margin of {margin:g} errors"] = Rule(
                (signal,), window=window, margin=margin
            )
    for name, rule in rules.items():
        step = decide(run.history, directions=DIRECTIONS, total_steps=run.setting.num_steps, rule=rule).best_step
        assert step is not None
        chosen[name] = step
    return chosen


def report(out: Path, judge: str) -> None:
    """Prints correlations and regrets, draws the curves, and writes overfitting.json."""
    runs = read_runs(out, judge)
    console = Console(width=130)
    for name, of_set in runs.items():
        table = Table("signal", f"rank correlation with {JUDGES[judge]} accuracy, run by run", "mean", title=name)
        for signal in of_set[0].signals:
            direction = 1 if DIRECTIONS[signal] == "max" else -1
            correlations = []
            for one in of_set:
                values = [direction * reading.values[signal] for reading in one.history]
                correlations.append(float(spearmanr(values, [one.accuracies[r.step] for r in one.history]).statistic))
            table.add_row(signal, ", ".join(f"{value:+.2f}" for value in correlations), interval(correlations))
        console.print(table)
        table = Table("rule", "steps chosen", "regret, points", title=f"{name}: best checkpoint minus the rule's")
        chosen = [choices(one) for one in of_set]
        for rule in chosen[0]:
            regrets = [100 * one.regret(steps[rule]) for one, steps in zip(of_set, chosen, strict=True)]
            table.add_row(rule, ", ".join(f"{steps[rule]:,}" for steps in chosen), interval(regrets))
        at_random = [100 * statistics.mean(one.regret(r.step) for r in one.history) for one in of_set]
        table.add_row("a random one", "", interval(at_random))
        console.print(table)
        console.print(accuracies_table(name, of_set, judge))
    draw(runs, judge, out / "overfitting.png")
    stored = {
        name: [
            {"history": [r.as_json() for r in one.history], "accuracies": [one.accuracies[r.step] for r in one.history]}
            for one in of_set
        ]
        for name, of_set in runs.items()
    }
    write_atomically(out / "overfitting.json", json.dumps(stored, indent=1).encode())


def accuracies_table(name: str, runs: list[Run], judge: str) -> Table:
    """Accuracy of every checkpoint, the mean over the runs, and how far it falls from the best to the last."""
    passes = [f"{number:,}" for number in runs[0].setting.at_passes]
    table = Table("accuracy, %", *passes, "fall", title=f"{name}: passes")
    rows = {JUDGES[judge]: [one.accuracies for one in runs], JUDGES["probe"]: [one.probes for one in runs]}
    for row, accuracies in rows.items():
        curves = [[100 * value for value in by_step.values()] for by_step in accuracies]
        means = [f"{statistics.mean(values):.1f}" for values in zip(*curves, strict=True)]
        table.add_row(row, *means, interval([max(curve[1:]) - curve[-1] for curve in curves]))
    return table


def interval(values: list[float]) -> str:
    """Mean and, for three or more values, Student's 95 % interval."""
    mean = statistics.mean(values)
    if len(values) < 3:
        return f"{mean:.2f}"
    half = float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.2f} [{mean - half:.2f}, {mean + half:.2f}]"


def draw(runs: dict[str, list[Run]], judge: str, path: Path) -> None:
    """Draws accuracies, losses and signals over the passes, with one row per setting and one line per run."""
    signals = list(dict.fromkeys(signal for of_set in runs.values() for signal in of_set[0].signals))
    judges = list(dict.fromkeys([JUDGES[judge], JUDGES["probe"]]))
    titles = [*(f"{judge}, %" for judge in judges), "training loss", *signals]
    figure = Figure(figsize=(3.2 * len(titles), 2.8 * len(runs)), layout="constrained")
    grid = figure.subplots(len(runs), len(titles), squeeze=False)
    for row, (name, of_set) in zip(grid, runs.items(), strict=True):
        for one in of_set:
            steps = [reading.step for reading in one.history]
            passes = [step / one.setting.steps_per_pass for step in steps]
            row[0].plot(passes, [100 * one.accuracies[step] for step in steps], marker=".")
            row[len(judges) - 1].plot(passes, [100 * one.probes[step] for step in steps], marker=".")
            row[len(judges)].plot(passes, [one.train_losses[step] for step in steps], marker=".")
            for axes, signal in zip(row[len(judges) + 1 :], signals, strict=True):
                if signal in one.signals:
                    axes.plot(passes, [reading.values[signal] for reading in one.history], marker=".")
        for axes, title in zip(row, titles, strict=True):
            axes.set(title=f"{name}: {title}", xscale="log", xlabel="passes")
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=80)
