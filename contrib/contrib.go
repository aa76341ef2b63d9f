// Package contrib holds what goes into the configuration of other programs.
package contrib

import "embed"

//go:embed mutt/notmuch-imap.muttrc
var mutt string

//go:embed neomutt/notmuch-imap.neomuttrc
var neomutt string

//go:embed systemd/notmuch-imap-watch.service
var watchUnit string

// WatchUnit gives a unit for the user's systemd that keeps a watch running.
func WatchUnit() string { return watchUnit }

//go:embed completion/*
var completion embed.FS

// Completion gives what makes a shell complete our commands: "bash", "zsh" or "fish".
func Completion(shell string) string {
	name := map[string]string{"bash": "notmuch-imap.bash", "zsh": "_notmuch-imap", "fish": "notmuch-imap.fish"}[shell]
	text, _ := completion.ReadFile("completion/" + name) // it is in the binary
	return string(text)
}

// Mutt gives keys for Mutt, as lines of a muttrc.
func Mutt() string { return mutt }

// NeoMutt gives keys for NeoMutt, as lines of a neomuttrc.
func NeoMutt() string { return neomutt }
