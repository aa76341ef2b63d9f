package cmd

import (
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// typed is a command of ours as somebody types it: with --config, unless the configuration is
// the one that is found without. Without a command it is the program alone.
func (p *program) typed(file, command string) string {
	words := []string{"notmuch imap"}
	if usual, err := config.Find("", p.getenv); file != "" && (err != nil || usual != file) {
		words = append(words, "--config", mail.Typed(file))
	}
	if command != "" {
		words = append(words, command)
	}
	return strings.Join(words, " ")
}
