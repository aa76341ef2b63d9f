package ledger

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// TestALockIsRefusedByItsOwnerAlone: who only looks may have it for seconds on a machine that is
// busy, and keeps nobody from it.
func TestALockIsRefusedByItsOwnerAlone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		how     int
		held    time.Duration
		refused bool
	}{
		"nobody":                        {unix.LOCK_UN, 0, false},
		"one that looks":                {unix.LOCK_SH, 5 * time.Second, false},
		"one that was stopped in it":    {unix.LOCK_SH, time.Hour, true},
		"an owner":                      {unix.LOCK_EX, time.Hour, true},
		"a child of one that was ended": {unix.LOCK_EX, 100 * time.Millisecond, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "lock")
			synctest.Test(t, func(t *testing.T) {
				var files [2]*os.File
				for i := range files {
					f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
					if err != nil {
						t.Fatal(err)
					}
					defer f.Close()
					files[i] = f
				}
				if err := unix.Flock(int(files[0].Fd()), c.how); err != nil {
					t.Fatal(err)
				}
				released := make(chan error)
				go func() {
					time.Sleep(c.held)
					released <- unix.Flock(int(files[0].Fd()), unix.LOCK_UN)
				}()
				begun := time.Now() // of the bubble
				err := TryLock(files[1])
				took := time.Since(begun)
				if c.refused != errors.Is(err, unix.EWOULDBLOCK) || !c.refused && (err != nil || took < c.held) {
					t.Errorf("%v after %v", err, took)
				}
				if err := <-released; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
