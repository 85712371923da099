"""``lit-splitmask reproduce``: lists the rows of the paper's tables and figures, and runs one of them."""

from pathlib import Path

from lit_splitmask.commands.processes import launched
from lit_splitmask.commands.reproduce.checks import checked
from lit_splitmask.commands.reproduce.options import Options
from lit_splitmask.commands.reproduce.report import as_json, read_results, show, show_results, write_results
from lit_splitmask.commands.reproduce.running import run_row
from lit_splitmask.commands.reproduce.stages import stages_of
from lit_splitmask.commands.reproduce.timing import StepClock
from lit_splitmask.commands.request import Request
from lit_splitmask.datamodules.paper_rows import PaperTable, Row
from lit_splitmask.errors import UserError
from lit_splitmask.files import cannot_write


def reproduce(request: Request) -> int:
    """Lists rows, or runs one: pre-training, fine-tuning and evaluation of each seed.

    Raises:
        UserError: There is no such table or row, an option is out of range, the row's files are missing, or a launcher started
            several of these processes.
        SystemExit: A command of the row failed, or was stopped by a signal.
    """
    options = Options.parse(request.settings())
    tables = options.tables()
    if options.row is None:
        _list(tables, options)
        return 0
    row = options.chosen()
    if options.json or options.hours:
        (table,) = tables
        _list([PaperTable(table.name, table.title, table.note, {row.name: row})], options)
    elif options.dry_run:
        _print_commands(row, options)
    else:
        _run(row, tables[0], options)
    return 0


def _list(tables: list[PaperTable], options: Options) -> None:
    hours = StepClock().hours if options.hours else None
    if options.json:
        print(as_json(tables, options.setting(), hours))
    else:
        show(tables, options.setting(), hours)


def _print_commands(row: Row, options: Options) -> None:
    if row.outside is not None:
        raise UserError(f"The row {row.name} of {row.table} has no commands: it needs {row.outside}.")
    for seed in options.seeds:
        for stage in stages_of(row, seed, options.setting()):
            print(stage)


def _run(row: Row, table: PaperTable, options: Options) -> None:
    started = launched()
    if started is not None and started.per_node * started.nodes > 1:
        raise UserError(
            "reproduce starts one command after the other, and the processes of torchrun or srun cannot share them: print the "
            "commands with --dry_run, run each with the launcher, and then this one without it, which takes what is finished."
        )
    setting = checked(row, options)
    out = Path(setting.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from error
    read_results(out)  # whether it can be read is better known before the trainings
    if setting.scale < 1:
        print(
            f"Every training has {setting.scale:g} times the paper's steps: the numbers cannot be compared with the paper's."
        )
    measured = run_row(row, options.seeds, setting)
    commands = [str(stage) for seed in options.seeds for stage in stages_of(row, seed, setting)]
    entry = write_results(row, measured, commands, setting)
    show_results(row, entry, table.note, setting)
