package cmd

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

// stoppedAt runs a sync that is told to end, as by SIGTERM, behind the effect of
// number at, and tells whether that came.
func stoppedAt(w *world, at int) bool {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	l, err := ledger.Open(ctx, w.state())
	if err != nil {
		w.t.Fatal(err)
	}
	o := w.options(l)
	var n atomic.Int64
	o.Step = func(string) {
		if n.Add(1) == int64(at) {
			cancel()
		}
	}
	if _, err := pipeline.Sync(ctx, o); err != nil && ctx.Err() == nil {
		w.t.Error(err)
	}
	if err := l.Close(); err != nil {
		w.t.Error(err)
	}
	return n.Load() >= int64(at)
}

// A sync with moves to a real server is stopped behind each of its effects, by SIGTERM
// and by SIGKILL in turns; then its user moves one of the mails back, one on to a third
// folder, and deletes one. All are where they were put last, once, with their keyword.
func TestAMoveIsStoppedOnADovecot(t *testing.T) {
	t.Parallel()
	for name, hide := range dovecots() {
		if name == "no CONDSTORE" {
			hide = []string{"MOVE"} // which has UIDPLUS
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dovecot(t, hide...)
			want := map[string][]string{"INBOX": {rawDovecot(1)}, "Work": {rawDovecot(2)}, "Later": {rawDovecot(3)}, "Trash": {rawDovecot(4)}}
			for box, raws := range want {
				appendAll(t, s, box, raws...)
			}
			w := newWorld(t, s.Addr(), s.User, s.Password)
			points, rounds := 0, 0
			for at, stopped := 1, true; stopped; at += share.Pace() {
				rounds++
				n := 10 * at
				raws := []string{rawDovecot(n), rawDovecot(n + 1), rawDovecot(n + 2)}
				id := func(i int) string { return fmt.Sprintf("d%d@example.org", n+i) }
				appendAll(t, s, "INBOX", raws...)
				command(t, s, "SELECT INBOX", `UID STORE 1:* +FLAGS (todo)`)
				w.sync()
				for i := range raws {
					w.notmuch("tag", "+mine", "--", "id:"+id(i))
					w.mv(id(i), "Work", i == at%3)
				}
				if at%2 == 0 {
					stopped = killedAt(t, w, s.Addr(), at, 0)
				} else {
					stopped = stoppedAt(w, at)
				}
				w.left(s, rounds%5 == 0)
				if stopped {
					points++
				}
				w.notmuch("new")
				w.mv(id(0), "INBOX", false)
				w.mv(id(1), "Later", true)
				w.rm(id(2))
				for range 3 {
					w.sync()
				}
				w.notmuch("new")
				for i, box := range []string{"INBOX", "Later", "Trash"} {
					want[box] = append(want[box], raws[i])
				}
				for box, raws := range want {
					w.holds(box, raws)
					out, err := s.Command("EXAMINE "+box, "UID SEARCH KEYWORD todo")
					if err != nil {
						t.Fatal(err)
					}
					keyed, exists := 0, fmt.Sprintf("* %d EXISTS", len(raws))
					for _, line := range out {
						if uids, ok := strings.CutPrefix(line, "* SEARCH"); ok {
							keyed = len(strings.Fields(uids))
						}
					}
					marked := rounds
					switch box {
					case "INBOX":
						marked++ // the one that stands there
					case "Work":
						marked = 0
					}
					if !slices.Contains(out, exists) || keyed != marked {
						t.Errorf("%s: %d with the keyword, want %d; want %s: %q", box, keyed, marked, exists, out)
					}
				}
				if got := w.notmuch("count", "tag:mine"); got != fmt.Sprint(3*rounds) {
					t.Errorf("%s mails have the tag, want %d", got, 3*rounds)
				}
				if rep := w.sync(); rep.New+rep.Pushed+rep.Flagged+rep.Moved+rep.Deleted+rep.Uploaded+rep.Removed != 0 || !rep.Clean() {
					t.Errorf("not quiet: %+v", rep)
				}
				if t.Failed() {
					t.Fatalf("stopped at effect %d", at)
				}
			}
			if points*share.Pace() < 8 {
				t.Errorf("only %d runs were stopped", points)
			}
		})
	}
}
