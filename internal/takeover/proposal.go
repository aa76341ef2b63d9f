package takeover

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Proposal is an account as another program's configuration has it.
type Proposal struct {
	Name           string // as it is called there
	Host           string
	Port           int    // 0: the usual one
	TLS            string // "implicit", "starttls" or "none"
	User           string
	Auth           string // SASL mechanism; "" is the best that the server offers
	Password       []string
	PasswordFile   string
	Google         bool // it signs in at Google by OAuth
	CAFile         string
	Cert, Key      string
	Pin            string
	Tunnel         []string
	Timeout        int    // seconds; 0: the usual one
	Root           string // absolute path of the directory that its Maildirs are in
	MaildirPP      bool   // new folders are named as Maildir++ has them
	Mailboxes      []string
	ReadOnly       bool
	Deletions      string // "" is the usual
	Trash          string
	NotCarriedOver []string // what cannot be, and why, a line each
}

// leave says that something is not carried over.
func (p *Proposal) leave(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	for _, said := range p.NotCarriedOver {
		if said == text {
			return
		}
	}
	p.NotCarriedOver = append(p.NotCarriedOver, text)
}

// expandHome gives a path that may begin with ~.
func expandHome(path, home string) string {
	if path == "~" {
		return home
	}
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		return home + "/" + rest
	}
	return path
}

// absolute gives the absolute path of what stands in another program's configuration.
func absolute(path, home, file string) string {
	if path = expandHome(path, home); path != "" && !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(file), path)
	}
	return path
}
