package pipeline

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// meanwhile is one case: a run deals with mail 1, and behind its effect of number at the
// owner of the mail goes on working.
type meanwhile struct {
	*home
	s      *server
	what   string // what the run is about
	user   string // what is done to the file meanwhile
	mutt   bool   // files get new names when they are moved
	at     int
	tagged bool   // its owner has tagged the mail
	folder string // in which the file was then, "" if there was none
	behind string // the effect
}

// begin brings both sides to agree, and then changes one of them.
func (c *meanwhile) begin() {
	in := c.s.box("INBOX")
	if c.what != "upload" && c.what != "save" && c.what != "arrival" {
		in.add(plainMail(1), `\Seen`)
	}
	for i, box := range []string{"INBOX", "Work", "Later", "Trash"} {
		c.s.box(box).add(plainMail(90+i), `\Seen`)
	}
	c.sync(c.s)
	if db, err := c.index.load(); err != nil {
		c.t.Fatal(err)
	} else if m := db[id(1)]; m != nil {
		m.Tags, c.tagged = append(m.Tags, "mine"), true
		c.do(c.index.save(db))
	}
	switch c.what {
	case "move":
		c.move("INBOX", 1, "Work", c.mutt)
	case "upload":
		c.put("Work", plainMail(1), "S")
	case "save": // the server keeps what it sends, too
		c.put("Work", plainMail(1), "S")
		c.s.box("Work").add(plainMail(1), `\Seen`)
	case "arrival":
		in.add(plainMail(1), `\Seen`)
	case "moved":
		in.take(id(1), c.s.box("Work"))
		c.s.box("Work").flag(2, `\Seen`, `\Answered`)
	case "deleted":
		in.expunge(1)
	case "flagged":
		in.flag(1, `\Seen`, `\Answered`)
	}
}

// run is a run during which the owner of the mail does something to its file. It tells
// whether the run came as far as that.
func (c *meanwhile) run() (reached bool) {
	c.t.Helper()
	var n atomic.Int64
	step := func(what string) {
		if n.Add(1) == int64(c.at) {
			c.behind = what
			c.act()
		}
	}
	c.s.effect = step
	rep, err := c.tryIn(context.Background(), c.s, func(o *Options) { o.Connections, o.Step = 1, step })
	c.s.effect = nil
	c.do(err)
	if !rep.Clean() {
		c.t.Errorf("the run: %+v %+v", rep, c.events)
	}
	return n.Load() >= int64(c.at)
}

// act does something to the file where it was last.
func (c *meanwhile) act() {
	var name string
	for _, folder := range c.folders() {
		if name = c.mailFile(folder, plainMail(1)); name != "" {
			c.folder = folder
			break
		}
	}
	if name == "" {
		return
	}
	key, letters := maildir.ParseName(name)
	rename := func(letters string) {
		c.do(os.Rename(c.path(c.folder, name), c.path(c.folder, "cur/"+filepath.Base(key)+":2,"+letters)))
	}
	switch c.user {
	case "on":
		c.moveFile(c.folder, name, "Later", c.mutt)
	case "back":
		c.moveFile(c.folder, name, "INBOX", c.mutt)
	case "remove":
		c.do(os.Remove(c.path(c.folder, name)))
	case "mark":
		rename(letters + "T")
	case "flag":
		rename("F" + letters)
	case "unflag":
		rename(strings.ReplaceAll(letters, "S", ""))
	case "tag":
		c.index.tag(c.t, id(1), []string{"flagged"}, nil)
	case "untag":
		c.index.tag(c.t, id(1), []string{"unread"}, nil)
	case "rename":
		key = "cur/again" + filepath.Base(key)
		rename(letters)
	}
}

// folders are those in which the file may be, that first in which its owner put it.
func (c *meanwhile) folders() []string {
	if c.what == "moved" {
		return []string{"INBOX", "Work"}
	}
	return []string{"Work", "INBOX"}
}

