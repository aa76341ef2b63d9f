package pipeline

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
)

// flagsStopped is one case: a run that tells the server of flags is stopped behind an
// effect, and what the user does to these mails before the next run.
type flagsStopped struct {
	*home
	s    *server
	how  string
	user string
}

func (c *flagsStopped) options(o *Options) { o.Deletions = DeletionsExpunge }

// begin brings both sides to agree, and then flags mails 1 to 3: one gets letters, one
// loses one, one both. Mail 4 is opened, which changes its name alone, as does mail 5, in a
// mailbox where nothing else does.
func (c *flagsStopped) begin() {
	in := c.s.box("INBOX")
	in.add(plainMail(1))
	in.add(plainMail(2), `\Flagged`)
	in.add(plainMail(3), `\Seen`)
	in.add(plainMail(4))
	c.s.box("Work").add(plainMail(5))
	c.sync(c.s, c.options)
	c.flag("INBOX", 1, "FS")
	c.flag("INBOX", 2, "")
	c.flag("INBOX", 3, "F")
	c.flag("INBOX", 4, "")
	c.flag("Work", 1, "")
}

// stop runs a sync that ends behind the effect of number at: here, with what was answered
// recorded or not, or on the server, whose answer does not come.
func (c *flagsStopped) stop(at int) bool {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.t.Context())
	defer cancel()
	var n atomic.Int64
	c.s.effect = func(string) {
		if c.how == stopUnheard && n.Add(1) == int64(at) {
			c.s.unheard = true
			cancel()
		}
	}
	_, err := c.tryIn(ctx, c.s, c.options, func(o *Options) {
		o.Connections = 1
		o.Step = func(string) {
			if c.how == stopCancelled && n.Add(1) == int64(at) {
				cancel()
			}
		}
	})
	if err != nil && ctx.Err() == nil {
		c.t.Fatal(err)
	}
	c.s.effect, c.s.unheard = nil, false
	return n.Load() >= int64(at)
}

// act does what the user does, and gives the letters that mails 1 to 3 are to have and
// where they are to be; "" is nowhere.
func (c *flagsStopped) act() (letters [3]string, in string) {
	letters, in = [3]string{"FS", "", "F"}, "INBOX"
	switch c.user {
	case "delete":
		in = ""
		for u := range imap.UID(3) {
			c.remove("INBOX", u+1)
		}
	case "mark": // as Mutt does in the Trash
		in = ""
		for u, l := range letters {
			c.flag("INBOX", imap.UID(u+1), l+"T")
		}
	case "move":
		in = "Work"
		for u := range imap.UID(3) {
			c.move("INBOX", u+1, "Work", u%2 == 0)
		}
	case "back": // to the flags of before
		letters = [3]string{"", "F", "S"}
		for u, l := range letters {
			c.flag("INBOX", imap.UID(u+1), l)
		}
	case "more":
		letters = [3]string{"FRS", "R", "FR"}
		for u, l := range letters {
			c.flag("INBOX", imap.UID(u+1), l)
		}
	}
	return letters, in
}

func (c *flagsStopped) run(at int) bool {
	c.begin()
	reached := c.stop(at)
	defer c.keep()()
	letters, in := c.act()
	quiet := false
	for range 6 {
		rep := c.sync(c.s, c.options)
		for _, e := range c.events {
			if strings.Contains(e.Text, "meanwhile: kept") {
				c.t.Errorf("%s", e.Text)
			}
		}
		if quiet = rep.New+rep.Flagged+rep.Pushed+rep.Moved+rep.Deleted+rep.Uploaded+rep.Removed == 0 && rep.Clean(); quiet {
			break
		}
	}
	if !quiet {
		c.t.Errorf("it does not come to rest: %+v", c.events)
	}
	words := map[rune]string{'F': `\Flagged`, 'R': `\Answered`, 'S': `\Seen`}
	for i, l := range letters {
		want := ""
		if in != "" {
			var flags []string
			for _, r := range l {
				flags = append(flags, words[r])
			}
			slices.Sort(flags)
			want = fmt.Sprintf("%s%v", in, flags)
		}
		if got := (&stopped{home: c.home, s: c.s}).where(i + 1); got != want {
			c.t.Errorf("mail %d is in %q, want %q", i+1, got, want)
		}
	}
	c.atRest(c.s)
	if in == "INBOX" {
		c.named()
	}
	c.notmuchNew()
	c.check(c.s)
	return reached
}

