package pipeline

import (
	"os"
	"strings"
	"testing"
)

// A mail that carries a note of ours, word for word or under a Message-ID of its own, as
// one who was sent a copy of it may send it back, is mail: it is moved, and so is the note
// kept away from the server.
func TestACopyOfANoteThatCameByMailIsMail(t *testing.T) {
	for wire, caps := range wires() {
		for _, id := range []string{"", "copy@example.org"} {
			t.Run(wire+"/"+id, func(t *testing.T) {
				t.Parallel()
				s, h := newServer(append(caps, "CONDSTORE")...), newHome(t)
				in := s.box("INBOX")
				in.add(plainMail(1))
				in.add(plainMail(2))
				in.msgs[2].fault = &serverFault{}
				s.box("Keep").add(plainMail(3))
				s.box("Trash").add(plainMail(4))
				h.sync(s)
				note, err := os.ReadFile(h.path("INBOX", h.row(2).StubName))
				h.do(err)
				text := strings.ReplaceAll(string(note), "\n", "\r\n")
				if i := strings.Index(text, "Message-ID: <"); id != "" {
					text = text[:i] + "Message-ID: <" + id + ">" + text[i+strings.Index(text[i:], "\r\n"):]
				}
				sent := in.add(text)
				h.sync(s)
				h.move("INBOX", sent, "Keep", true)
				h.sync(s)
				h.sync(s)
				if n := len(s.box("Keep").msgs); n != 2 || len(s.box("Trash").msgs) != 1 || len(in.msgs) != 2 {
					t.Errorf("Keep has %d, the Trash %d, INBOX %d", n, len(s.box("Trash").msgs), len(in.msgs))
				}
				// The note itself goes nowhere, also when its owner files it.
				h.do(os.Rename(h.path("INBOX", h.row(2).StubName), h.path("Keep", h.row(2).StubName)))
				h.sync(s)
				if n := len(s.box("Keep").msgs); n != 2 || len(s.box("Trash").msgs) != 1 || len(in.msgs) != 2 {
					t.Errorf("then Keep has %d, the Trash %d, INBOX %d", n, len(s.box("Trash").msgs), len(in.msgs))
				}
			})
		}
	}
}
