package pipeline

import (
	"strings"
	"testing"
)

// A run that only reads says that something was changed here and is not sent.
func TestAReadOnlyRunSaysWhatItDoesNotSend(t *testing.T) {
	t.Parallel()
	for what, want := range map[string]string{"": "", "flag": "1 change is", "delete": "1 change is", "all": "3 changes are"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s, h, _ := few(t, "MOVE", "UIDPLUS")
			readOnly := func(o *Options) { o.ReadOnly = true }
			if what == "flag" || what == "all" {
				h.flag("INBOX", 1, "S")
			}
			if what == "delete" || what == "all" {
				h.remove("INBOX", 2)
			}
			if what == "all" {
				h.put("INBOX", plainMail(7), "S")
			}
			for range 2 {
				h.sync(s, readOnly)
				said := ""
				for _, e := range h.events {
					if strings.Contains(e.Text, "read_only") {
						said += e.Mailbox + ": " + e.Text
					}
				}
				if want == "" && said != "" || want != "" && said != "INBOX: "+want+" here not sent to the server, since read_only is set" {
					t.Errorf("it says %q", said)
				}
			}
			if s.writes > 0 {
				t.Errorf("%d writes", s.writes)
			}
		})
	}
}

// What is not uploaded for its content is not said to have a Message-ID that it lacks.
func TestATwinWithoutMessageIDHasNone(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS"), newHome(t)
	raw := strings.Replace(strings.Replace(plainMail(1), "Message-ID", "X-ID", 1), "\x00", "", 1)
	s.box("INBOX").add(raw)
	h.sync(s)
	h.put("INBOX", raw, "S")
	h.sync(s)
	for _, e := range h.events {
		if strings.Contains(e.Text, "Message-ID") {
			t.Errorf("it says %q", e.Text)
		}
	}
	if h.said("the content of a mail that is in this mailbox already") != 1 {
		t.Errorf("%+v", h.events)
	}
}
