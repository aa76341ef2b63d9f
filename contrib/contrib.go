// Package contrib holds what goes into the configuration of other programs.
package contrib

import _ "embed"

//go:embed mutt/notmuch-imap.muttrc
var mutt string

//go:embed neomutt/notmuch-imap.neomuttrc
var neomutt string

//go:embed systemd/notmuch-imap-watch.service
var watchUnit string

// WatchUnit gives a unit for the user's systemd that keeps a watch running.
func WatchUnit() string { return watchUnit }

// Mutt gives keys for Mutt, as lines of a muttrc.
func Mutt() string { return mutt }

// NeoMutt gives keys for NeoMutt, as lines of a neomuttrc.
func NeoMutt() string { return neomutt }
