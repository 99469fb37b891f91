"""`rainhill completion`: the script by which a shell completes commands, options, and the names of runs and sites."""

import click

HELP = """Print the script by which SHELL completes `rainhill` and all of its commands.

Put it where the shell looks for such scripts, and open a new shell:

\b
bash  rainhill completion bash > ~/.local/share/bash-completion/completions/rainhill
zsh   rainhill completion zsh > ~/.zfunc/_rainhill
fish  rainhill completion fish > ~/.config/fish/completions/rainhill.fish

\b
bash wants the package bash-completion; without it, add to ~/.bashrc:
      source <(rainhill completion bash)
zsh wants its folder named in ~/.zshrc, before compinit:
      fpath=(~/.zfunc $fpath); autoload -Uz compinit; compinit

Names of runs and sites are completed where the coordinator's folder or the site's file is at hand.
"""


@click.command(help=HELP, short_help="Print the script by which a shell completes commands.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), metavar="bash|zsh|fish")
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    from click.shell_completion import ShellComplete, get_completion_class

    form = get_completion_class(shell)
    assert form is not None
    # Not the shell's own `source`, which first starts a bash to ask for its version: the script may be for another machine.
    script = ShellComplete.source(form(context.find_root().command, {}, "rainhill", "_RAINHILL_COMPLETE"))
    click.echo(script)
