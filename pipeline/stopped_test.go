package pipeline

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// stoppedFloor is how many runs TestAStopBehindEachEffectOfMoves must stop. Fewer
// mean that effects were lost from the count.
func stoppedFloor() int64 {
	if testing.Short() {
		return 10
	}
	return 800
}

// ways of stopping a run behind one of its effects.
const (
	stopCancelled = "cancelled" // a signal, or the time box of a hook
	stopUnheard   = "unheard"   // the server did it, and its answer never came
	stopSource    = "source"    // from there on the mailbox is refused that a mail comes from
	stopTarget    = "target"    // or the one that it goes to
)

// stopServers are the extensions that matter to a move.
func stopServers() map[string][]string {
	return map[string][]string{"all": {"MOVE", "UIDPLUS", "CONDSTORE", "QRESYNC"}, "mute": {"MOVE", "UIDPLUS", "CONDSTORE"}, "UIDPLUS": {"UIDPLUS", "CONDSTORE"}, "bare": nil}
}

// stopped is one case: a run with moves that is stopped, and what its user does to
// the first of them before the next run.
type stopped struct {
	*home
	s         *server
	wire      string
	how       string
	at        int
	user      string
	deletions Deletions
	mutt      bool // files get new names when they are moved
}

// begin brings both sides to agree, and then moves the files of mails 1 and 2 into
// each other's mailbox, deletes that of mail 3, and puts a new mail into Work.
func (c *stopped) begin() {
	in := c.s.box("INBOX")
	c.s.mute = c.wire == "mute" || c.wire == "bare"
	in.add(plainMail(1), "todo", `\Seen`)
	in.add(plainMail(3))
	in.add(plainMail(5))
	c.s.box("Work").add(plainMail(2), `\Flagged`)
	c.s.box("Work").add(plainMail(6))
	c.s.box("Later").add(plainMail(7))
	c.s.box("Trash").add(plainMail(9))
	c.sync(c.s, c.options)
	db, err := c.index.load()
	c.do(err)
	for _, id := range []string{"m1@example.org", "m3@example.org"} {
		db[id].Tags = append(db[id].Tags, "mine")
	}
	c.do(c.index.save(db))
	c.flag("INBOX", 1, "FS")
	c.move("INBOX", 1, "Work", c.mutt)
	c.remove("INBOX", 2)
	c.move("Work", 1, "INBOX", c.mutt)
	c.put("Work", plainMail(4), "S")
}

func (c *stopped) options(o *Options) { o.Deletions = c.deletions }

// stop runs a sync that is stopped behind the effect of number at. It tells whether
// that came.
func (c *stopped) stop() bool {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.t.Context())
	defer cancel()
	var n atomic.Int64
	reached := func() bool { return n.Add(1) == int64(c.at) }
	refuse := func(name string) {
		c.s.box(name).refuse = &mail.Fault{Kind: mail.KindNo, Op: "EXAMINE", Text: "in use"}
	}
	c.s.effect = func(string) {
		if c.how == stopCancelled || !reached() {
			return
		}
		switch c.how {
		case stopUnheard:
			c.s.unheard = true
			cancel()
		case stopSource:
			refuse("INBOX")
		case stopTarget:
			refuse("Work")
		}
	}
	_, err := c.tryIn(ctx, c.s, c.options, func(o *Options) {
		o.Connections = 1
		o.Step = func(string) {
			if c.how == stopCancelled && reached() {
				cancel()
			}
		}
	})
	if err != nil && ctx.Err() == nil {
		c.t.Fatal(err)
	}
	c.s.effect, c.s.unheard = nil, false
	for _, b := range c.s.boxes {
		b.refuse = nil
	}
	return n.Load() >= int64(c.at)
}

// fileOf gives the files of a mail, by the folder that they are in.
func (c *stopped) filesOf(n int) map[string]string {
	out := make(map[string]string)
	for box := range c.s.boxes {
		for name, raw := range c.files(box) {
			if raw == strings.ReplaceAll(plainMail(n), "\r\n", "\n") {
				out[box] = name
			}
		}
	}
	return out
}

// act does what the user does to mail 1, which is in Work.
func (c *stopped) act() {
	from := c.filesOf(1)["Work"]
	if from == "" {
		c.t.Fatalf("the mail is in %v", c.filesOf(1))
	}
	base := filepath.Base(from)
	if c.mutt {
		base = "again" + base
	}
	switch c.user {
	case "back":
		c.do(os.Rename(c.path("Work", from), c.path("INBOX", "cur/"+base)))
	case "on":
		c.do(os.Rename(c.path("Work", from), c.path("Later", "cur/"+base)))
	case "copy":
		raw, err := os.ReadFile(c.path("Work", from))
		c.do(err)
		_, letters := maildir.ParseName(from)
		c.put("Later", string(raw), letters)
	case "notmuch new": // as where a hook's time is over
		c.notmuchNew()
	case "tag":
		c.index.tag(c.t, id(1), []string{"replied"}, nil)
	case "delete":
		c.do(os.Remove(c.path("Work", from)))
	}
}

// settle syncs until there is nothing to do.
func (c *stopped) settle() {
	c.t.Helper()
	for range 6 {
		rep := c.sync(c.s, c.options)
		if rep.New+rep.Flagged+rep.Pushed+rep.Moved+rep.Deleted+rep.Uploaded+rep.Removed == 0 && rep.Clean() {
			c.atRest(c.s)
			return
		}
	}
	c.t.Errorf("it does not come to rest: %+v", c.events)
}

