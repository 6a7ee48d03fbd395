"""The command line. Each group of commands is in a file of its own, which is imported when one of them runs."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from modelwright import __version__
from modelwright.cli.terminal import guarded
from modelwright.text import printable

# Command → the module in this package and the function in it, in the order in which a user meets them.
COMMANDS = {
    "init": "init:init_command",
    "build": "build:build_command",
    "plan": "build:plan_command",
    "status": "build:status_command",
    "versions": "versions:versions_command",
    "diff": "versions:diff_command",
    "history": "versions:history_command",
    "rollback": "change:rollback_command",
    "promote": "change:promote_command",
    "retire": "change:retire_command",
    "restore": "change:restore_command",
    "gc": "change:gc_command",
    "fsck": "trust:fsck_command",
    "sign": "trust:sign_command",
    "sbom": "trust:sbom_command",
    "serve": "serve:serve_command",
    "infer": "serve:infer_command",
    "verify": "serve:verify_command",
    "push": "remote:push_command",
    "pull": "remote:pull_command",
    "track": "track:track_command",
    "diff-remote": "remote:diff_remote_command",
    "lint": "lint:lint_command",
    "lock": "lock:lock_command",
    "update": "lock:update_command",
    "new": "builders:new_command",
    "preview": "training:preview_command",
    "adopt": "builders:adopt_command",
    "export-schema": "builders:export_schema_command",
    "doctor": "doctor:doctor_command",
    "load": "load:load",
    "bench": "bench:bench_command",
    "pick": "bench:pick_command",
    "rollout": "rollout:rollout_command",
}


class _LazyGroup(click.Group):
    """Imports a command when it is asked for; suggests a name for one that does not exist."""

    def main(self, *args: Any, **extra: Any) -> Any:
        sys.stdout, sys.stderr = guarded(sys.stdout), guarded(sys.stderr)
        return super().main(*args, **extra)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, function = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f"modelwright.cli.{module}"), function)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        from modelwright.suggest import did_you_mean

        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            ctx.fail(f"no command '{printable(args[0])}': {did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.group(cls=_LazyGroup)
@click.version_option(__version__, prog_name="modelwright")
@click.option(
    "--project",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="The project's folder. Default: this one, or the nearest above it.",
)
@click.pass_context
def main(ctx: click.Context, folder: Path | None) -> None:
    """Build, verify and serve a Triton model repository."""
    ctx.obj = folder or Path.cwd()


if __name__ == "__main__":
    main()
