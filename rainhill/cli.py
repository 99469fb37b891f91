"""The one command: `rainhill NAME` loads the entry point of that name from the group `rainhill.commands`, and only that."""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points

import click
from click.shell_completion import CompletionItem

from rainhill import __version__
from rainhill.errors import RainhillError
from rainhill.text import did_you_mean

FAILED = 2


class _Commands(click.Group):
    """Subcommands are found by entry point, so a package adds one without touching this file."""

    def list_commands(self, context: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return sorted(_found())

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        found = _found().get(name)
        if found is None and context.resilient_parsing:
            # A shell completes what was typed so far, whatever it is.
            return None
        if found is None:
            context.fail(f"no command {name!r}{did_you_mean(name, _found(), cutoff=0.4)} (there are: {', '.join(sorted(_found()))})")
        with stops_at_once():
            command = found.load()
        if not isinstance(command, click.Command):
            raise TypeError(f"entry point {found.value} is {type(command).__name__}, not a click command")
        return command

    def shell_complete(self, context: click.Context, incomplete: str) -> list[CompletionItem]:
        """By name alone: to tell what each is for, all of them would be loaded."""
        named = [CompletionItem(name) for name in self.list_commands(context) if name.startswith(incomplete)]
        return named + click.Command.shell_complete(self, context, incomplete)


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rainhill")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens, never whom it happens to.")
def rainhill(verbose: bool) -> None:
    """Adapters move, images don't: federated adaptation of medical-imaging models."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)


@contextmanager
def stops_at_once() -> Iterator[None]:
    """While a library loads, Ctrl-C ends the process without an exception, which would be lost where it falls into a destructor."""

    def stop(*_: object) -> None:
        os.write(2, b"rainhill: stopped\n")
        os._exit(FAILED)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def main() -> None:
    """Every foreseen failure is one clear line on stderr and exit code 2."""
    try:
        rainhill(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(FAILED)
    except RainhillError as error:
        click.echo(f"rainhill: {error}", err=True)
        sys.exit(FAILED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"rainhill: {where}{error.strerror or error}", err=True)
        sys.exit(FAILED)
    except (KeyboardInterrupt, click.Abort):
        click.echo("rainhill: stopped", err=True)
        sys.exit(FAILED)


def _found() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="rainhill.commands")}


if __name__ == "__main__":
    main()
