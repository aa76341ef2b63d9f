package index

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// What libnotmuch has begun it ends: no call of it can be interrupted, and one mail of text
// takes minutes if it has many megabytes. Meanwhile nobody else can write to the database.

// atWork is the transaction that this process has open; a process has one database.
//
//nolint:gochecknoglobals // of the process, as the lock is
var atWork work

type work struct {
	mu    sync.Mutex
	open  bool
	path  string // of the mail that it is at; "" for the commit
	since time.Time

	waiting int // that wait until another program's lock is gone
	waits   time.Time
}

const (
	// slow is after how long it is told what libnotmuch is at.
	slow = 10 * time.Second
	// held is after how long readers of this process do not wait for it any more.
	held = 2 * time.Second
)

// begin notes that a transaction is at a mail.
func (w *work) begin(path string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open, w.path, w.since = true, path, time.Now()
}

func (w *work) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = false
}

// wait notes that another program's lock is waited for, until stop is called.
func (w *work) wait() (stop func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting++; w.waiting == 1 {
		w.waits = time.Now()
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.waiting--
	}
}

// Waiting tells since when this process waits until another program lets go of the write lock;
// zero while it does not.
func Waiting() time.Time {
	atWork.mu.Lock()
	defer atWork.mu.Unlock()
	if atWork.waiting == 0 {
		return time.Time{}
	}
	return atWork.waits
}

// Busy tells in words at what libnotmuch is, and since when; "" while it is at nothing. What it
// has begun is taken back if the process ends, however that ends.
func Busy() (text string, since time.Time) {
	atWork.mu.Lock()
	defer atWork.mu.Unlock()
	if !atWork.open {
		return "", time.Time{}
	}
	text = "notmuch is at a commit"
	if atWork.path != "" {
		text = "notmuch is indexing " + filepath.Base(atWork.path)
		if fi, err := os.Stat(atWork.path); err == nil {
			text += fmt.Sprintf(" (%.1f MB)", float64(fi.Size())/(1<<20))
		}
	}
	return text, atWork.since
}

// tellSlow has said told each time that libnotmuch is at one thing for long, until stop is called.
func tellSlow(say func(string)) (stop func()) {
	if say == nil {
		return func() {}
	}
	end := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTimer(slow)
		defer t.Stop()
		for told := (time.Time{}); ; {
			select {
			case <-end:
				return
			case <-t.C:
			}
			text, since := Busy()
			left := slow - time.Since(since)
			if left <= 0 && text != "" && !since.Equal(told) {
				told = since
				say(fmt.Sprintf("%s since %s; nobody else can write to its database until that has ended", text, since.Local().Format("15:04:05")))
			}
			if left <= 0 {
				left = slow
			}
			t.Reset(left)
		}
	})
	return func() {
		close(end)
		wg.Wait()
	}
}
