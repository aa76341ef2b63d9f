package index

import (
	"errors"
	"testing"

	notmuch "github.com/zenhack/go.notmuch"
	"golang.org/x/sys/unix"
)

// TestAFullDiskIsKnownByXapiansWords, for which libnotmuch has no status; whoever asks
// for another cause finds that, too.
func TestAFullDiskIsKnownByXapiansWords(t *testing.T) {
	t.Parallel()
	for words, want := range map[string]bool{
		"A Xapian exception occurred: Error writing block 5 (No space left on device)": true,
		"Couldn't write postlist.tmp: no space left on device":                         true,
		"A Xapian exception occurred: Database has been modified":                      false,
		"": false,
	} {
		err := full(words, notmuch.ErrXapianException)
		if errors.Is(err, unix.ENOSPC) != want || !errors.Is(err, notmuch.ErrXapianException) {
			t.Errorf("%q: %v", words, err)
		}
	}
}
