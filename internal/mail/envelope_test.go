package mail

import (
	"strings"
	"testing"
)

func TestHeaderOfBrokenMailIsReadAsFarAsItGoes(t *testing.T) {
	for name, c := range map[string]struct{ raw, subject, id string }{
		"8-bit":           {"Subject: Gr\xfce\r\nMessage-ID: <a@b>\r\n\r\n", "Gr\ufffde", "a@b"},
		"unknown charset": {"Subject: =?x-none?q?abc?=\r\nMessage-ID: <a@b>\r\n\r\n", "=?x-none?q?abc?=", "a@b"},
		"id with spaces":  {"Message-ID: <odd id@b>\r\n\r\n", "", "oddid@b"},
		"no header":       {"\r\nbody", "", ""},
		"nothing":         {"", "", ""},
		"NULs":            {"Subject: a\x00b\r\n\r\n", "a\x00b", ""},
		"an mbox line":    {"From a Tue Dec  1 10:00:00 2015\r\nSubject: a\r\nlost its blank\r\nMessage-ID: <a@b>\r\n\r\n", "a", "a@b"},
	} {
		t.Run(name, func(t *testing.T) {
			h := ParseEnvelope([]byte(c.raw))
			if strings.ToValidUTF8(h.Subject, "\ufffd") != c.subject && h.Subject != c.subject {
				t.Errorf("subject %q, want %q", h.Subject, c.subject)
			}
			if h.MessageID != c.id {
				t.Errorf("message id %q, want %q", h.MessageID, c.id)
			}
		})
	}
}
