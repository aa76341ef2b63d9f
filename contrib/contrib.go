// Package contrib holds what goes into the configuration of other programs.
package contrib

import _ "embed"

//go:embed mutt/notmuch-imap.muttrc
var mutt string

//go:embed neomutt/notmuch-imap.neomuttrc
var neomutt string

// Mutt gives keys for Mutt, as lines of a muttrc.
func Mutt() string { return mutt }

// NeoMutt gives keys for NeoMutt, as lines of a neomuttrc.
func NeoMutt() string { return neomutt }
