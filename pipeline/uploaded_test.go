package pipeline

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
)

func TestWhatTheServerRefusesStaysHere(t *testing.T) {
	t.Parallel()
	s, h := newServer("UIDPLUS", "CONDSTORE"), newHome(t)
	in := s.box("INBOX")
	for i := range 3 {
		in.add(plainMail(i))
	}
	h.sync(s)
	h.put("INBOX", plainMail(7), "S")
	s.refuses = map[string]*mail.Fault{"APPEND": {Kind: mail.KindNo, Code: "TOOBIG", Text: "too big"}}
	in.add(plainMail(8))
	now := time.Now()
	at := func(o *Options) { o.Now = func() time.Time { return now } }
	for i, c := range []struct {
		later       time.Duration
		full        bool
		sent, fault int
	}{{0, false, 1, 1}, {time.Minute, false, 0, 0}, {15 * time.Minute, false, 1, 0}, {30 * time.Minute, false, 0, 0}, {time.Minute, true, 1, 0}, {2 * time.Hour, false, 0, 0}} {
		now = now.Add(c.later)
		s.asked = nil
		rep := h.sync(s, at, func(o *Options) { o.Full = c.full })
		if failed := h.failures(); len(failed) != 1 || failed[0].State != FailedUnsent || !failed[0].NextTry.After(now) {
			t.Errorf("listed: %+v", failed) // once, with when it is tried again
		}
		if len(rep.Faults) != c.fault || c.fault > 0 && !strings.Contains(rep.Faults[0].Text, "too big") || rep.Uploaded != 0 || rep.Unsent != 1-c.fault {
			t.Errorf("run %d: %+v", i, rep)
		}
		if n := strings.Count(strings.Join(s.asked, "\n"), "APPEND"); n != c.sent {
			t.Errorf("run %d: sent %d times", i, n)
		}
	}
	if u := h.unsent(); len(u) != 1 || u[0].Attempts != 3 || !strings.Contains(u[0].Reason, "too big") || u[0].Mailbox != "INBOX" {
		t.Errorf("%+v", u)
	}
	if n := len(h.files("INBOX")); n != 5 {
		t.Errorf("%d files", n)
	}
	// No Trash to move to: nothing is deleted.
	s.refuses = nil
	h.remove("INBOX", 1)
	now = now.Add(24 * time.Hour)
	if rep := h.sync(s, at); len(rep.Faults) != 1 || len(in.msgs) != 5 || rep.Uploaded != 1 || rep.Deleted != 0 {
		t.Errorf("%+v", rep)
	}
	if rep := h.sync(s, func(o *Options) { o.Trash = "Bin" }); rep.Deleted != 1 || rep.Uploaded != 0 || !rep.Clean() || len(s.box("Bin").msgs) != 1 {
		t.Errorf("%+v", rep)
	}
	h.sync(s)
	h.notmuchNew()
	h.check(s)
}

// A mail that is refused costs no other one that went with it, and makes none
// twice, even on a server that stores half of a command.
func TestAMailThatIsRefusedTogetherWithOthers(t *testing.T) {
	t.Parallel()
	for _, partly := range []bool{false, true} {
		for _, mute := range []bool{false, true} {
			s, h := newServer("UIDPLUS", "CONDSTORE", "MULTIAPPEND"), newHome(t)
			in := s.box("INBOX")
			in.add(plainMail(0))
			h.sync(s)
			s.picky, s.partly, s.mute = "mail 13", partly, mute
			for i := range 6 {
				h.put("INBOX", plainMail(10+i), "S")
			}
			h.put("INBOX", plainMail(15), "F") // a second file of it is no second mail
			rep := h.sync(s)
			if len(rep.Faults) != 1 || !strings.Contains(rep.Faults[0].Text, "too big") || rep.New != 0 {
				t.Errorf("partly: %v, mute: %v: %+v", partly, mute, rep)
			}
			want := []string{"mail 0", "mail 10", "mail 11", "mail 12", "mail 14", "mail 15"}
			if got := in.subjects(); !slices.Equal(got, want) {
				t.Errorf("partly: %v, mute: %v: the server has %q", partly, mute, got)
			}
			if n := strings.Count(strings.Join(s.asked, "\n"), "APPEND"); n != 2 {
				t.Errorf("partly: %v, mute: %v: %d times", partly, mute, n)
			}
			s.picky = ""
			h.sync(s, func(o *Options) { o.Full = true })
			h.quiet(s)
			for f, raw := range h.files("INBOX") {
				if strings.Contains(raw, "m15@") {
					h.do(os.Remove(h.path("INBOX", f))) // whichever it is
					break
				}
			}
			h.sync(s)
			h.notmuchNew()
			h.sync(s) // the tags are those of the one file now
			h.quiet(s)
			h.check(s)
		}
	}
}

