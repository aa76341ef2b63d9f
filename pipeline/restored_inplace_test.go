package pipeline

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A backup that is put back into the same directories looks like its user's moves and deletions.
// They are done on the server, where each mail stays, if only in the Trash; with Restore it is
// the server that is right, and nothing is done there.
func TestABackupThatIsPutBackInPlace(t *testing.T) {
	t.Parallel()
	for wire, caps := range wires() {
		for _, restore := range []bool{false, true} {
			t.Run(fmt.Sprint(wire, " restore ", restore), func(t *testing.T) {
				t.Parallel()
				s, h := newServer(caps...), newHome(t)
				for i := range 30 {
					s.box("INBOX").add(plainMail(i), `\Seen`)
				}
				s.box("Archive").add(plainMail(50), `\Seen`)
				s.box("Trash").add(plainMail(51), `\Seen`)
				h.sync(s)
				h.do(os.CopyFS(h.dir+"/backup", os.DirFS(h.dir+"/mail")))
				for u := range 20 {
					h.move("INBOX", s.box("INBOX").uids()[u], "Archive", u%2 == 0)
				}
				s.box("INBOX").add(plainMail(60), `\Seen`)
				h.sync(s)
				h.sync(s)
				h.quiet(s)
				for _, box := range []string{"INBOX", "Archive", "Trash"} {
					for name := range h.files(box) {
						h.do(os.Remove(h.path(box, name)))
					}
				}
				h.do(filepath.WalkDir(h.dir+"/backup", func(path string, d os.DirEntry, err error) error {
					if err != nil || d.IsDir() {
						return err
					}
					rel, err := filepath.Rel(h.dir+"/backup", path)
					h.do(err)
					raw, err := os.ReadFile(path)
					h.do(err)
					return os.WriteFile(h.dir+"/mail/"+rel, raw, 0o600)
				}))
				h.notmuchNew()
				for range 3 {
					h.sync(s, func(o *Options) { o.Restore = restore })
				}
				want := "30 1 2" // the one that came since is in the Trash
				if restore {
					want = "11 21 1"
				}
				if got := fmt.Sprint(len(s.box("INBOX").msgs), len(s.box("Archive").msgs), len(s.box("Trash").msgs)); got != want {
					t.Errorf("INBOX, Archive and Trash have %s messages, want %s", got, want)
				}
				h.sync(s)
				h.quiet(s)
				h.notmuchNew()
				h.check(s)
			})
		}
	}
}