// where gives the mailboxes in which the server has a mail, and its flags there.
func (c *stopped) where(n int) string {
	var out []string
	for name, b := range c.s.boxes {
		for _, u := range b.uids() {
			if b.msgs[u].raw == plainMail(n) {
				flags := slices.Sorted(slices.Values(b.msgs[u].flags))
				out = append(out, fmt.Sprintf("%s%v", name, flags))
			}
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (c *stopped) run() (reached bool) {
	c.begin()
	reached = c.stop()
	defer c.keep()()
	// What it has forgotten before the server had it in the Trash nobody knows.
	keeps := c.user != "notmuch new" || c.where(3) == "Trash[]"
	c.act()
	c.settle()
	in := map[string]string{"back": "INBOX", "on": "Later", "nothing": "Work", "copy": "Work", "tag": "Work", "notmuch new": "Work"}[c.user]
	flags := `[\Flagged \Seen todo]`
	if c.user == "tag" {
		flags = `[\Answered \Flagged \Seen todo]`
	}
	one := in + flags
	switch {
	case c.user == "copy":
		one = "Later Work"
	case c.user == "delete" && c.deletions == DeletionsTrash:
		one = "Trash"
	case c.user == "delete":
		one = ""
	}
	three := ""
	if c.deletions == DeletionsTrash {
		three = "Trash[]"
	}
	for n, want := range map[int]string{1: one, 2: `INBOX[\Flagged]`, 3: three, 4: `Work[\Seen]`, 5: "INBOX[]", 6: "Work[]", 7: "Later[]", 9: "Trash[]"} {
		got := c.where(n)
		if n == 1 && (c.user == "copy" || c.user == "delete") {
			// Of two files either may be the one that was moved; flags of a file that was
			// deleted before the server heard of them nobody knows.
			if c.user == "copy" && !strings.Contains(got, "todo") {
				c.t.Errorf("the mail lost its keyword: %q", got)
			}
			got = regexp.MustCompile(`\[[^]]*]`).ReplaceAllString(got, "")
		}
		if got != want {
			c.t.Errorf("mail %d is in %q, want %q", n, got, want)
		}
	}
	c.notmuchNew()
	c.check(c.s)
	db, err := c.index.load()
	c.do(err)
	for id, there := range map[string]bool{"m1@example.org": one != "" && c.user != "delete", "m3@example.org": three != "" && keeps} {
		if m := db[id]; there && (m == nil || !slices.Contains(m.Tags, "mine")) {
			c.t.Errorf("notmuch has %+v of %s", m, id)
		}
	}
	return reached
}

// A run with moves is stopped behind each of its effects, or goes on without the
// mailboxes that it moved mail between; its user then moves the mail back, on to a
// third folder, copies, deletes or tags it. Every mail that nobody deleted is there, once,
// where it was put last, with its flags and tags.
func TestAStopBehindEachEffectOfMoves(t *testing.T) {
	share.Sweep(t)
	var stops atomic.Int64
	t.Run("cases", func(t *testing.T) {
		for wire, caps := range stopServers() {
			for _, how := range []string{stopCancelled, stopUnheard, stopSource, stopTarget} {
				for i, user := range []string{"back", "on", "copy", "delete", "nothing", "tag", "notmuch new"} {
					for j, deletions := range []Deletions{DeletionsExpunge, DeletionsTrash} {
						// Where nothing is deleted, this matters less.
						if i > 0 && user != "delete" && user != "notmuch new" && (len(wire)+i)%2 != j {
							continue
						}
						if user == "notmuch new" && (deletions != DeletionsTrash || how == stopSource || how == stopTarget || wire == "mute" || wire == "UIDPLUS") {
							continue // it is of what goes to the Trash
						}
						if how == stopSource && (user == "copy" || user == "nothing") {
							continue
						}
						if spared(wire, how, user, deletions) {
							continue
						}
						t.Run(fmt.Sprintf("%s/%s/%s/%s", wire, how, user, deletions), func(t *testing.T) {
							t.Parallel()
							for at, reached := 1, true; reached && !t.Failed(); at += pace() {
								c := &stopped{newHome(t), newServer(caps...), wire, how, at, user, deletions, (at+i+j)%2 == 0}
								if reached = c.run(); reached {
									stops.Add(1)
								}
								if t.Failed() {
									t.Fatalf("behind effect %d, reached: %v, new names: %v", at, reached, c.mutt)
								}
								c.do(os.RemoveAll(c.dir))
							}
						})
					}
				}
			}
		}
	})
	if n := stops.Load(); n < stoppedFloor() {
		t.Fatalf("only %d runs were stopped, want at least %d", n, stoppedFloor())
	} else {
		t.Logf("%d runs were stopped", n)
	}
}

// A folder that was emptied here and on the server is what both want.
func TestAFolderThatIsEmptiedOnBothSides(t *testing.T) {
	for wire, caps := range wires() {
		for _, left := range []int{0, plan.Handful + 1} {
			t.Run(fmt.Sprintf("%s/%d", wire, left), func(t *testing.T) {
				t.Parallel()
				s, h, in := few(t, caps...)
				for i := range 6 {
					in.add(plainMail(40 + i))
				}
				h.sync(s)
				for uid := imap.UID(1); uid <= 9; uid++ {
					h.remove("INBOX", uid)
					if int(uid) > left {
						in.expunge(uid)
					}
				}
				rep := h.sync(s)
				if left == 0 && (!rep.Clean() || rep.Held != 0) || rep.Held > 9 {
					t.Errorf("%+v", rep)
				}
				rep = h.sync(s)
				if rep.Held != left {
					t.Errorf("then: %+v", rep)
				}
				if left > 0 {
					h.sync(s, func(o *Options) { o.YesDelete, o.Deletions = true, DeletionsExpunge })
				}
				h.quiet(s)
				h.has(s, map[string]string{"INBOX": "", "Archive": "8", "Trash": "9"})
			})
		}
	}
}
