# Completion for notmuch-imap in fish. A file of this name in ~/.config/fish/completions,
# or in config.fish:  notmuch-imap completion fish | source

function __notmuch_imap_complete
    set -l typed (commandline -opc) (commandline -ct)
    set -l found (notmuch-imap complete -- $typed[2..-1] 2>/dev/null)
    if test "$found[1]" = files
        set -l option (string match -r '^(?:--[^=]*=)?' -- $typed[-1])
        string join \n -- $option(__fish_complete_path (string replace -- "$option" '' $typed[-1]))
        return
    end
    printf '%s\n' $found[2..-1]
end
complete -c notmuch-imap -f -a '(__notmuch_imap_complete)'
