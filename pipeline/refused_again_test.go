package pipeline

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// neverTaken is an account with mail on both sides, of which one thing is changed that takes a
// command that the server refuses.
type neverTaken struct {
	caps   []string
	change func(s *server, h *home)
	use    func(*Options)
	refuse func(s *server, no bool)
	asks   string // what the command begins with
	barred bool   // with it nothing else of the mailbox is changed
}

// everyRefusal has each command that a run asks for of a mailbox or a message.
func everyRefusal() map[string]neverTaken {
	verb := func(v string) func(*server, bool) {
		return func(s *server, no bool) {
			if s.refuses = nil; no {
				s.refuses = map[string]*mail.Fault{v: {Kind: mail.KindNo, Op: v, Text: "never"}}
			}
		}
	}
	opening := func(op string) func(*server, bool) {
		return func(s *server, no bool) {
			b := s.box("INBOX")
			if b.refuse, b.refuseSelect = nil, nil; !no {
				return
			}
			f := &mail.Fault{Kind: mail.KindNo, Op: op, Text: "never"}
			if op == "SELECT" {
				b.refuseSelect = f
				return
			}
			b.refuse = f
		}
	}
	all, bare := []string{"MOVE", "UIDPLUS", "CONDSTORE"}, []string{"UIDPLUS", "CONDSTORE"}
	flag := func(_ *server, h *home) { h.flag("INBOX", 1, "F") }
	move := func(_ *server, h *home) { h.move("INBOX", 1, "Work", true) }
	remove := func(_ *server, h *home) { h.remove("INBOX", 1) }
	expunge := func(o *Options) { o.Deletions = DeletionsExpunge }
	tagged := func(o *Options) { o.Moves = []Move{{From: "INBOX", With: "work", To: "Work"}} }
	return map[string]neverTaken{
		"STORE":                   {barred: true, caps: all, change: flag, refuse: verb("UID STORE"), asks: "UID STORE"},
		"MOVE":                    {caps: all, change: move, refuse: verb("UID MOVE"), asks: "UID MOVE"},
		"MOVE to the Trash":       {caps: all, change: remove, refuse: verb("UID MOVE"), asks: "UID MOVE"},
		"MOVE by tag":             {caps: all, change: func(_ *server, h *home) { h.tag(id(1), []string{"work"}, nil) }, use: tagged, refuse: verb("UID MOVE"), asks: "UID MOVE"},
		"COPY":                    {caps: bare, change: move, refuse: verb("UID COPY"), asks: "UID COPY"},
		"STORE after COPY":        {barred: true, caps: bare, change: move, refuse: verb("UID STORE"), asks: "UID STORE"},
		"EXPUNGE after COPY":      {caps: bare, change: move, refuse: verb("UID EXPUNGE"), asks: "UID EXPUNGE"},
		"bare EXPUNGE after COPY": {change: move, refuse: verb("EXPUNGE"), asks: "EXPUNGE"},
		"EXPUNGE":                 {caps: all, change: remove, use: expunge, refuse: verb("UID EXPUNGE"), asks: "UID EXPUNGE"},
		"bare EXPUNGE":            {change: remove, use: expunge, refuse: verb("EXPUNGE"), asks: "EXPUNGE"},
		"APPEND":                  {caps: all, change: func(_ *server, h *home) { h.put("INBOX", plainMail(50), "S") }, refuse: verb("APPEND"), asks: "APPEND"},
		"CREATE": {caps: all, change: func(_ *server, h *home) {
			h.do(os.MkdirAll(h.path("New", "cur"), 0o700))
			h.do(os.MkdirAll(h.path("New", "new"), 0o700))
			h.do(os.MkdirAll(h.path("New", "tmp"), 0o700))
			h.put("New", plainMail(51), "S")
		}, refuse: verb("CREATE"), asks: "CREATE"},
		"SELECT":  {barred: true, caps: all, change: flag, refuse: opening("SELECT"), asks: "SELECT INBOX"},
		"EXAMINE": {barred: true, caps: all, change: func(s *server, _ *home) { s.box("INBOX").add(plainMail(52)) }, refuse: opening("EXAMINE"), asks: "EXAMINE INBOX"},
		"FETCH": {caps: all, change: func(s *server, _ *home) { s.box("INBOX").add(plainMail(53)) }, refuse: func(s *server, no bool) {
			for _, m := range s.box("INBOX").msgs {
				if m.fault = nil; no && strings.Contains(m.raw, "m53@") {
					m.fault = &serverFault{err: &mail.Fault{Kind: mail.KindNo, Op: "FETCH", Text: "never"}}
				}
			}
		}, asks: "UID FETCH"},
	}
}

// What a server refuses for ever is asked for ever more seldom, whatever it is, and keeps nothing
// else from being done; when the server thinks better of it, it is done.
func TestWhatIsRefusedForEverIsAskedEverMoreSeldom(t *testing.T) {
	t.Parallel()
	for name, c := range everyRefusal() {
		if testing.Short() && name != "MOVE" && name != "APPEND" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer(c.caps...), newHome(t)
			for n := 1; n <= 5; n++ {
				s.box("INBOX").add(plainMail(n))
			}
			s.box("Work").add(plainMail(20))
			s.box("Trash").add(plainMail(21))
			use := func(o *Options) {
				if c.use != nil {
					c.use(o)
				}
			}
			h.sync(s, use)
			h.sync(s, use)
			c.change(s, h)
			c.refuse(s, true)
			asked := 0
			const runs = 48 // of a day
			for n := range runs {
				s.asked = nil
				h.sync(s, use)
				for _, a := range s.asked {
					if strings.HasPrefix(a, c.asks) {
						asked++
						break
					}
				}
				if n == runs/2 {
					h.flag("INBOX", 3, "F") // other changes go there meanwhile
				}
				h.now = h.now.Add(30 * time.Minute)
			}
			if asked == 0 || asked > 8 {
				t.Errorf("asked in %d of %d runs", asked, runs)
			}
			if got := slices.Contains(s.box("INBOX").msgs[3].flags, `\Flagged`); got == c.barred {
				t.Errorf("another flag is there: %v", got)
			}
			c.refuse(s, false)
			h.now = h.now.Add(8 * 24 * time.Hour)
			if rep := h.sync(s, use); !rep.Clean() {
				t.Errorf("when it is taken: %+v", rep)
			}
			h.sync(s, use)
			h.quiet(s, use)
			h.notmuchNew()
			h.check(s)
		})
	}
}
