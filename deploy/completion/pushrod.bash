# SPDX-License-Identifier: Apache-2.0
# bash completion for pushrod, pushrod-server and pushrod-worker.
#
# Words come from the programs themselves (--print-completion), so they are those of the installed
# version; queues, workers and dead tasks come from the server, if it answers at once. A line is a
# word, a tab, and what it means, which bash has no place for.

# The line up to the cursor, as `words`, of which the last is `current`. bash itself would make three
# words of a queue's name with a colon.
_pushrod_split() {
    local line=${COMP_LINE:0:COMP_POINT}
    read -ra words <<<"$line"
    [[ $line != *[[:space:]] ]] || words+=("")
    current=${words[-1]}
    previous=${words[-2]}
}

# What a program prints, as words that begin as the current one; without what bash takes for words
# before it.
_pushrod_reply() {
    mapfile -t COMPREPLY < <(compgen -W "$("$@" 2>/dev/null | cut -f1)" -- "$current")
    if [[ $current == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${current%"${current##*:}"}"}")
    fi
}

_pushrod_files() {
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
}

# --print-completion comes first, so that no word behind it can make the command run.
_pushrod() {
    local program=${COMP_WORDS[0]} words current previous command
    COMPREPLY=()
    _pushrod_split
    command=${words[1]}
    if [ "${#words[@]}" = 2 ]; then
        if [[ $current == -* ]]; then
            mapfile -t COMPREPLY < <(compgen -W '--help --version' -- "$current")
        else
            _pushrod_reply "$program" --print-completion
        fi
    elif [[ $command == -* ]]; then
        return
    elif [[ $previous == --@(config|joblog|results|token-file) ]]; then
        _pushrod_files
    elif [[ $current == -* ]]; then
        _pushrod_reply "$program" "$command" --print-completion
    else
        _pushrod_reply "$program" "$command" --print-completion "${words[@]:2}"
        # Inputs of map may be names of files.
        [[ $command != map || ${#COMPREPLY[@]} != 0 ]] || _pushrod_files
    fi
}

# The two programs that have options only.
_pushrod_options() {
    local current=${COMP_WORDS[COMP_CWORD]}
    COMPREPLY=()
    if [[ $current == -* ]]; then
        _pushrod_reply "${COMP_WORDS[0]}" --print-completion
    else
        _pushrod_files
    fi
}

complete -F _pushrod pushrod
complete -F _pushrod_options pushrod-server pushrod-worker
