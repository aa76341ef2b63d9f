package watch

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Machine tells w of what befalls the machine until the context ends: that it was asleep, or
// that its clock was set, and that its addresses change. It sleeps in the kernel meanwhile.
// remark is told what cannot be seen, which an hourly look makes up for.
func Machine(ctx context.Context, w *Watcher, remark func(string)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := addresses(ctx, w.NetworkChanged); err != nil {
			remark("changes of the network are not seen: " + err.Error())
		}
	}()
	if err := jumps(ctx, w.Resumed); err != nil {
		remark("times asleep are not seen: " + err.Error())
	}
	<-done
}

// reading calls f for each read of fd that brings something or fails with an errno of
// again, until the context ends. fd is closed.
func reading(ctx context.Context, fd int, name string, again error, f func()) error {
	file := os.NewFile(uintptr(fd), name)
	defer file.Close() //nolint:errcheck // nothing was written
	// A read that is under way ends with its deadline.
	defer context.AfterFunc(ctx, func() { _ = file.SetReadDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, 8<<10)
	for {
		_, err := file.Read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, again):
			return err
		}
		f()
	}
}

// jumps calls f whenever the wall clock jumps against the monotonic one: after a time
// asleep, in which that stood still, and when somebody sets it. A timer of the kernel that
// such a jump cancels says so at once, and so does a resume (timerfd_create(2)). logind's
// PrepareForSleep would add nothing: what it says before, nothing is done for, and what it says
// after is known by then, also where no logind runs.
func jumps(ctx context.Context, f func()) error {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return err
	}
	arm := func() error {
		// As good as never: the timer is there to be cancelled.
		far := unix.ItimerSpec{Value: unix.NsecToTimespec(time.Now().AddDate(10, 0, 0).UnixNano())}
		return unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &far, nil)
	}
	if err := arm(); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	before := time.Now()
	return reading(ctx, fd, "timerfd", unix.ECANCELED, func() {
		_ = arm() // as it could be before
		now := time.Now()
		if jumpedBy(now.Round(0).Sub(before.Round(0)), now.Sub(before)) {
			f()
		}
		before = now
	})
}

// leastJump is a jump of the clock that is no correction of it.
const leastJump = 10 * time.Second

// jumpedBy tells whether the wall clock went another way than the monotonic one.
func jumpedBy(wall, monotonic time.Duration) bool {
	d := wall - monotonic
	return d > leastJump || d < -leastJump
}

// quietNetwork is how long the addresses must stay as they are: they come in several steps.
const quietNetwork = 500 * time.Millisecond

// addresses calls f when the machine's addresses or routes changed (rtnetlink(7)).
func addresses(ctx context.Context, f func()) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	groups := uint32(unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	quiet := time.AfterFunc(time.Hour, f)
	quiet.Stop()
	defer quiet.Stop()
	return reading(ctx, fd, "netlink", unix.ENOBUFS, func() { quiet.Reset(quietNetwork) })
}
