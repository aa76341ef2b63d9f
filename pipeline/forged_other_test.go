package pipeline

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// A stub is never uploaded, also where nothing is left of the account that wrote it but its
// files: not when the folder is given to another server under another name, which says so, nor
// when it is moved or copied later. What came by mail, or does not fit in itself, is mail.
func TestAStubOfAnotherAccountIsNotUploaded(t *testing.T) {
	for wire, caps := range wires() {
		for name, alter := range map[string]func(raw string) string{
			"signed":   func(raw string) string { return raw },
			"unsigned": func(raw string) string { return strings.Replace(raw, "; sig="+sigOf(raw), "", 1) },
		} {
			t.Run(wire+"/"+name, func(t *testing.T) {
				t.Parallel()
				s, h := newServer(caps...), newHome(t)
				for _, box := range []string{"INBOX", "Entwürfe & mehr"} {
					for n := range 4 {
						s.box(box).add(plainMail(n + 10*len(s.boxes)))
					}
					s.box(box).msgs[4].fault = &serverFault{}
				}
				h.sync(s, withPlaceholders) // of INBOX
				stubs := 0
				var one string
				for _, box := range []string{"INBOX", "Entwürfe & mehr"} {
					for file, raw := range h.files(box) {
						if strings.Contains(raw, stub.Field) {
							stubs++
							one = alter(raw)
							h.do(os.WriteFile(h.path(box, file), []byte(one), 0o600))
						}
					}
				}
				if stubs != 4 {
					t.Fatalf("%d stubs", stubs)
				}
				h.put("INBOX", "Received: from a by b\n"+one, "S")
				h.put("INBOX", strings.Replace(one, "X-Notmuch-Imap-Mailbox: ", "X-Notmuch-Imap-Mailbox: x", 1), "S")

				h.do(os.RemoveAll(filepath.Join(h.dir, "state")))
				h.ended = false
				next := newServer(caps...)
				next.box("INBOX")
				next.box("Entwürfe & mehr")
				next.box("Archive")
				two := func(o *Options) { o.Name = "two" }
				upload := func(o *Options) { two(o); o.UploadHere = true }
				dry := func(o *Options) { upload(o); o.DryRun = true }
				for _, how := range []func(*Options){dry, upload} {
					if rep := h.sync(next, how); rep.Uploaded != 6 || !rep.Clean() {
						t.Errorf("uploaded: %+v", rep)
					}
					told := strings.Join(h.of(report.EventNote), "\n")
					if strings.Count(told, "3 stubs stand here for mail that stayed") != 1 || strings.Count(told, "1 stub stands here for mail that stayed") != 1 {
						t.Errorf("told %q", told)
					}
				}
				h.put("Archive", one, "S")
				for range 2 {
					if rep := h.sync(next, two); rep.Uploaded+rep.Moved+rep.Deleted+rep.New > 0 || !rep.Clean() {
						t.Errorf("copied: %+v", rep)
					}
				}
				for _, box := range []string{"INBOX", "Entwürfe & mehr", "Archive"} {
					for uid, m := range next.box(box).msgs {
						if c, err := stub.ReadClaim(strings.NewReader(m.raw)); err == nil && c.Named && !c.Mailed {
							t.Errorf("%s/%d is a stub:\n%s", box, uid, m.raw)
						}
					}
				}
			})
		}
	}
}
