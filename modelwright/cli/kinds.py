"""The option `--kind`: what it takes and what its help says come from the registry, which only `new` loads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from modelwright.errors import KindError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class KindName(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click only
    """The name of a source kind."""

    name = "kind"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from modelwright.kinds.registry import find

        try:
            return find(str(value)).name
        except KindError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from modelwright.operations.scaffold import scaffolded_kinds

        return click.Choice([kind.name for kind in scaffolded_kinds()]).shell_complete(ctx, param, incomplete)


class CommandWithKinds(click.Command):
    """A command whose help ends with the kinds that it can start a builder of."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from modelwright.operations.scaffold import scaffolded_kinds

        with formatter.section("Kinds"):
            formatter.write_dl([(kind.name, kind.summary) for kind in scaffolded_kinds()])
