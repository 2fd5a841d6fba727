"""Completion of `da6401 train` in a shell: the scripts, and their queries to Hydra.

Hydra's own scripts complete commands of one word. Ours send Hydra the same query, so the groups, options, keys and
values on offer are Hydra's; other verbs get the names of verbs and files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from da6401.errors import UserError
from da6401.runs.renamed_keys import renamed_words

PROGRAM = "da6401"
PLAIN = re.compile(r"[\w+~./@=:-]+")  # a word that needs no quotes in a shell
# Words of a key=value are one word for Hydra and two for bash, which breaks at "=": what stands before it is taken off.
BASH = """\
_da6401()
{
    local line="${COMP_LINE:0:$COMP_POINT}" word choices
    local IFS=$' \\t\\n'
    local -a parts
    set -o noglob; parts=($line); set +o noglob
    case "$line" in *[[:space:]]) parts+=("");; esac
    word="${parts[${#parts[@]}-1]}"
    if (( ${#parts[@]} == 2 )); then
        choices="@VERBS@"
    elif [ "${parts[1]}" = train ]; then
        choices="$(COMP_LINE="$line" "${parts[0]}" train -sc query=bash 2> /dev/null)"
    else
        return
    fi
    COMPREPLY=($(compgen -W "$choices" -- "$word"))
    if [[ "$word" == *=* && "$COMP_WORDBREAKS" == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%%=*}="}")
    fi
    if (( ${#COMPREPLY[@]} == 1 )) && [[ "${COMPREPLY[0]}" != *[=./] ]]; then
        COMPREPLY[0]+=" "
    fi
}
complete -o nospace -o default -F _da6401 @PROGRAM@
"""
FISH = """\
function __da6401_train
    set -l words (commandline -opc)
    set -lx COMP_LINE (commandline -cp)
    test "$words[2]" = train; and $words[1] train -sc query=fish 2>/dev/null
end
complete -c @PROGRAM@ -n 'test (count (commandline -opc)) -eq 1' -f -a '@VERBS@'
complete -c @PROGRAM@ -n '__fish_seen_subcommand_from train' -f -a '(__da6401_train)'
"""
INSTALL = {"bash": BASH, "zsh": f"autoload -U +X bashcompinit && bashcompinit\n{BASH}", "fish": FISH}
UNINSTALL = {
    "bash": f"complete -r {PROGRAM}\nunset -f _da6401\n",
    "zsh": f"complete -r {PROGRAM}\nunset -f _da6401\n",
    "fish": f"complete -e -c {PROGRAM}\nfunctions -e __da6401_train\n",
}


def script(words: Sequence[str], verbs: Sequence[str]) -> str | None:
    """The output of `da6401 train -sc install=bash`; None for a query of such a script, which Hydra answers.

    Raises:
        UserError: another shell, or no such request.
    """
    request, _, shell = words[0].partition("=") if len(words) == 1 else ("", "", "")
    if request == "query":
        return None
    texts = {"install": INSTALL, "uninstall": UNINSTALL}.get(request, {})
    if shell not in texts:
        raise UserError(
            f"-sc {' '.join(words)}: write install=SHELL or uninstall=SHELL, SHELL being {', '.join(INSTALL)}"
        )
    return texts[shell].replace("@VERBS@", " ".join(verbs)).replace("@PROGRAM@", PROGRAM)


def ask_hydra() -> list[str]:
    """Give Hydra the line that is being typed with one word as the program; its folders of YAML files, as flags.

    Hydra splits the line at spaces, whatever the quotes, and composes it: words that need quotes are left out.
    """
    line = os.environ.get("COMP_LINE", "")
    words = [*line.split(), ""] if line[-1:].isspace() else line.split()
    before, last = words[2:-1], words[-1] if len(words) > 2 else ""
    os.environ["COMP_LINE"] = " ".join(
        [PROGRAM, *renamed_words([word for word in before if PLAIN.fullmatch(word)]), last]
    )
    folders = re.findall(r"(?:^|\s)(--config-dir|-cd|--config-path|-cp)[ =](\S+)(?=\s)", line)
    return [word for flag in folders for word in flag]