// want gives the mailboxes in any one of which the mail is to be then, "" for none, and its
// flags.
func (c *meanwhile) want() (in []string, flags []string) {
	home := map[string]string{"move": "Work", "upload": "Work", "save": "Work", "moved": "Work", "flagged": "INBOX", "arrival": "INBOX"}[c.what]
	flags = []string{`\Seen`}
	if c.what == "flagged" || c.what == "moved" {
		flags = append(flags, `\Answered`)
	}
	in = []string{home}
	gone := c.what == "deleted"
	conflict := c.what == "moved" && c.folder == "INBOX" // it was moved on the server before
	switch {
	case c.folder == "":
	case c.user == "on" && conflict:
		in = []string{"Later", home}
	case c.user == "on" && c.what == "save":
		in = []string{"Later", "Later Work"} // before anybody knew that it is the server's
	case c.user == "on":
		in = []string{"Later"}
	case c.user == "back":
		in = []string{"INBOX"}
	case (c.user == "remove" || c.user == "mark") && (conflict || c.what == "flagged"): // what changes there is not deleted
		in = []string{home, "Trash"}
	case gone && c.user == "mark", gone && c.user == "remove":
		in = []string{"", "Trash"}
	case c.user == "remove" && (c.what == "upload" || c.what == "save"):
		in = []string{"Trash", "", home} // before the server had it, or it has one of its own
	case c.user == "remove", c.user == "mark":
		in = []string{"Trash"}
	case c.user == "flag" || c.user == "tag":
		flags = append(flags, `\Flagged`)
	case c.user == "unflag" || c.user == "untag":
		flags = slices.DeleteFunc(flags, func(f string) bool { return f == `\Seen` })
	}
	return in, flags
}

// look compares both sides with that.
func (c *meanwhile) look() {
	c.t.Helper()
	defer c.keep()()
	for range 3 {
		if rep := c.sync(c.s); !rep.Clean() {
			c.t.Errorf("%+v", rep)
		}
	}
	want, flags := c.want()
	got := c.s.holding(id(1))
	if !slices.Contains(want, strings.Join(got, " ")) {
		c.t.Errorf("the mail is in %q, want one of %q", got, want)
	} else if len(got) == 1 && c.user != "remove" && c.user != "mark" {
		for _, m := range c.s.box(got[0]).msgs {
			if m.raw == plainMail(1) && !plan.SameFlags(m.flags, flags) {
				c.t.Errorf("it has %v, want %v", m.flags, flags)
			}
		}
	}
	c.notmuchNew()
	if db, err := c.index.load(); err != nil || c.tagged && c.user != "remove" && len(got) > 0 && (db[id(1)] == nil || !slices.Contains(db[id(1)].Tags, "mine")) {
		c.t.Errorf("notmuch has %+v of the mail, %v", db[id(1)], err)
	}
	c.quiet(c.s)
	c.check(c.s)
}

// meanwhileFloor is how many runs TestItsOwnerGoesOnWorkingBehindEachEffect must disturb.
func meanwhileFloor() int64 {
	if testing.Short() {
		return 10
	}
	return 1000
}

// The owner of a mail does not wait for a sync to end. Behind each effect of a run that moves
// the mail, uploads it, or hears that it came, was moved, flagged or deleted elsewhere, its file
// is moved on or back, removed, marked, or gets other flags, by its name or by notmuch, or another
// name. The next runs do
// with it what they would do had that been done after the run: the mail is there once, on both
// sides, where it was put last, or where the server has it, with the flags of both.
func TestItsOwnerGoesOnWorkingBehindEachEffect(t *testing.T) {
	share.Sweep(t)
	var disturbed atomic.Int64
	t.Run("cases", func(t *testing.T) {
		for wire, caps := range map[string][]string{"bare": nil, "all": wires()["all"]} {
			for what, users := range map[string]string{
				"move": "on back remove mark flag unflag tag untag rename", "upload": "on back remove mark flag unflag rename", "save": "on remove flag rename",
				"arrival": "on remove mark flag unflag rename", "moved": "on remove mark flag unflag tag untag rename", "deleted": "on remove mark flag rename",
				"flagged": "on remove mark flag unflag tag untag rename",
			} {
				for user := range strings.FieldsSeq(users) {
					for _, mutt := range []bool{false, true} {
						if mutt && what != "move" && user != "on" && user != "back" {
							continue // nothing gets a new name by that
						}
						if spared(wire, what, user, mutt) {
							continue
						}
						t.Run(fmt.Sprintf("%s/%s/%s/%v", wire, what, user, mutt), func(t *testing.T) {
							t.Parallel()
							for at, reached := 1, true; reached && !t.Failed(); at += pace() {
								c := &meanwhile{home: newHome(t), s: newServer(caps...), what: what, user: user, mutt: mutt, at: at}
								c.begin()
								if reached = c.run(); reached && c.folder != "" {
									disturbed.Add(1)
								}
								c.look()
								if t.Failed() {
									t.Fatalf("behind effect %d (%s), when the file was in %q", at, c.behind, c.folder)
								}
								c.do(os.RemoveAll(c.dir))
							}
						})
					}
				}
			}
		}
	})
	if n := disturbed.Load(); n < meanwhileFloor() {
		t.Fatalf("only %d runs were disturbed, want at least %d", n, meanwhileFloor())
	} else {
		t.Logf("%d runs were disturbed", n)
	}
}