// countedIndex counts how often notmuch is told of a file, by its key.
type countedIndex struct {
	Index
	adds map[string]int
}

func (x countedIndex) Apply(ctx context.Context, changes []mail.Change) ([]mail.Result, error) {
	for _, c := range changes {
		if c.Op == mail.OpAdd {
			key, _ := maildir.ParseName(c.Path)
			x.adds[key]++
		}
	}
	return x.Index.Apply(ctx, changes)
}

// An uploaded mail is read by notmuch once, on its way up; and again where the
// server gives it other flags.
func TestAnUploadedMailIsIndexedOnce(t *testing.T) {
	t.Parallel()
	for _, batch := range []int{0, 1} { // all in one commit, and each in its own
		s, h := newServer("UIDPLUS", "CONDSTORE"), newHome(t)
		in := s.box("INBOX")
		in.add(plainMail(0))
		h.sync(s)
		for i := range 4 {
			h.put("INBOX", plainMail(1+i), "S")
		}
		adds := make(map[string]int)
		counted := func(o *Options) {
			o.Index, o.Batch = countedIndex{o.Index, adds}, batch
			o.Step = func(effect string) {
				s.mu.Lock()
				defer s.mu.Unlock()
				if effect == "message uploaded" && len(in.msgs) == 5 {
					in.flag(in.next-1, `\Seen`, `\Flagged`)
				}
			}
		}
		if rep := h.sync(s, counted); rep.Uploaded != 4 || rep.New != 0 || !rep.Clean() {
			t.Errorf("%+v", rep)
		}
		once, twice := 0, 0
		for _, n := range adds {
			switch n {
			case 1:
				once++
			case 2:
				twice++
			}
		}
		if once != 3 || twice != 1 {
			t.Errorf("batches of %d: notmuch was told %v", batch, adds)
		}
		h.quiet(s)
		h.check(s)
	}
}

// An Exchange that changes what it is given, and tells no UID, makes no mail
// twice.
func TestAnUploadThatComesBackChangedIsNotRepeated(t *testing.T) {
	t.Parallel()
	s, h := newServer(), newHome(t)
	s.footer, s.mute = strings.Repeat("footer\r\n", 200), true
	s.box("INBOX").add(plainMail(1))
	h.sync(s)
	h.put("INBOX", plainMail(7), "S")
	h.put("INBOX", strings.Replace(plainMail(8), "Message-ID", "X-ID", 1), "S")
	for range 4 {
		h.sync(s)
	}
	if n := len(s.box("INBOX").msgs); n != 3 {
		t.Errorf("the server has %d messages", n)
	}
	h.quiet(s)
}

func TestAStubIsNeverUploaded(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS"), newHome(t)
	u := s.box("INBOX").add(plainMail(1))
	s.box("INBOX").msgs[u].fault = &serverFault{}
	s.box("Archive").add(plainMail(2))
	h.sync(s)
	stub, err := os.ReadFile(h.path("INBOX", h.file("INBOX", u)))
	h.do(err)
	h.put("Archive", string(stub), "S")
	h.move("INBOX", u, "Archive", true)
	if rep := h.sync(s); rep.Uploaded+rep.Moved+rep.Deleted != 0 || s.writes != 0 {
		t.Errorf("%+v", rep)
	}
}

// What the server has already is not uploaded: files that another program left,
// and mail that a server like Gmail does not take twice.
func TestWhatTheServerHasAlreadyIsNotUploaded(t *testing.T) {
	t.Parallel()
	s, h := newServer("UIDPLUS", "CONDSTORE"), newHome(t)
	in := s.box("INBOX")
	for i := range 3 {
		in.add(plainMail(i))
	}
	h.sync(s)
	h.put("INBOX", strings.Repeat("X-OfflineIMAP: x\r\n", 100)+plainMail(1), "S")
	for range 3 {
		if rep := h.sync(s); rep.Uploaded != 0 || !rep.Clean() {
			t.Errorf("%+v", rep)
		}
	}
	s.dedup = true
	h.put("INBOX", strings.Replace(plainMail(2), "<m2@", "<M2@", 1), "S")
	sum := 0
	for range 3 {
		sum += h.sync(s).Uploaded
	}
	if sum != 1 || len(in.msgs) != 3 {
		t.Errorf("uploaded %d times, the server has %d", sum, len(in.msgs))
	}
	h.quiet(s)
}

