# Completion for notmuch-imap, and for "notmuch imap" beside notmuch's own.
# In ~/.bashrc:  source <(notmuch-imap completion bash)

_notmuch_imap() {
	local rest=$COMP_LINE word raw= head= quote= line kind=
	local -a typed=()
	local i
	# The shell parts words also at : = and @, which names and options may hold.
	for ((i = 0; i <= COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		line=${rest#"${rest%%[![:space:]]*}"}
		if ((i > 0)) && [[ $line == "$rest" && -n $word ]]; then
			head=$raw raw+=$word typed[-1]=$raw
		else
			head= raw=$word typed+=("$raw")
		fi
		rest=${line#"$word"}
	done
	# Behind such a sign the word that is completed is empty.
	if [[ $word == [=:@]* ]]; then head=$raw; fi
	# notmuch's own completion calls this for "notmuch imap".
	if [[ ${typed[0]##*/} == notmuch ]]; then typed=("${typed[@]:1}"); fi
	case $raw in
	[\'\"]*) quote=${raw:0:1} word=${raw:1} ;;
	*)
		IFS= read word <<<"$raw" # without -r: the backslashes go
		IFS= read head <<<"$head"
		;;
	esac
	typed[-1]=$word
	COMPREPLY=()
	while IFS= read -r line; do
		if [[ -z $kind ]]; then
			kind=$line
			continue
		fi
		line=${line%%$'\t'*}
		line=${line#"$head"}
		if [[ -z $quote ]]; then
			# A name comes from a server: nothing in it may mean anything to the shell.
			printf -v line %q "$line"
		elif [[ $line == *[\'\"\\\$\`!]* ]]; then
			continue # it cannot stand between quotes as it is
		fi
		COMPREPLY+=("$line")
	done < <(notmuch-imap complete -- "${typed[@]:1}" 2>/dev/null)
	if [[ $kind == files ]]; then compopt -o default 2>/dev/null; fi
	return 0
}
complete -F _notmuch_imap notmuch-imap
