"""The command `forebay`. A command's module is imported when that command is run, so that `--help` is quick."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import click

# name -> module:command, and the line that --help shows
COMMANDS = {
    "up": ("ops.cli.up:up", "Start the appliance, or take over what still runs."),
    "down": ("ops.cli.down:down", "Stop the appliance."),
    "status": ("ops.cli.status:status", "Show what runs, where it listens, and what became of what came in."),
    "doctor": ("ops.cli.doctor:doctor", "Check this machine and the appliance; say what to do."),
    "demo": ("ops.cli.demo:demo", "Show it at work with simulated devices."),
    "topic": ("ops.cli.topic:topic", "Create, look at, change and delete topics; produce and consume."),
    "group": ("ops.cli.group:group", "Look at consumer groups, how far behind they are; move and delete them."),
    "cluster": ("ops.cli.cluster:cluster", "Look at brokers and replicas; move leaders and replicas about."),
    "gateway": ("ops.cli.gateway:gateway", "Run a gateway alone, on another machine than the log."),
    "log": ("ops.cli.log:log", "Read and verify the log's files."),
    "config": ("ops.cli.config:config", "Show and check settings."),
    "bench": ("ops.cli.bench:bench", "Measure this machine and the appliance on it."),
}


class LazyGroup(click.Group):
    """Commands of the table above."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        try:
            command: click.Command = getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise click.ClickException(
                    f"the Python module {error.name} is not installed; install Forebay with all it needs: "
                    "pip install forebay"
                ) from None
            raise click.ClickException(f"`forebay {name}` is not part of this version") from None
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean `forebay {near[0]}`?" if near else "see: forebay --help"
            raise click.UsageError(f"there is no command {args[0]}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"forebay {version('forebay')}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version.")
def cli() -> None:
    """Forebay: takes events as they come, keeps them in a log, hands them on as they are needed.

    \b
      forebay up --detach        start
      forebay status             see it
      forebay down               stop
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process."""
    if sys.platform != "linux":
        sys.exit(f"forebay: runs on Linux only (it leans on pidfd, flock and fdatasync); this is {sys.platform}")
    cli.main(args=list(arguments) if arguments is not None else None, prog_name="forebay")


if __name__ == "__main__":
    main()
