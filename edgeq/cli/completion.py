"""`edgeq completion`: print a shell completion script."""

from __future__ import annotations

import click

from edgeq.cli.ui import App, command

# Unlike click's script, this one completes words with `:` and `=` such as `label:site=lab`: bash splits them
# there, and replaces only what comes after the last one.
_BASH = r"""
_edgeq_completion() {
    local line="${COMP_LINE:0:COMP_POINT}" current before count type value
    local -a words
    IFS=$' \t' read -ra words <<< "$line"
    count=${#words[@]}
    if [[ $line != *[[:space:]] ]]; then
        count=$((count - 1))
        current="${words[count]}"
    fi
    before="${current%"${current##*[:=]}"}"
    COMPREPLY=()
    while IFS=',' read -r type value; do
        if [[ $type == dir ]]; then
            compopt -o dirnames
        elif [[ $type == file ]]; then
            compopt -o default
        elif [[ $type == plain ]]; then
            COMPREPLY+=("${value#"$before"}")
        fi
    done < <(env COMP_WORDS="$line" COMP_CWORD="$count" _EDGEQ_COMPLETE=bash_complete "$1")
}

complete -o nosort -F _edgeq_completion edgeq
"""


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
    made = completer(root, {}, "edgeq", "_EDGEQ_COMPLETE")
    script = _BASH if shell == "bash" else made.source()
    app.ui.text(script)
    app.ui.emit("edgeq.completion/1", {"shell": shell, "script": script})
