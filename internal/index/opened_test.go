package index

import (
	"fmt"
	"testing"

	notmuch "github.com/zenhack/go.notmuch"
)

// Three processes commit as fast as they can, while the database is opened and its configuration
// read again and again: Xapian now and then discards what is just being read, which is no fault.
func TestADatabaseIsOpenedWhileOthersWrite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range crashMails {
		w.deliver(fmt.Sprintf("work/new/k%d", i), fmt.Sprintf("m%d@example.org", i))
	}
	x := w.open(Options{})
	for range 3 {
		cmd, _, lines := start(t, "apply", []string{"HOME=" + w.dir, "TMPDIR=" + w.dir}, w.config)
		read := make(chan struct{})
		go func() {
			defer close(read)
			for lines.Scan() { // what it prints is in nobody's way
			}
		}()
		t.Cleanup(func() {
			if err := cmd.Process.Kill(); err != nil {
				t.Errorf("a process that writes has ended by itself: %v", err)
			}
			<-read
			_ = cmd.Wait() // killed
		})
	}
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
