package hooks

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// patience is how many failures in a row a hook has before it is not asked
	// any more in this run: with thousands of mails, each of them would cost its
	// timeout.
	patience = 3
	// grace is how long Run may take to return once its time is up, to end what
	// it started.
	grace = 3 * time.Second
)

// Runner asks a list of hooks in its order. Its methods may be called from
// several goroutines, and on nil, which has no hooks.
type Runner struct {
	hooks []*asked
	// apart is held by hooks for reading and by whoever writes to notmuch's
	// database for writing.
	apart sync.RWMutex
}

// asked is a hook and how it has done so far in this run.
type asked struct {
	Hook
	// turn is held by who asks it, or waits for an answer that is overdue.
	turn     chan struct{}
	failures int   // in a row; guarded by turn
	out      error // why it is not asked any more; guarded by turn
}

// NewRunner gives what asks these hooks. The list is validated.
func NewRunner(list []Hook) (*Runner, error) {
	if err := Validate(list); err != nil {
		return nil, err
	}
	r := &Runner{}
	for _, h := range list {
		if h.Timeout == 0 {
			h.Timeout = DefaultTimeout
		}
		r.hooks = append(r.hooks, &asked{Hook: h, turn: make(chan struct{}, 1)})
	}
	return r, nil
}

// At tells whether there is a hook at any of these points.
func (r *Runner) At(points ...Point) bool {
	return r != nil && slices.ContainsFunc(r.hooks, func(h *asked) bool {
		return slices.ContainsFunc(points, func(p Point) bool { return slices.Contains(h.Points, p) })
	})
}

// Apart runs f while no hook runs.
func (r *Runner) Apart(f func()) {
	if r != nil {
		r.apart.Lock()
		defer r.apart.Unlock()
	}
	f()
}

// Close ends the hooks.
func (r *Runner) Close() error {
	if r == nil {
		return nil
	}
	var errs []error
	for _, h := range r.hooks {
		if h.Close != nil {
			errs = append(errs, h.Close())
		}
	}
	return errors.Join(errs...)
}

// Outcome is what the hooks of a point came to.
type Outcome struct {
	Verdict        // of all of them: tags add up, and the first that skips or defers has the last word
	By      string // the hook that skipped or deferred
	Failed  []Failure
	// Forced says that it was deferred because a required hook failed.
	Forced bool
}

// Failure is a hook that did not do its work. Err is one line.
type Failure struct {
	Hook     string
	Required bool
	Err      error
}

// Ask asks the hooks at the event's point one after the other. A hook that defers
// though it is the last time that it may fails. The error is the context's.
func (r *Runner) Ask(ctx context.Context, e Event, last bool) (out Outcome, err error) {
	out.Action = Pass
	if r == nil {
		return out, nil
	}
	for _, h := range r.hooks {
		if !slices.Contains(h.Points, e.Point) {
			continue
		}
		e.Version, e.Hook = EventVersion, h.Name
		v, err := r.ask(ctx, h, e)
		if err == nil && last && v.Action == Defer {
			err = errors.New("it defers for too long")
		}
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		if err != nil {
			out.Failed = append(out.Failed, Failure{h.Name, h.Required, err})
			if h.Required && e.Point.Pre() {
				out.Action, out.By, out.Forced = Defer, h.Name, true
				return out, nil
			}
			continue
		}
		// What a later hook says of a tag counts.
		out.Add, out.Remove = merge(out.Add, v.Add, v.Remove), merge(out.Remove, v.Remove, v.Add)
		e.Tags = merge(e.Tags, v.Add, v.Remove)
		if v.Action == Skip || v.Action == Defer {
			out.Action, out.Reason, out.Placeholder, out.By = v.Action, v.Reason, v.Placeholder, h.Name
			return out, nil
		}
	}
	return out, nil
}

// merge gives tags with some added and some taken away.
func merge(tags, add, remove []string) []string {
	if len(add)+len(remove) == 0 {
		return tags
	}
	out := slices.DeleteFunc(slices.Concat(tags, add), func(t string) bool { return slices.Contains(remove, t) })
	slices.Sort(out)
	return slices.Compact(out)
}

// ask asks one hook.
func (r *Runner) ask(ctx context.Context, h *asked, e Event) (v Verdict, err error) {
	select {
	case h.turn <- struct{}{}:
	case <-ctx.Done():
		return v, ctx.Err()
	}
	if h.out != nil {
		err := h.out
		<-h.turn
		return v, err
	}
	v, left, err := r.run(ctx, h, e)
	if err == nil {
		err = v.check(e.Point)
	}
	switch {
	case ctx.Err() != nil:
	case err == nil:
		h.failures = 0
	default:
		if h.failures++; h.failures >= patience || left {
			h.out = err
		}
	}
	<-h.turn
	return v, err
}

// run calls the hook and waits until its time is up. left says that it is still
// at work nevertheless.
func (r *Runner) run(ctx context.Context, h *asked, e Event) (v Verdict, left bool, err error) {
	r.apart.RLock()
	defer r.apart.RUnlock()
	within, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	type end struct {
		v   Verdict
		err error
	}
	answered := make(chan end, 1)
	go func() {
		var a end
		defer func() {
			if p := recover(); p != nil {
				a = end{err: fmt.Errorf("it crashed: %s%s", bound(fmt.Sprint(p), 200), where(debug.Stack()))}
			}
			answered <- a
		}()
		a.v, a.err = h.Run(within, &e)
	}()
	late := func() error { return fmt.Errorf("no answer within %v", h.Timeout) }
	var a end
	select {
	case a = <-answered:
	case <-within.Done():
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case a = <-answered:
		case <-t.C:
			return v, true, late()
		}
	}
	switch {
	case a.err == nil:
		return a.v, false, nil
	case errors.Is(within.Err(), context.DeadlineExceeded):
		return v, false, late()
	}
	return v, false, errors.New(bound(a.err.Error(), maxLine))
}

// maxLine bounds what is told of a failure, in characters.
const maxLine = 300

// where finds the line of a hook's code that panicked.
func where(stack []byte) string {
	lines := strings.Split(string(stack), "\n")
	for i, l := range lines {
		if !strings.HasPrefix(l, "panic(") {
			continue
		}
		for _, l := range lines[i+1:] {
			if l = strings.TrimSpace(l); strings.HasPrefix(l, "/") && !strings.Contains(l, "/src/runtime/") {
				file, _, _ := strings.Cut(l, " +0x")
				return " at " + file
			}
		}
	}
	return ""
}
