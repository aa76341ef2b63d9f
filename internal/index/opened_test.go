package index

import (
	"fmt"
	"testing"

	notmuch "github.com/zenhack/go.notmuch"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Three processes commit as fast as they can, while the database is opened and its configuration
// read again and again: Xapian now and then discards what is just being read, which is no fault.
func TestADatabaseIsOpenedWhileOthersWrite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := w.written()
	for n := range 1500 {
		db, err := x.open(notmuch.DBReadOnly)
		if err == nil {
			err = db.Close()
		}
		if err != nil {
			t.Fatalf("opened %d times: %v", n, err)
		}
		if _, err := x.probe(); err != nil {
			t.Fatalf("opened %d times: %v", n, err)
		}
	}
}

// A reader that others disturb whenever they can reads in the end while they cannot.
func TestADatabaseIsReadWhileOthersWrite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const many = 600 // so that there are blocks to be read, which commits use again
	var changes []mail.Change
	for i := range many {
		changes = append(changes, mail.Change{Op: mail.OpAdd, Path: w.deliver(fmt.Sprintf("work/cur/o%d:2,", i), fmt.Sprintf("o%d@example.org", i))})
	}
	w.apply(changes...)
	x, other := w.written(), w.open(Options{})
	tries := 0
	err := x.read(t.Context(), func(db *notmuch.DB) error {
		tries++
		_, before := revisionOf(handle(db))
		disturbed := func() bool {
			_, now, err := other.Revision(t.Context())
			return err == nil && now > before+20 // several commits
		}
		for tries < 3 && !disturbed() { // the third time nobody writes
			if err := t.Context().Err(); err != nil {
				return err
			}
		}
		for i := range many {
			if _, err := lookUp(db, fmt.Sprintf("o%d@example.org", i), func(m *notmuch.Message) error {
				_, err := tagsOf(m)
				return err
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Errorf("after %d tries: %v", tries, err)
	}
}

// written gives a database to which three processes write without a pause until the test ends.
func (w *world) written() *Index {
	w.Helper()
	for i := range crashMails {
		w.deliver(fmt.Sprintf("work/new/k%d", i), fmt.Sprintf("m%d@example.org", i))
	}
	x := w.open(Options{})
	for range 3 {
		cmd, _, lines := start(w, "apply", []string{"HOME=" + w.dir, "TMPDIR=" + w.dir}, w.config)
		read := make(chan struct{})
		go func() {
			defer close(read)
			for lines.Scan() { // what it prints is in nobody's way
			}
		}()
		w.Cleanup(func() {
			if err := cmd.Process.Kill(); err != nil {
				w.Errorf("a process that writes has ended by itself: %v", err)
			}
			<-read
			_ = cmd.Wait() // killed
		})
	}
	return x
}
