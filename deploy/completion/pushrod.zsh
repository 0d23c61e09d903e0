#compdef pushrod pushrod-server pushrod-worker
# SPDX-License-Identifier: Apache-2.0
# zsh completion for pushrod, pushrod-server and pushrod-worker.
#
# Words and what they mean come from the programs themselves (--print-completion), so they are those
# of the installed version; queues, workers and dead tasks come from the server, if it answers at
# once.

# What a program prints: lines of a word, a tab, and what it means.
_pushrod_reply() {
    local -a found
    local line tab=$'\t'
    for line in ${(f)"$("$@" 2>/dev/null)"}; do
        found+=("${${line%%$tab*}//:/\\:}:${line#*$tab}")
    done
    _describe -t words word found
}

# --print-completion comes first, so that no word behind it can make the command run.
_pushrod_command() {
    local program=$words[1] command=$words[2] current=$words[CURRENT] previous=$words[CURRENT-1]
    if ((CURRENT == 2)); then
        if [[ $current == -* ]]; then
            compadd -- --help --version
        else
            _pushrod_reply $program --print-completion
        fi
    elif [[ $command == -* ]]; then
        return 1
    elif [[ $previous == --(config|joblog|results|token-file) ]]; then
        _files
    elif [[ $current == -* ]]; then
        _pushrod_reply $program $command --print-completion
    else
        # Inputs of map may be names of files.
        _pushrod_reply $program $command --print-completion "${(@Q)words[3,CURRENT-1]}" "$current" ||
            { [[ $command == map ]] && _files }
    fi
}

case $service in
pushrod)
    _pushrod_command
    ;;
*) # the two programs that have options only
    if [[ $words[CURRENT] == -* ]]; then
        _pushrod_reply $words[1] --print-completion
    else
        _files
    fi
    ;;
esac
