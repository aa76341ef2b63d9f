package pipeline

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger/ledgertest"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// stopNever lets the run go on: what others do they do right behind the APPEND.
const stopNever = "never"

// holding gives the mailboxes in which the server has the mail with this Message-ID.
func (s *server) holding(id string) []string {
	in := []string{}
	for name, b := range s.boxes {
		for _, u := range b.uids() {
			if strings.Contains(b.msgs[u].raw, "<"+id+">") {
				in = append(in, name)
			}
		}
	}
	slices.Sort(in)
	return in
}

// take moves a mail to another mailbox as another client does; "" expunges it. It tells
// whether the mail was there.
func (b *serverBox) take(id string, to *serverBox) bool {
	for _, u := range b.uids() {
		if !strings.Contains(b.msgs[u].raw, "<"+id+">") {
			continue
		}
		m := b.expunge(u)
		if to != nil {
			to.msgs[to.add(m.raw, m.flags...)].date = m.date
		}
		return true
	}
	return false
}

// heard tells whether the ledger knows that the server has taken an upload, by its UID or since
// it was seen there.
func (h *home) heard(id string) (known bool) {
	h.edit(func(l *ledger.Ledger) error {
		rows, err := l.ByMessageID(h.t.Context(), id)
		if err != nil {
			return err
		}
		known = slices.ContainsFunc(rows, func(m ledger.Message) bool { return m.State == ledger.Present && !plan.NotSeen(m) })
		notes, err := journal.Of(l).Arriving.All(h.t.Context())
		for _, a := range notes {
			if a.Row.ID == id {
				known = known || a.Row.UID != imap.UID(0)
			}
		}
		return err
	})
	return known
}

// A run is stopped behind each effect of an upload, or its answer is not heard, or it
// goes on, and another client moves the mail that just came to another mailbox, or
// deletes it, before it is looked for. It is on the server where that client put it,
// once, and here likewise, whatever became of the file here.
func TestAnUploadThatOthersMoveOrDelete(t *testing.T) {
	t.Parallel()
	share.Sweep(t)
	for wire, caps := range stopServers() {
		for _, how := range []string{stopCancelled, stopUnheard, stopNever} {
			for _, other := range []string{"Later", "Trash", "Made", ""} {
				for _, user := range []string{"nothing", "on", "delete"} {
					// Which mailbox that is, and whether the file is touched, each matters by itself.
					if (other == "Trash" || other == "Made") && (user != "nothing" || wire == "mute" || wire == "UIDPLUS") {
						continue
					}
					if spared(wire, how, other, user) {
						continue
					}
					t.Run(fmt.Sprintf("%s %s to %q, %s here", wire, how, other, user), func(t *testing.T) {
						t.Parallel()
						acted := 0
						for at := 1; ; at++ {
							s, h := newServer(caps...), newHome(t)
							h.dir = ledgertest.Dir(t)
							h.index.path = filepath.Join(h.dir, "index.json")
							s.mute = wire == "mute" || wire == "bare"
							for i, box := range []string{"Sent", "INBOX", "Later", "Trash"} {
								s.box(box).add(plainMail(10 + i))
							}
							h.sync(s)
							h.put("Sent", plainMail(1), "S")
							h.put("Sent", plainMail(2), "S")
							act := func() bool {
								if other == "" {
									return s.box("Sent").take("m1@example.org", nil)
								}
								return s.box("Sent").take("m1@example.org", s.box(other))
							}
							taken := false
							if how == stopNever {
								s.effect = func(string) { taken = taken || act() }
								h.sync(s)
								s.effect = nil
							} else {
								if !stopUpload(h, s, how, at) {
									break
								}
								taken = act()
							}
							if taken {
								acted++
							}
							if files := h.files("Sent"); user != "nothing" && slices.ContainsFunc(valuesOf(files), func(raw string) bool { return strings.Contains(raw, "<m1@example.org>") }) {
								file := uploadedFile(h, "Sent", "m1@example.org")
								key, _ := maildir.ParseName(filepath.Base(file))
								if user == "on" {
									h.do(os.Rename(file, h.path("INBOX", "cur/"+key+":2,S")))
								} else {
									h.do(os.Remove(file))
								}
							}
							want := map[string][]string{"nothing": {"[Sent]"}, "on": {"[INBOX]"}, "delete": {"[Trash]", "[]"}}[user]
							switch sure := h.heard("m1@example.org"); {
							case !taken:
							case other != "":
								want = []string{"[" + other + "]"}
							case sure && user == "nothing":
								want = []string{"[]"}
							default: // nobody knows that it was there, or its owner moved it, and so wants it
								want = append(want, "[]")
							}
							for range 4 {
								h.now = h.now.Add(time.Hour)
								h.sync(s)
							}
							// That it ever was there only a number says that the server told: it stays
							// here until its owner deletes it.
							if kept := h.unsent(); len(kept) > 0 {
								if other != "" || user != "nothing" || wire != "UIDPLUS" || len(kept) != 1 || kept[0].ID != "m1@example.org" || !kept[0].GivenUp {
									t.Errorf("stopped at %d: kept %+v", at, kept)
								}
								h.do(os.Remove(uploadedFile(h, "Sent", "m1@example.org")))
								h.sync(s)
							}
							if in := fmt.Sprint(s.holding("m1@example.org")); !slices.Contains(want, in) {
								t.Errorf("stopped at %d: on the server it is in %v, want %s", at, in, want)
							}
							if in := fmt.Sprint(s.holding("m2@example.org")); in != "[Sent]" {
								t.Errorf("stopped at %d: the other one is in %v", at, in)
							}
							h.notmuchNew()
							h.check(s)
							h.quiet(s)
							if t.Failed() {
								t.Fatalf("stopped at %d, taken: %v; %+v", at, taken, h.events)
							}
							h.do(os.RemoveAll(h.dir))
							if how == stopNever {
								break
							}
						}
						if acted == 0 {
							t.Error("the other client never came to act")
						}
					})
				}
			}
		}
	}
}

func valuesOf(m map[string]string) (out []string) {
	for _, v := range m {
		out = append(out, v)
	}
	return out
}
