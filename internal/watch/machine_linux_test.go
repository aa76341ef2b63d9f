package watch

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAJumpOfTheClockIsKnownFromItsCorrection(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		wall, mono time.Duration
		want       bool
	}{
		{time.Hour, time.Hour, false},
		{time.Hour + time.Second, time.Hour, false},
		{time.Hour, time.Second, true},
		{-time.Hour, time.Second, true},
	} {
		if got := jumpedBy(c.wall, c.mono); got != c.want {
			t.Errorf("%v by the wall, %v by the monotonic clock: %v", c.wall, c.mono, got)
		}
	}
}

func TestTheMachineIsWatchedUntilTheContextEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		Machine(ctx, New(Usual()), func(text string) { t.Errorf("not all is seen: %s", text) })
	}()
	cancel()
	<-done
}

func TestReadingCallsForEachReadAndForItsErrno(t *testing.T) {
	t.Parallel()
	fds := make([]int, 2)
	if err := unix.Pipe2(fds, unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan struct{})
	ended := make(chan error, 1)
	go func() { ended <- reading(ctx, fds[0], "pipe", unix.ECANCELED, func() { told <- struct{}{} }) }()
	for range 2 {
		if _, err := unix.Write(fds[1], []byte("x")); err != nil {
			t.Fatal(err)
		}
		<-told
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	_ = unix.Close(fds[1])
}
