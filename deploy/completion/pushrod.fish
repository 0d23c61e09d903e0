# SPDX-License-Identifier: Apache-2.0
# fish completion for pushrod, pushrod-server and pushrod-worker.
#
# Words and what they mean come from the programs themselves (--print-completion), in the very form
# that fish wants, so they are those of the installed version; queues, workers and dead tasks come
# from the server, if it answers at once.

# --print-completion comes first, so that no word behind it can make the command run.
function __pushrod_words
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    if test (count $words) = 1
        if string match -q -- '-*' $current
            printf '%s\n' --help --version
        else
            $words[1] --print-completion 2>/dev/null
        end
    else if string match -q -- '-*' $words[2]
        return
    else if string match -q -- '-*' $current
        $words[1] $words[2] --print-completion 2>/dev/null
    else
        $words[1] $words[2] --print-completion $words[3..-1] "$current" 2>/dev/null
    end
end

# Values of some options are names of files, and inputs of map may be.
function __pushrod_files
    set -l words (commandline -opc)
    string match -qr -- '^--(config|joblog|results|token-file)$' $words[-1]
    or begin
        test (count $words) -gt 2; and test $words[2] = map
    end
end

# The two programs that have options only.
function __pushrod_options
    set -l words (commandline -opc)
    if string match -q -- '-*' (commandline -ct)
        $words[1] --print-completion 2>/dev/null
    end
end

complete -c pushrod -f
complete -c pushrod -n 'not __pushrod_files' -a '(__pushrod_words)'
complete -c pushrod -n __pushrod_files -F -a '(__pushrod_words)'
complete -c pushrod-server -a '(__pushrod_options)'
complete -c pushrod-worker -a '(__pushrod_options)'
