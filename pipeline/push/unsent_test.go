package push

import (
	"errors"
	"fmt"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// Each reason for which the server refuses mail is told once, with the mails.
func TestARefusalIsToldOnceForAllItsMail(t *testing.T) {
	t.Parallel()
	full, large := errors.New("over quota"), errors.New("too large")
	of := func(errs ...error) (out []refusedUpload) {
		for i, err := range errs {
			out = append(out, refusedUpload{file: plan.Untracked{Message: ledger.Message{Name: fmt.Sprint("f", i)}}, err: err})
		}
		return out
	}
	for want, refused := range map[string][]refusedUpload{
		"f0: over quota":                                    of(full),
		"f0, f2: over quota; f1: too large":                 of(full, large, full),
		"f0, f1, f2, f3, f4, and 2 more: over quota":        of(full, full, full, full, full, full, full),
		"f0, f1, f2, f3, f4: over quota; 1 more: too large": of(full, full, full, full, full, large),
	} {
		if got := byReason(refused); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