// What an action changed on the server is known from then on, also where the run ends
// before it looks: what its user does next with these mails is done, and not taken for
// what somebody else has changed meanwhile.
func TestAStopBehindEachEffectOfFlags(t *testing.T) {
	share.Sweep(t)
	for wire, caps := range stopServers() {
		for _, how := range []string{stopCancelled, stopUnheard} {
			for _, user := range []string{"delete", "mark", "move", "back", "more", "nothing"} {
				t.Run(fmt.Sprintf("%s/%s/%s", wire, how, user), func(t *testing.T) {
					t.Parallel()
					if spared(wire, how, user) && user != "delete" {
						return
					}
					at := 1
					for reached := true; reached && !t.Failed(); at++ {
						c := &flagsStopped{newHome(t), newServer(caps...), how, user}
						c.s.mute = wire == "mute" || wire == "bare"
						reached = c.run(at)
						if t.Failed() {
							t.Fatalf("behind effect %d, reached: %v", at, reached)
						}
						c.do(os.RemoveAll(c.dir))
					}
					if at < 5 {
						t.Errorf("only %d effects", at-1)
					}
				})
			}
		}
	}
}

// What somebody else changed meanwhile keeps a mail all the same, also where the server was
// told of other flags of it, and had said OK.
func TestAFlagOfSomebodyElseAfterAStop(t *testing.T) {
	for name, other := range map[string]func(m *serverMail){
		"a flag":             func(m *serverMail) { m.flags = append(m.flags, `\Answered`) },
		"one was taken off":  func(m *serverMail) { m.flags = []string{`\Seen`} },
		"all were taken off": func(m *serverMail) { m.flags = nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
			c := &flagsStopped{h, s, stopCancelled, "delete"}
			in := s.box("INBOX")
			in.add(plainMail(1), `\Flagged`, `\Draft`)
			in.add(plainMail(4))
			h.sync(s, c.options)
			h.flag("INBOX", 1, "DFS")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			_, err := h.tryIn(ctx, s, c.options, func(o *Options) {
				o.Step = func(effect string) {
					if effect == "flags stored" {
						cancel()
					}
				}
			})
			if err == nil {
				t.Fatal("it was not stopped")
			}
			other(in.msgs[1])
			h.remove("INBOX", 1)
			h.sync(s, c.options)
			h.sync(s, c.options)
			if in.msgs[1] == nil {
				t.Error("the mail was deleted")
			}
			h.atRest(s)
		})
	}
}

// A server that says OK to a STORE without effect is not believed for more than that: the
// flag is told again, and no change of others is made of it.
func TestAStoreWithoutEffectBeforeAStop(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
	c := &flagsStopped{h, s, stopCancelled, "nothing"}
	in := s.box("INBOX")
	in.add(plainMail(1))
	in.add(plainMail(4))
	h.sync(s, c.options)
	h.flag("INBOX", 1, "F")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := h.tryIn(ctx, s, c.options, func(o *Options) {
		o.Step = func(effect string) {
			if effect == "flags stored" {
				in.msgs[1].flags = nil
				cancel()
			}
		}
	})
	if err == nil {
		t.Fatal("it was not stopped")
	}
	h.sync(s, c.options)
	if !slices.Contains(in.msgs[1].flags, `\Flagged`) {
		t.Errorf("the server has %v", in.msgs[1].flags)
	}
	h.quiet(s, c.options)
	h.edit(func(l *ledger.Ledger) error {
		row, _, err := l.Get(t.Context(), "INBOX", in.validity, 1)
		if !slices.Equal(row.Flags, []string{`\Flagged`}) {
			t.Errorf("the row has %v", row.Flags)
		}
		return err
	})
}
