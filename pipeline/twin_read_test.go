package pipeline

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
)

// Of two files of one message one is deleted by another client while the other is read
// there: no file is unread afterwards, and neither is the message.
func TestATwinThatGoesWhileTheOtherIsReadLeavesNothingUnread(t *testing.T) {
	for wire, caps := range wires() {
		for _, boxes := range [][2]string{{"Work", "Trash"}, {"Trash", "Work"}, {"INBOX", "INBOX"}} {
			for _, read := range []bool{false, true} {
				if spared(fmt.Sprintf("%s/%s/%v", wire, boxes, read)) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%v", wire, boxes, read), func(t *testing.T) {
					t.Parallel()
					s, h := newServer(caps...), newHome(t)
					s.box("INBOX").add(plainMail(7))
					stays, goes := s.box(boxes[0]), s.box(boxes[1])
					left, gone := stays.add(plainMail(1)), goes.add(listCopy(plainMail(1)), `\Seen`)
					h.sync(s)
					h.tag(id(1), nil, []string{"unread"}) // as notmuch new has it of such files
					stays.flag(left, `\Seen`, `\Answered`)
					if read {
						goes.flag(gone, `\Seen`, `\Answered`)
					}
					goes.expunge(gone)
					h.sync(s)
					if tags := h.tags(id(1)); slices.Contains(tags, "unread") || !slices.Contains(tags, "replied") {
						t.Errorf("tags %v", tags)
					}
					h.sync(s)
					h.quiet(s)
					h.check(s)
				})
			}
		}
	}
}

// A file of a message that has another one is moved here, and the run is stopped behind any
// of its effects: what is read stays read.
func TestATwinThatIsMovedHereAndAStopLeaveNothingUnread(t *testing.T) {
	for wire, caps := range wires() {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			for at, stopped := 1, true; stopped && !t.Failed(); at += pace() {
				s, h := newServer(caps...), newHome(t)
				s.box("Archive").add(plainMail(1))
				s.box("Archive").add(listCopy(plainMail(1)), `\Seen`)
				s.box("Trash").add(plainMail(7))
				h.sync(s)
				h.tag(id(1), nil, []string{"unread"})
				h.move("Archive", 2, "Trash", at%2 == 0)
				stopped = h.stopAt(s, at)
				for range 3 {
					h.sync(s)
				}
				if tags := h.tags(id(1)); slices.Contains(tags, "unread") {
					t.Errorf("stopped at %d: tags %v", at, tags)
				}
				h.notmuchNew()
				h.check(s)
			}
		})
	}
}

// stopAt syncs, and stops behind the effect of this number. It tells whether there was one.
func (h *home) stopAt(s *server, at int, change ...func(*Options)) (stopped bool) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	defer cancel()
	var n atomic.Int64
	_, err := h.tryIn(ctx, s, append(slices.Clone(change), func(o *Options) {
		o.Connections = 1
		o.Step = func(string) {
			if n.Add(1) == int64(at) {
				cancel()
			}
		}
	})...)
	if err != nil && ctx.Err() == nil {
		h.t.Fatal(err)
	}
	return n.Load() >= int64(at)
}
