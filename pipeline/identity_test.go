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
