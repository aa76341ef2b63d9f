package pipeline

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// inAttic gives what the attic has: the folder and the number of each mail.
func (h *home) inAttic() (out []string) {
	h.t.Helper()
	root := filepath.Join(h.dir, "state", "attic")
	h.do(filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil || e.IsDir() || e.Name() == "unpruned" {
			return err
		}
		raw, err := os.ReadFile(path)
		for i := range 100 {
			if string(raw) == strings.ReplaceAll(plainMail(i), "\r\n", "\n") {
				folder, err := filepath.Rel(root, filepath.Dir(filepath.Dir(path)))
				_, folder, _ = strings.Cut(folder, "/")
				out = append(out, fmt.Sprintf("%s %d", folder, i))
				return err
			}
		}
		out = append(out, path)
		return err
	}))
	slices.Sort(out)
	return out
}

// What is gone on the server is removed here, and kept for a while: of mail that is nowhere else, and
// by nobody's wish here.
func TestWhatTheServerRemovedIsInTheAttic(t *testing.T) {
	for name, c := range map[string]struct {
		away func(h *home, s *server)
		want []string
	}{
		"deleted there":        {func(_ *home, s *server) { s.box("INBOX").expunge(1) }, []string{"INBOX 0"}},
		"moved there":          {func(_ *home, s *server) { s.relocate("INBOX", 1, "Archive") }, nil},
		"deleted here":         {func(h *home, _ *server) { h.remove("INBOX", 1) }, nil},
		"marked here":          {func(h *home, _ *server) { h.flag("INBOX", 1, "T") }, nil},
		"one of two":           {func(_ *home, s *server) { s.box("INBOX").expunge(2) }, nil},
		"both of two":          {func(_ *home, s *server) { s.box("INBOX").expunge(2); s.box("Archive").expunge(1) }, []string{"Archive 1", "INBOX 1"}},
		"deleted, and with 0d": {func(_ *home, s *server) { s.box("INBOX").expunge(1) }, nil},
	} {
		for wire, caps := range wires() {
			if spared(name, wire) {
				continue
			}
			t.Run(name+"/"+wire, func(t *testing.T) {
				t.Parallel()
				s, h := newServer(caps...), newHome(t)
				for i := range 5 {
					s.box("INBOX").add(plainMail(i))
				}
				s.box("Archive").add(plainMail(1))
				s.box("Archive").add(plainMail(50))
				s.box("Trash").add(plainMail(60))
				days := func(o *Options) {
					if strings.HasSuffix(name, "0d") {
						o.AtticDays = 0
					}
				}
				h.sync(s, days)
				c.away(h, s)
				for range 3 {
					if rep := h.sync(s, days); !rep.Clean() {
						t.Errorf("%+v", rep)
					}
				}
				h.check(s)
				if got := h.inAttic(); !slices.Equal(got, c.want) {
					t.Errorf("the attic has %q, want %q", got, c.want)
				}
				h.now = h.now.AddDate(0, 0, 31)
				h.sync(s, days)
				if got := h.inAttic(); len(got) > 0 {
					t.Errorf("after a month it has %q", got)
				}
			})
		}
	}
}

// Wherever a run is stopped that removes mail, that is in its folder or in the attic, and not for ever.
func TestAStopBehindEachEffectOfARemoval(t *testing.T) {
	t.Parallel()
	for at, reached := 1, true; reached && !t.Failed(); at += pace() {
		s, h := newServer(wires()["all"]...), newHome(t)
		for i := range 4 {
			s.box("INBOX").add(plainMail(i))
		}
		s.box("Archive").add(plainMail(50))
		h.sync(s)
		h.tag(id(1), []string{"mine"}, []string{"inbox"})
		tags := h.tags(id(1))
		s.box("INBOX").expunge(2)
		s.box("INBOX").expunge(3)
		reached = h.stopAt(s, at)
		in := h.inAttic()
		for i := 1; i <= 2; i++ {
			if (h.mailFile("INBOX", plainMail(i)) != "") == slices.Contains(in, fmt.Sprintf("INBOX %d", i)) {
				t.Errorf("stopped behind %d: mail %d is in both or in none, the attic has %q", at, i, in)
			}
		}
		h.sync(s)
		h.check(s)
		if got := h.inAttic(); !slices.Equal(got, []string{"INBOX 1", "INBOX 2"}) {
			t.Errorf("stopped behind %d: the attic has %q", at, got)
		}
		h.undo(s, func(*Options) {})
		if got := h.tags(id(1)); !slices.Equal(got, tags) || len(h.inAttic()) > 0 {
			t.Errorf("stopped behind %d: undone it has %q, want %q, and the attic %q", at, got, tags, h.inAttic())
		}
	}
}

