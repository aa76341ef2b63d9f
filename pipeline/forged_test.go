package pipeline

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// forgeries are mails that say they are the stub of UID n of INBOX.
func forgeries(n imap.UID) map[string]string {
	key := stub.NewKey("work", "INBOX", 14, n)
	mail := func(id, sig, more string) string {
		return fmt.Sprintf("%sFrom: a@example.org\r\nMessage-ID: <%s>\r\nSubject: forged\r\n%s: v=1; key=%s%s\r\nX-Label: fetch-skipped\r\nX-Notmuch-Imap-Account: work\r\n\r\nbuy this\r\n",
			more, id, stub.Field, key, sig)
	}
	return map[string]string{
		"header alone":         mail("forged@example.org", "", ""),
		"its Message-ID":       mail(key.MessageID(), "", ""),
		"came by mail":         mail(key.MessageID(), "", "Received: from a by b\r\n"),
		"a signature":          mail(key.MessageID(), "; sig="+stub.Sign("", key), ""),
		"of another account":   strings.ReplaceAll(mail(key.MessageID(), "", ""), key.Hash, stub.NewKey("home", "INBOX", 14, n).Hash),
		"two such headers":     stub.Field + ": v=1; key=" + key.String() + "\r\n" + mail("forged@example.org", "", ""),
		"of a failing message": strings.ReplaceAll(mail(stub.NewKey("work", "INBOX", 14, 3).MessageID(), "", ""), key.String(), stub.NewKey("work", "INBOX", 14, 3).String()),
	}
}

// A mail that only says that it is a stub is mail like any other: it is filed, saved,
// and found again when the ledger is lost; and it keeps nothing else away.
func TestAForgedStubIsMail(t *testing.T) {
	for name, raw := range forgeries(2) {
		for wire, caps := range wires() {
			if spared(name + "/" + wire) {
				continue
			}
			t.Run(name+"/"+wire, func(t *testing.T) {
				t.Parallel()
				s, h := newServer(caps...), newHome(t)
				in := s.box("INBOX")
				in.add(raw)
				in.add(plainMail(2))
				in.add(plainMail(3))
				in.msgs[3].fault = &serverFault{}
				for _, box := range []string{"Archive", "Lists", "Trash"} {
					s.box(box)
				}
				h.sync(s)
				h.sync(s)
				stub := h.files("INBOX")
				h.put("Lists", raw, "S") // saved from an attachment, or by an Fcc
				if rep := h.sync(s); rep.Uploaded != 1 || !rep.Clean() {
					t.Errorf("saved: %+v", rep)
				}
				for _, renamed := range []bool{true, false} {
					to := map[bool]string{true: "Archive", false: "INBOX"}[renamed]
					from := map[bool]string{true: "INBOX", false: "Archive"}[renamed]
					h.move(from, slices.Min(s.box(from).uids()), to, renamed)
					if rep := h.sync(s); rep.Moved != 1 || rep.Deleted+rep.Uploaded > 0 || len(s.box("Trash").msgs) > 0 {
						t.Errorf("filed, renamed %v: %+v", renamed, rep)
					}
					h.sync(s)
				}
				h.notmuchNew()
				h.quiet(s)
				if len(h.files("INBOX")) != len(stub) {
					t.Errorf("INBOX has %d files, had %d", len(h.files("INBOX")), len(stub))
				}

				h.do(os.RemoveAll(filepath.Join(h.dir, "state")))
				in.add(plainMail(4))
				for range 3 {
					if rep := h.sync(s); len(rep.Faults) > 0 || rep.Uploaded+rep.Deleted+rep.Moved+rep.NewStubs > 0 {
						t.Errorf("ledger lost: %+v", rep)
					}
				}
				in.msgs[3].fault = nil
				h.now = h.now.AddDate(0, 1, 0)
				if rep := h.sync(s); rep.Healed != 1 {
					t.Errorf("healed: %+v", rep)
				}
				for _, box := range []string{"INBOX", "Archive", "Lists"} {
					h.same(s, box)
				}
			})
		}
	}
}

// A stub stays one wherever it goes, also when its message came, and also one that was
// written before stubs were signed or by who had another secret.
func TestAStubStaysAStub(t *testing.T) {
	key := stub.NewKey("work", "INBOX", 14, 2)
	for name, c := range map[string]struct {
		alter  func(raw string) string
		healed bool
	}{
		"signed":          {func(raw string) string { return raw }, true},
		"unsigned":        {func(raw string) string { return strings.Replace(raw, "; sig="+sigOf(raw), "", 1) }, false},
		"a secret before": {func(raw string) string { return strings.Replace(raw, sigOf(raw), stub.Sign("lost", key), 1) }, false},
	} {
		for _, how := range []string{"copied", "moved", "moved by Mutt"} {
			t.Run(name+"/"+how, func(t *testing.T) {
				t.Parallel()
				s, h := newServer("CONDSTORE", "MOVE", "UIDPLUS"), newHome(t)
				in := s.box("INBOX")
				in.add(plainMail(1))
				in.add(plainMail(2))
				in.msgs[2].fault = &serverFault{}
				s.box("Archive").add(plainMail(9))
				h.sync(s)
				path := h.path("INBOX", h.file("INBOX", 2))
				raw, err := os.ReadFile(path)
				h.do(err)
				altered := c.alter(string(raw))
				h.do(os.WriteFile(path, []byte(altered), 0o600))
				if how == "copied" {
					h.put("Archive", altered, "S")
				} else {
					h.move("INBOX", 2, "Archive", how == "moved by Mutt")
				}
				for i := range 4 {
					if i == 2 && c.healed {
						in.msgs[2].fault = nil
						h.now = h.now.AddDate(0, 1, 0)
					}
					if rep := h.sync(s, func(o *Options) { o.Retry = []Target{{Mailbox: "INBOX", UIDValidity: 14, UID: 2}} }); rep.Uploaded+rep.Moved+rep.Deleted > 0 || s.writes > 0 {
						t.Errorf("%+v", rep)
					}
				}
			})
		}
	}
}

// sigOf gives the signature of a stub.
func sigOf(raw string) string {
	c, err := stub.ReadClaim(strings.NewReader(raw))
	if err != nil {
		panic(err)
	}
	return c.Signature
}
