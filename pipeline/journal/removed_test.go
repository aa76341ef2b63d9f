package journal

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Of much removed mail the tags of the newest are kept.
func TestTheTagsOfRemovedMailAreBounded(t *testing.T) {
	t.Parallel()
	l, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	j := Of(l)
	r := NewRemovedMail(j, func() time.Time { return now })
	digest := func(n int) mail.Digest { return mail.Digest{byte(n), byte(n >> 8), byte(n >> 16), 1} }
	const all = removedMost + 3
	for from := 0; from < all; from += 1000 {
		var c Change
		for n := from; n < min(from+1000, all); n++ {
			now = now.Add(time.Second)
			if err := r.Note(t.Context(), &c, digest(n), []string{"work"}); err != nil {
				t.Fatal(err)
			}
		}
		if err := j.Record(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := j.Removed.All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, newest := kept[digest(all-1).String()]
	_, oldest := kept[digest(0).String()]
	if !newest || oldest || len(kept) > removedMost || len(kept) < removedMost/10*9 {
		t.Errorf("%d are kept", len(kept))
	}
	now = now.Add(removedFor + time.Hour)
	if _, ok, err := r.TagsOf(t.Context(), digest(all-1)); ok || err != nil {
		t.Errorf("after all that time they are given: %v", err)
	}
	var c Change
	if err := r.Note(t.Context(), &c, digest(all), []string{}); err != nil || len(r.all) != 1 {
		t.Errorf("%v, %d are kept", err, len(r.all))
	}
	if tags, ok, err := r.TagsOf(t.Context(), digest(all)); len(tags) != 0 || !ok || err != nil {
		t.Errorf("%q, %v, %v", tags, ok, err)
	}
}