// What is larger than the attic may be goes without it, and is said; and what is kept is not put out by
// the run that has put it there.
func TestALargeMailAndTheAttic(t *testing.T) {
	t.Parallel()
	s, h := newServer(wires()["all"]...), newHome(t)
	for i := range 4 {
		s.box("INBOX").add(plainMail(i))
	}
	large := plainMail(77) + strings.Repeat("x", 3000) + "\r\n"
	s.box("INBOX").add(large)
	small := func(o *Options) { o.AtticSize = int64(len(plainMail(1))) + 10 }
	h.sync(s, small)
	for _, uid := range []imap.UID{2, 3, 5} {
		s.box("INBOX").expunge(uid)
	}
	rep := h.sync(s, small)
	said := slices.ContainsFunc(h.events, func(e report.Event) bool {
		return strings.Contains(e.Text, "larger than the attic may be (attic_size)")
	})
	if got := h.inAttic(); !rep.Clean() || !said || !slices.Equal(got, []string{"INBOX 1", "INBOX 2"}) {
		t.Errorf("%+v, said %v, and the attic has %q", rep, said, got)
	}
	h.sync(s, small)
	if got := h.inAttic(); len(got) != 1 {
		t.Errorf("later the attic has %q", got)
	}
	h.check(s)
}

// Where notmuch would find the attic nothing is kept, and that is said once of a mailbox.
func TestNoPlaceForAnAttic(t *testing.T) {
	t.Parallel()
	s, h, _ := few(t, wires()["all"]...)
	none := func(o *Options) { o.NoAttic = "it is in the way" }
	said := 0
	for uid := range imap.UID(2) {
		s.box("INBOX").expunge(uid + 1)
		h.sync(s, none)
		for _, e := range h.events {
			if strings.Contains(e.Text, "not kept: it is in the way") {
				said++
			}
		}
	}
	if got := h.inAttic(); len(got) > 0 || said != 1 {
		t.Errorf("the attic has %q, said %d times", got, said)
	}
	h.check(s)
}

// What cannot be put into the attic stays where it is, and is said; all else is done.
func TestAnAtticThatTakesNothing(t *testing.T) {
	t.Parallel()
	s, h := newServer(wires()["all"]...), newHome(t)
	for i := range 4 {
		s.box("INBOX").add(plainMail(i))
	}
	s.box("Archive").add(plainMail(50))
	h.sync(s)
	attic := filepath.Join(h.dir, "state", "attic")
	h.do(os.WriteFile(attic, nil, 0o600)) // in the way
	s.box("INBOX").expunge(2)
	s.box("Archive").add(plainMail(51))
	rep := h.sync(s)
	if !rep.Broken() || rep.New != 1 || len(rep.Faults) != 1 || !strings.Contains(rep.Faults[0].Text, "cannot be put into the attic (attic_days = 0 is for none)") {
		t.Errorf("%+v", rep)
	}
	if h.mailFile("INBOX", plainMail(1)) == "" {
		t.Error("it is gone")
	}
	h.do(os.Remove(attic))
	if rep := h.sync(s); !rep.Clean() || rep.Removed != 1 {
		t.Errorf("%+v", rep)
	}
	h.check(s)
	if got := h.inAttic(); !slices.Equal(got, []string{"INBOX 1"}) {
		t.Errorf("the attic has %q", got)
	}
}
