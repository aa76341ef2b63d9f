package pipeline

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A server that cannot read the Message-ID back contradicts nothing: its UID, size
// and date tell which file a message is.
func TestAServerThatTellsNoMessageIDIsGivenAMailOnce(t *testing.T) {
	for wire, caps := range wires() {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			s, h, in := few(t, caps...)
			s.wordless = true
			h.put("INBOX", plainMail(71), "S")
			h.put("INBOX", strings.Replace(plainMail(72), "Message-ID", "X-ID", 1), "S")
			had := len(in.msgs)
			if rep := h.sync(s); rep.Uploaded != 2 || rep.New != 0 || !rep.Clean() {
				t.Errorf("%+v", rep)
			}
			for range 2 {
				h.quiet(s)
				h.do(os.RemoveAll(filepath.Join(h.dir, "state")))
				if rep := h.sync(s); rep.Uploaded+rep.New+rep.Removed != 0 || !rep.Clean() {
					t.Errorf("after the ledger was lost: %+v", rep)
				}
			}
			if n := len(in.msgs); n != had+2 {
				t.Errorf("the server has %d messages, and had %d", n, had)
			}
			in.validity++
			if rep := h.sync(s); rep.Uploaded+rep.New+rep.Removed != 0 || !rep.Clean() {
				t.Errorf("after a new UIDVALIDITY: %+v", rep)
			}
			h.quiet(s)
		})
	}
}

// What a server changed of a mail that it was given is no reason to have it twice.
func TestALostLedgerAndAServerThatChangesMail(t *testing.T) {
	for wire, caps := range wires() {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			s, h, in := few(t, caps...)
			s.footer = "\r\nadded\r\n"
			h.put("INBOX", plainMail(71), "S")
			had := len(in.msgs)
			if rep := h.sync(s); rep.Uploaded != 1 || rep.New != 0 || !rep.Clean() {
				t.Errorf("%+v", rep)
			}
			for range 2 {
				h.do(os.RemoveAll(filepath.Join(h.dir, "state")))
				if rep := h.sync(s); rep.Uploaded+rep.New+rep.Removed != 0 || !rep.Clean() {
					t.Errorf("after the ledger was lost: %+v", rep)
				}
				h.quiet(s)
			}
			if n := len(in.msgs); n != had+1 {
				t.Errorf("the server has %d messages, and had %d", n, had)
			}
		})
	}
}

// The same of a server that changes mail in any other way, and where another client deletes one
// of them before the ledger is lost: that does not come back, and none is there twice.
func TestALostLedgerAndAServerThatRewritesMail(t *testing.T) {
	for wire, caps := range wires() {
		for name, alter := range map[string]func(string) string{
			"a header added": func(raw string) string { return "X-Server: was here and says a lot\r\n" + raw },
			"headers added": func(raw string) string {
				return strings.Repeat("X-Server: was here and says a lot of it\r\n", 30) + raw
			},
			"a newline added": func(raw string) string { return raw + "\r\n" },
			"no newline":      func(raw string) string { return strings.TrimRight(raw, "\r\n") },
			"LF":              func(raw string) string { return strings.ReplaceAll(raw, "\r\n", "\n") },
		} {
			if spared(name + "/" + wire) {
				continue
			}
			t.Run(name+"/"+wire, func(t *testing.T) {
				t.Parallel()
				s, h, in := few(t, caps...)
				for i := range 3 {
					h.put("INBOX", plainMail(71+i), "S")
				}
				s.effect = func(verb string) {
					if m := in.msgs[in.next-1]; verb == "APPEND" && m != nil {
						m.raw = alter(m.raw)
					}
				}
				if rep := h.sync(s); rep.Uploaded != 3 || rep.New != 0 || !rep.Clean() {
					t.Errorf("%+v", rep)
				}
				s.effect = nil
				h.quiet(s)
				for _, uid := range in.uids() {
					if strings.Contains(in.msgs[uid].raw, "m72@") {
						in.expunge(uid)
					}
				}
				for range 2 {
					h.do(os.RemoveAll(filepath.Join(h.dir, "state")))
					if rep := h.sync(s); rep.Uploaded+rep.New+rep.Removed != 0 || !rep.Clean() {
						t.Errorf("after the ledger was lost: %+v", rep)
					}
					h.quiet(s)
				}
				if server, here := len(in.msgs), len(h.files("INBOX")); server != 5 || here != 6 {
					t.Errorf("the server has %d messages of 5, and %d files of 6 are here", server, here)
				}
			})
		}
	}
}
