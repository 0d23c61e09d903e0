# SPDX-License-Identifier: Apache-2.0
# bash completion for pushrod, pushrod-server and pushrod-worker.
#
# Words come from the programs themselves (--print-completion), so they are those of the installed
# version. Queue and worker names come from the server, if it answers at once.

# Names in a list of the server: _pushrod_names queues|workers
_pushrod_names() {
    "${COMP_WORDS[0]}" "$1" --json --connect-timeout 300ms 2>/dev/null |
        sed -n "s/.*\"${1%s}\":\"\([^\"]*\)\".*/\1/p"
}

# Queues that have tasks, and those that a worker would serve; not patterns.
_pushrod_queues() {
    _pushrod_names queues
    "${COMP_WORDS[0]}" workers --json --connect-timeout 300ms 2>/dev/null |
        sed -n 's/.*"queues":"\([^"]*\)".*/\1/p' | tr ',' '\n' | grep -v '[*!]'
}

# The command of the line, in `command`; empty if it is being typed. Flags are no operands.
_pushrod_command() {
    local i
    command=
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        -*) ;;
        *)
            [ -z "$command" ] || operands=$((operands + 1))
            command=${command:-${COMP_WORDS[i]}}
            ;;
        esac
    done
}

_pushrod() {
    local program=${COMP_WORDS[0]} current=${COMP_WORDS[COMP_CWORD]} command operands=0 words=
    local previous=${COMP_WORDS[COMP_CWORD - 1]}
    COMPREPLY=()
    _pushrod_command
    if [ -z "$command" ]; then
        words="$("$program" --print-completion 2>/dev/null) --help --version"
    elif [[ $current == -* ]]; then
        words=$("$program" "$command" --print-completion 2>/dev/null)
    elif [[ $previous == --@(config|joblog|results|token-file) || $command:$operands == map:[1-9]* ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        return
    else
        case $command:$operands in
        submit:0 | map:0 | pause:* | resume:* | purge:* | queues:0) words=$(_pushrod_queues) ;;
        drain:* | workers:0) words=$(_pushrod_names workers) ;;
        dead:0) words='ls show replay drop' ;;
        dead:*) words=$(_pushrod_names queues) ;;
        help:0) words=$("$program" --print-completion 2>/dev/null) ;;
        esac
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}

# The two programs that have options only.
_pushrod_options() {
    local current=${COMP_WORDS[COMP_CWORD]}
    COMPREPLY=()
    if [[ $current == -* ]]; then
        mapfile -t COMPREPLY < <(
            compgen -W "$("${COMP_WORDS[0]}" --print-completion 2>/dev/null)" -- "$current")
    else
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    fi
}

complete -F _pushrod pushrod
complete -F _pushrod_options pushrod-server pushrod-worker
