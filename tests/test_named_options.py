"""Every option and setting that an error, a message or a page names exists."""

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from lightning import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from pages import PAGES, ROOT, blocks, name_of, spans

from lit_splitmask import augment, callbacks, datamodules, masking, modules, objectives, tokenizers
from lit_splitmask.commands.help import documented, help_of
from lit_splitmask.commands.parser import CONFIG_MODE, Parser
from lit_splitmask.images.index import SplitOptions
from lit_splitmask.models import ViTConfig
from lit_splitmask.optim import OptimConfig

OPTION = re.compile(r"(?<![\w-])--([a-z][\w.-]*)")
SETTING = re.compile(
    r"(?<![\w./-])((?:data|model|trainer)\.(?!fit|onnx|pt2|safetensors)[a-z_]+(?:\.[a-z_]+)*)\b(?![(/])"
)

OF_OTHER_PROGRAMS = {
    *("node-rank", "nnodes", "nproc-per-node", "master-addr", "master-port", "no-python", "standalone"),  # torchrun
    *("requeue", "signal", "job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "time"),  # sbatch
    *("max-restarts", "shm-size", "recursive"),  # torchrun, docker, gcloud
    *("dist", "index-url", "index_url", "strict", "version"),  # pytest, pip, mkdocs
}

PARTS: dict[str, tuple[Any, ...]] = {
    "data": (datamodules,),
    "data.augment": (augment,),
    "data.budget": (datamodules.Budget,),
    "data.splits": (SplitOptions,),
    "model": (modules,),
    "model.backbone": (ViTConfig,),
    "model.optim": (OptimConfig,),
    "model.objective": (objectives,),
    "model.auxiliary": (objectives,),
    "model.objective.tokenizer": (tokenizers,),
    "model.objective.masking": (masking,),
    "model.objective.auxiliary": (objectives,),
    "trainer.callbacks": (callbacks, EarlyStopping),
    "trainer.logger": (TensorBoardLogger, WandbLogger, MLFlowLogger),
}
"""Where a setting names a class: the packages of the classes, or the classes."""


def classes_of(part: Any) -> list[type]:
    if inspect.isclass(part):
        return [part]
    names = getattr(part, "__all__", None) or [name for name, one in vars(part).items() if inspect.isclass(one)]
    return [one for one in (getattr(part, name) for name in names) if inspect.isclass(one)]


@cache
def settings() -> frozenset[str]:
    """The names of all settings, without their dashes."""
    names = set(PARTS)
    for prefix, parts in {**PARTS, "trainer": (Trainer,)}.items():
        for one in {one for part in parts for one in classes_of(part)}:
            parser = Parser(parser_mode=CONFIG_MODE, allow_abbrev=False)
            parser.add_class_arguments(one, prefix, fail_untyped=False)
            names |= {name.removeprefix("--") for name in parser._option_string_actions}
    return frozenset(names)


@cache
def options() -> frozenset[str]:
    """The names of all options, without their dashes."""
    helps = " ".join(help_of(command) or "" for command in documented())
    shown = {name.rstrip("+.") for name in OPTION.findall(helps)}
    return frozenset(
        shown
        | settings()
        | {"trainer.max_", "runs_dir", "ckpt_path", "predictions.path", "model.weights", "return_predictions"}
    )


def unknown(text: str) -> list[str]:
    """Options and settings that a text names and that do not exist."""
    text = text.replace("--auxiliary.", "--model.auxiliary.").replace(".init_args", "").replace(".class_path", "")
    named = [name.rstrip(".-") for name in OPTION.findall(text)]
    wrong = [f"--{name}" for name in named if name not in options() | OF_OTHER_PROGRAMS]
    return wrong + [name for name in SETTING.findall(OPTION.sub("", text)) if name not in settings()]


def texts_in(path: Path) -> Iterator[str]:
    """The texts in the code of a file, without docstrings; what is filled in is a space."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    notes = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
            yield re.sub(r"--[\w.-]*\0[\w.-]*", "", "".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside | notes:
            yield node.value


CODE = [path for path in sorted((ROOT / "lit_splitmask").rglob("*.py")) if "--" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_the_options_that_a_message_names_exist(path: Path) -> None:
    assert [(wrong, text) for text in texts_in(path) if (wrong := unknown(text))] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name_of)
def test_the_options_that_a_page_names_exist(page: Path) -> None:
    scripts = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py"))
    wrong = [name for span in [*spans(page), *blocks(page, "sh", "bash")] for name in unknown(span)]
    assert [name for name in wrong if f'"{name}"' not in scripts] == []
