package pipeline

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
)

// A run is stopped behind each effect of an upload, or the answer to APPEND never
// comes, and the user moves the file on, edits its flags, or deletes it, before the next
// run. What was uploaded is found where it is, and goes where its file went: the mail is
// there once, or in the Trash.
func TestAStopBehindEachEffectOfAnUpload(t *testing.T) {
	t.Parallel()
	share.Sweep(t)
	for wire, caps := range stopServers() {
		for _, how := range []string{stopCancelled, stopUnheard} {
			for _, user := range []string{"on", "renamed", "flag", "delete", "nothing"} {
				if spared(wire, how, user) {
					continue
				}
				t.Run(fmt.Sprintf("%s %s %s", wire, how, user), func(t *testing.T) {
					t.Parallel()
					stops := 0
					for at := 1; ; at++ {
						s, h := newServer(caps...), newHome(t)
						s.mute = wire == "mute" || wire == "bare"
						for i, box := range []string{"Sent", "INBOX", "Later", "Trash"} {
							s.box(box).add(plainMail(10 + i))
						}
						h.sync(s)
						h.put("Sent", plainMail(1), "S")
						h.put("Sent", plainMail(2), "S")
						if !stopUpload(h, s, how, at) {
							break
						}
						stops++
						file := uploadedFile(h, "Sent", "m1@example.org")
						key, _ := maildir.ParseName(filepath.Base(file))
						switch user {
						case "on":
							h.do(os.Rename(file, h.path("Later", "cur/"+key+":2,S")))
						case "renamed":
							h.do(os.Rename(file, h.path("Later", "cur/"+strings.ReplaceAll(key, ".M", ".R")+":2,S")))
						case "flag":
							h.do(os.Rename(file, h.path("Sent", "cur/"+key+":2,FS")))
						case "delete":
							h.do(os.Remove(file))
						}
						for range 3 {
							h.sync(s)
						}
						in := []string{}
						for name, b := range s.boxes {
							for _, u := range b.uids() {
								if strings.Contains(b.msgs[u].raw, "<m1@example.org>") {
									in = append(in, name)
								}
							}
						}
						want := map[string]string{"on": "[Later]", "renamed": "[Later]", "flag": "[Sent]", "nothing": "[Sent]", "delete": "[Trash] []"}[user]
						if !strings.Contains(want, fmt.Sprint(in)) {
							t.Errorf("stopped at %d: on the server it is in %v, want %s", at, in, want)
						}
						h.check(s)
						if t.Failed() {
							t.FailNow()
						}
					}
					if stops < 2 {
						t.Errorf("only %d stops", stops)
					}
				})
			}
		}
	}
}

// stopUpload runs a sync that is stopped at the effect of this number, and tells
// whether it came that far.
func stopUpload(h *home, s *server, how string, at int, change ...func(*Options)) bool {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	defer cancel()
	var n atomic.Int64
	reached := func() bool { return n.Add(1) == int64(at) }
	s.effect = func(string) {
		if how == stopUnheard && reached() {
			s.unheard = true
			cancel()
		}
	}
	_, err := h.tryIn(ctx, s, append(change, func(o *Options) {
		o.Step = func(string) {
			if how == stopCancelled && reached() {
				cancel()
			}
		}
	})...)
	stopped := ctx.Err() != nil
	if err != nil && !stopped {
		h.t.Fatal(err)
	}
	s.effect, s.unheard = nil, false
	return stopped
}

// uploadedFile gives the path of the file with this Message-ID.
func uploadedFile(h *home, mailbox, id string) string {
	h.t.Helper()
	for name, raw := range h.files(mailbox) {
		if strings.Contains(raw, "<"+id+">") {
			return h.path(mailbox, name)
		}
	}
	h.t.Fatalf("there is no file of %s in %s", id, mailbox)
	return ""
}

