package pipeline

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// spoiled is a connection on which something of this machine's fails.
type spoiled struct {
	Session
	fetch func(mailbox string) // before mail is fetched
	open  map[string]error     // by path: of a file that is to be uploaded
}

func (s spoiled) Fetch(ctx context.Context, uids imap.UIDSet, sink mail.Sink) error {
	if s.fetch != nil {
		s.fetch(s.Mailbox())
	}
	return s.Session.Fetch(ctx, uids, sink)
}

func (s spoiled) Append(ctx context.Context, name string, uploads []mail.Upload, stored func(int, mail.Appended), then *mail.Known) ([]mail.Appended, error) {
	out := make([]mail.Appended, len(uploads))
	for i, u := range uploads {
		if err := s.open[filepath.Base(u.Path)]; err != nil {
			out[i].Err = &fs.PathError{Op: "open", Path: u.Path, Err: err}
			continue
		}
		one, err := s.Session.Append(ctx, name, uploads[i:i+1], func(_ int, as mail.Appended) { stored(i, as) }, nil)
		if err != nil {
			return out, err
		}
		out[i] = one[0]
	}
	return out, nil
}

// spoil lets a sync have such connections.
func (s spoiled) spoil(o *Options) {
	dial := o.Dial
	o.Dial = func(ctx context.Context) (Session, error) {
		session, err := dial(ctx)
		as := spoiled{session, s.fetch, s.open}
		session.Fetcher, session.Writer = as, as
		return session, err
	}
}

// That a mail cannot be put into its folder ends the run, and no mark moves on.
func TestMailThatCannotBeWrittenComesWithTheNextRun(t *testing.T) {
	t.Parallel()
	for name, caps := range wires() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer(caps...), newHome(t)
			for _, box := range []string{"INBOX", "Work"} {
				s.box(box).add(plainMail(1))
			}
			h.sync(s)
			s.box("INBOX").add(plainMail(2))
			s.box("Work").add(plainMail(3))
			tmp := filepath.Join(h.dir, "mail", "INBOX", "tmp")
			away := spoiled{fetch: func(mailbox string) {
				if mailbox == "INBOX" {
					_ = os.Rename(tmp, tmp+".away") // again, where a batch is asked for again
				}
			}}
			if rep, err := h.try(s, away.spoil); err == nil || !strings.Contains(err.Error(), "INBOX: ") {
				t.Errorf("%v, %+v", err, rep)
			}
			h.do(os.Rename(tmp+".away", tmp))
			if rep := h.sync(s); !rep.Clean() {
				t.Errorf("%+v", rep)
			}
			h.check(s)
		})
	}
}

// A file that this machine cannot read is not one that the server refuses.
func TestAFileThatCannotBeReadIsNotRefusedByTheServer(t *testing.T) {
	t.Parallel()
	for name, caps := range wires() {
		for _, errno := range []unix.Errno{unix.EMFILE, unix.EIO, unix.EACCES} {
			t.Run(fmt.Sprintf("%s %v", name, errno), func(t *testing.T) {
				t.Parallel()
				s, h := inbox(1, caps...), newHome(t)
				h.sync(s)
				for n := range 3 {
					h.do(os.WriteFile(filepath.Join(h.dir, "mail", "INBOX", "new", fmt.Sprintf("%d.mine", n)), []byte(strings.ReplaceAll(plainMail(10+n), "\r\n", "\n")), 0o600))
				}
				rep, err := h.try(s, spoiled{open: map[string]error{"1.mine": errno}}.spoil)
				// That it may not be read costs its mailbox alone; it is no success either.
				if errno == unix.EACCES && err == nil && rep.Broken() {
					err = fmt.Errorf("%s: %s", rep.Faults[0].Mailbox, rep.Faults[0].Text)
				}
				if err == nil || !strings.Contains(err.Error(), "INBOX: ") || !strings.Contains(err.Error(), "1.mine") {
					t.Errorf("%v, %+v", err, rep)
				}
				h.sync(s)
				if rep := h.sync(s); !rep.Clean() || rep.Uploaded+rep.New > 0 {
					t.Errorf("in the end: %+v", rep)
				}
				if n := len(s.box("INBOX").msgs); n != 4 {
					t.Errorf("the server has %d messages, not 4", n)
				}
				h.check(s)
			})
		}
	}
}

// A hook is not asked about a mail of which it sees nothing because there is no
// room for a copy: it might keep the mail away.
func TestAHookJudgesNoMailThatCannotBeCopied(t *testing.T) {
	t.Parallel()
	s, h := inbox(3), newHome(t)
	keep := hook(func(_ context.Context, e *hooks.Event) (hooks.Verdict, error) {
		if e.Subject == "" {
			return hooks.Verdict{Action: hooks.Skip}, nil
		}
		return hooks.Verdict{}, nil
	}, hooks.PreWrite)
	// No copy can be made where a file stands in place of the directory.
	spoil := hook(func(_ context.Context, e *hooks.Event) (hooks.Verdict, error) {
		dir := filepath.Dir(e.File)
		if e.File == "" {
			return hooks.Verdict{}, nil
		}
		if err := os.RemoveAll(dir); err != nil {
			return hooks.Verdict{}, err
		}
		return hooks.Verdict{}, os.WriteFile(dir, nil, 0o600)
	}, hooks.PreWrite)
	if rep, err := h.try(s, with(keep, spoil)); err == nil || rep.Skipped > 0 {
		t.Errorf("%v, %+v", err, rep)
	}
	if rep := h.sync(s, with(keep)); !rep.Clean() || rep.Skipped > 0 {
		t.Errorf("%+v", rep)
	}
	h.check(s)
}

// What notmuch could not do for one mail ends the run where nothing would do it
// later.
func TestTagsOfAHookThatNotmuchCannotTakeNowAreTakenLater(t *testing.T) {
	t.Parallel()
	s, h := inbox(2), newHome(t)
	h.sync(s)
	h.flag("INBOX", 1, "FS")
	h.notmuchNew()
	judge := with(hook(func(context.Context, *hooks.Event) (hooks.Verdict, error) {
		return hooks.Verdict{Add: []string{"judged"}}, nil
	}, hooks.PrePush))
	h.index.refuses = &fs.PathError{Op: "open", Path: "INBOX", Err: unix.EIO}
	if rep, err := h.try(s, judge); err == nil {
		t.Errorf("%+v", rep)
	}
	h.index.refuses = nil
	if rep := h.sync(s, judge); !rep.Clean() || rep.Pushed != 1 {
		t.Errorf("%+v", rep)
	}
	if tags := h.tags(notmuchID([]byte(rawMail(0)))); !slices.Contains(tags, "judged") {
		t.Errorf("it has %q", tags)
	}
	h.check(s)
}