// Mutt saves what it sends, and so does the server, with headers of its own.
func TestSentMailThatTheServerSavesToo(t *testing.T) {
	t.Parallel()
	s, h := newServer("UIDPLUS", "CONDSTORE"), newHome(t)
	s.box("Sent").add(plainMail(0))
	h.sync(s)
	h.put("Sent", plainMail(1), "S")
	u := s.box("Sent").add(strings.Repeat("Received: by us\r\n", 60)+plainMail(1), `\Seen`)
	s.box("Sent").msgs[u].date = time.Now().Add(-time.Minute)
	for range 2 {
		if rep := h.sync(s); rep.Uploaded+rep.New != 0 || !rep.Clean() {
			t.Errorf("%+v", rep)
		}
	}
	h.quiet(s)
}

// A mail that is edited in Mutt is a new file beside the old one, which gets the
// letter T, or goes later.
func TestAnEditedMailTakesThePlaceOfTheOld(t *testing.T) {
	for _, how := range []string{"marked", "removed at once", "removed later"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
			in := s.box("INBOX")
			for i := range 3 {
				in.add(plainMail(i))
			}
			s.box("Trash")
			h.sync(s)
			h.put("INBOX", plainMail(1)+strings.Repeat("edited\r\n", 200), "")
			switch how {
			case "marked":
				h.flag("INBOX", 2, "T")
			case "removed later":
				h.sync(s)
				fallthrough
			default:
				h.remove("INBOX", 2)
			}
			for range 2 {
				h.sync(s)
			}
			if len(in.msgs) != 3 || in.msgs[4] == nil || in.msgs[2] != nil || len(s.box("Trash").msgs) != 1 {
				t.Errorf("INBOX has %v, the Trash %d", in.uids(), len(s.box("Trash").msgs))
			}
			h.quiet(s)
			h.notmuchNew()
			h.check(s)
		})
	}
}

// What is not to be uploaded into one folder is a new file in another.
func TestAFileThatIsNotUploadedMayMoveElsewhere(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
	in, archive := s.box("INBOX"), s.box("Archive")
	in.add(plainMail(1))
	archive.add(plainMail(2))
	h.sync(s)
	h.put("INBOX", plainMail(1), "S")
	h.sync(s)
	for name := range h.files("INBOX") {
		if strings.Contains(name, "mutt") {
			h.do(os.Rename(h.path("INBOX", name), h.path("Archive", name)))
		}
	}
	if rep := h.sync(s); rep.Uploaded != 1 || len(archive.msgs) != 2 || len(in.msgs) != 1 {
		t.Errorf("%+v, the Archive has %d", rep, len(archive.msgs))
	}
	h.quiet(s)
	h.notmuchNew()
	h.check(s)
}

// A server that shows late what it was given does not make the mail twice here.
func TestAnUploadThatShowsLateIsNotFetched(t *testing.T) {
	t.Parallel()
	s, h := newServer("UIDPLUS", "CONDSTORE"), newHome(t)
	in := s.box("INBOX")
	in.add(plainMail(1))
	h.sync(s)
	h.put("INBOX", plainMail(7), "S")
	s.dedup = true // it says that it has it, and lists nothing new
	h.sync(s)
	in.add(plainMail(7), `\Seen`)
	if rep := h.sync(s); rep.New != 0 || !rep.Clean() || len(h.files("INBOX")) != 2 {
		t.Errorf("%+v, %d files", rep, len(h.files("INBOX")))
	}
	h.quiet(s)
	h.notmuchNew()
	h.check(s)
}

// What number an upload got means nothing once the server gives other numbers.
func TestNewNumbersBehindAnUpload(t *testing.T) {
	t.Parallel()
	s, h := newServer("UIDPLUS", "CONDSTORE"), newHome(t)
	in := s.box("INBOX")
	in.add(plainMail(1))
	in.add(plainMail(2))
	h.sync(s)
	h.put("INBOX", plainMail(7), "")
	h.sync(s, func(o *Options) {
		o.Step = func(effect string) {
			if effect == "message uploaded" {
				s.mu.Lock()
				in.validity++
				in.msgs[4], in.next = in.msgs[3], 5
				in.msgs[3] = &serverMail{raw: plainMail(9), flags: []string{}, date: h.now, modseq: in.modseq}
				s.mu.Unlock()
			}
		}
	})
	h.sync(s)
	h.quiet(s)
	h.notmuchNew()
	h.check(s)
	for u, want := range map[imap.UID]string{3: "mail 9", 4: "mail 7"} {
		l, err := ledger.OpenReadOnly(t.Context(), filepath.Join(h.dir, "state"))
		h.do(err)
		row, ok, err := l.Get(t.Context(), "INBOX", in.validity, u)
		h.do(err)
		h.do(l.Close())
		if raw := h.files("INBOX")[row.Name]; !ok || !strings.Contains(raw, want) {
			t.Errorf("UID %d is the file %s: %q", u, row.Name, raw)
		}
	}
}