// What was here before in folders of no mailbox is uploaded when that is asked for, wherever an
// upload before was stopped: into the mailbox that the folder is called by, also in modified UTF-7,
// and not what the server has elsewhere. What its owner has moved there since is moved.
func TestAnUploadOfFoldersIsStoppedBehindEachEffect(t *testing.T) {
	t.Parallel()
	share.Sweep(t)
	for wire, caps := range map[string][]string{"all": stopServers()["all"], "bare": nil} {
		for _, how := range []string{stopCancelled, stopUnheard} {
			for _, next := range []string{"upload", "sync"} {
				if spared(wire, how, next) {
					continue
				}
				t.Run(fmt.Sprintf("%s %s %s", wire, how, next), func(t *testing.T) {
					t.Parallel()
					upload := func(o *Options) { o.UploadHere = true }
					stops := 0
					for at := 1; ; at++ {
						s, h := newServer(caps...), newHome(t)
						s.box("Trash")
						for i := 3; i < 6; i++ {
							s.box("INBOX").add(plainMail(i))
						}
						h.maildir("Entw&APw-rfe")
						h.maildir("Filed")
						h.put("Entw&APw-rfe", plainMail(1), "S")
						h.put("Filed", plainMail(4), "S")
						h.put("Filed", plainMail(2), "S")
						h.sync(s)
						moved := uploadedFile(h, "INBOX", "m5@example.org")
						h.do(os.Rename(moved, h.path("Filed", "cur/"+filepath.Base(moved))))
						if !stopUpload(h, s, how, at, upload) {
							break
						}
						stops++
						if next == "sync" {
							h.sync(s)
						}
						h.sync(s, upload)
						for name, want := range map[string]string{"INBOX": "3 4", "Entwürfe": "1", "Filed": "2 5", "Trash": ""} {
							if got := inBox(s, name); got != want {
								t.Errorf("stopped at %d: on the server %s has %q, want %q", at, name, got, want)
							}
						}
						if names := s.names(); len(names) != 4 {
							t.Errorf("stopped at %d: the server has %q", at, names)
						}
						if t.Failed() {
							t.FailNow()
						}
						h.quiet(s)
					}
					if stops < 5 {
						t.Errorf("only %d stops", stops)
					}
				})
			}
		}
	}
}

// What was here before in a folder of no mailbox is judged whatever becomes of the folder: its mailbox
// is refused at first, another client makes it, or a rule has mail moved there in a plain sync, which
// sends nothing of it.
func TestWhatWasHereInAFolderOfNoMailbox(t *testing.T) {
	t.Parallel()
	upload := func(o *Options) { o.UploadHere = true }
	rule := func(o *Options) { o.Moves = []Move{{From: "INBOX", With: "file", To: "Filed"}} }
	for name, tc := range map[string]struct {
		do     func(h *home, s *server)
		in, to string
	}{
		"refused": {func(h *home, s *server) {
			s.refuses = map[string]*mail.Fault{"CREATE": {Kind: mail.KindNo, Text: "not now"}}
			h.sync(s, upload)
			h.sync(s, upload)
			s.refuses = nil
			h.now = h.now.Add(90 * 24 * time.Hour)
			h.sync(s, upload)
		}, "3 4", "2 5"},
		"refused, then a sync": {func(h *home, s *server) {
			s.refuses = map[string]*mail.Fault{"CREATE": {Kind: mail.KindNo, Text: "not now"}}
			h.sync(s, upload)
			s.refuses = nil
			h.now = h.now.Add(90 * 24 * time.Hour)
			h.sync(s)
		}, "3 4", "2 5"},
		"made elsewhere": {func(h *home, s *server) { s.box("Filed"); h.sync(s, upload) }, "3 4", "2 5"},
		"a rule's": {func(h *home, s *server) {
			h.sync(s, rule)
			h.tag("m3@example.org", []string{"file"}, nil)
			h.sync(s, rule)
			h.sync(s, rule)
		}, "4", "3 5"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer(stopServers()["all"]...), newHome(t)
			s.box("Trash")
			for i := 3; i < 6; i++ {
				s.box("INBOX").add(plainMail(i))
			}
			h.maildir("Filed")
			h.put("Filed", plainMail(4), "S")
			h.put("Filed", plainMail(2), "S")
			h.sync(s)
			moved := uploadedFile(h, "INBOX", "m5@example.org")
			h.do(os.Rename(moved, h.path("Filed", "cur/"+filepath.Base(moved))))
			tc.do(h, s)
			for range 2 {
				h.sync(s)
			}
			for box, want := range map[string]string{"INBOX": tc.in, "Filed": tc.to, "Trash": ""} {
				if got := inBox(s, box); got != want {
					t.Errorf("on the server %s has %q, want %q", box, got, want)
				}
			}
		})
	}
}

// inBox gives the numbers of plainMail that are in a mailbox of the server, in their order.
func inBox(s *server, mailbox string) string {
	b, is := s.boxes[mailbox]
	if !is {
		return "no mailbox"
	}
	var in []string
	for n := range 9 {
		for _, u := range b.uids() {
			if strings.Contains(b.msgs[u].raw, fmt.Sprintf("<m%d@example.org>", n)) {
				in = append(in, fmt.Sprint(n))
			}
		}
	}
	return strings.Join(in, " ")
}
