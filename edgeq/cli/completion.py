"""`edgeq completion`: print a shell completion script."""

from __future__ import annotations

import click

from edgeq.cli.ui import App, command


@command(
    "completion",
    examples=[
        'eval "$(edgeq completion bash)"',
        "edgeq completion zsh > ~/.zfunc/_edgeq",
        "edgeq completion fish > ~/.config/fish/completions/edgeq.fish",
    ],
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(app: App, shell: str) -> None:
    """Print the completion script for SHELL.

    It completes commands, options, and the names of devices, labels, models, releases, rollouts, experiments
    and keys of the workspace.
    """
    from click.shell_completion import get_completion_class

    from edgeq.cli.root import root

    completer = get_completion_class(shell)
    if completer is None:
        raise TypeError(f"click has no completion for {shell}")
    script = completer(root, {}, "edgeq", "_EDGEQ_COMPLETE").source()
    app.ui.text(script)
    app.ui.emit("edgeq.completion/1", {"shell": shell, "script": script})
