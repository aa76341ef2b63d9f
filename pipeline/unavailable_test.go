package pipeline

import (
	"context"
	"slices"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// partial lists a mailbox as a server does that cannot give it now.
type partial struct {
	*session
	alter func(mail.Mailbox) (mail.Mailbox, bool)
}

func (p *partial) List(ctx context.Context, how mail.Listing) ([]mail.Mailbox, error) {
	list, err := p.session.List(ctx, how)
	var out []mail.Mailbox
	for _, m := range list {
		if m, ok := p.alter(m); ok {
			out = append(out, m)
		}
	}
	return out, err
}

// A mailbox that cannot be had for a moment costs no mail that went into it or out
// of it here meanwhile: when it is back, that is a move, whatever refused it.
func TestAMailboxThatIsAwayForAMoment(t *testing.T) {
	refused := func(f mail.Fault) func(mail.Mailbox) (mail.Mailbox, bool) {
		return func(m mail.Mailbox) (mail.Mailbox, bool) {
			if m.Name == "Work" {
				m.Status, m.Err = nil, &f
			}
			return m, true
		}
	}
	for name, alter := range map[string]func(mail.Mailbox) (mail.Mailbox, bool){
		"STATUS refused":    refused(mail.Fault{Kind: mail.KindNo, Op: "STATUS", Text: "in use"}),
		"STATUS forbidden":  refused(mail.Fault{Kind: mail.KindNo, Op: "STATUS", Code: "NOPERM", Text: "not now"}),
		"STATUS unanswered": refused(mail.Fault{Kind: mail.KindNoData, Op: "STATUS"}),
		"EXAMINE refused":   nil,
		"left out of LIST":  func(m mail.Mailbox) (mail.Mailbox, bool) { return m, m.Name != "Work" },
		"NonExistent": func(m mail.Mailbox) (mail.Mailbox, bool) {
			if m.Name == "Work" {
				m.Status, m.Attrs = nil, []string{`\NonExistent`}
			}
			return m, true
		},
	} {
		for _, deletions := range []Deletions{DeletionsTrash, DeletionsExpunge} {
			for _, renamed := range []bool{false, true} {
				if spared(name, deletions, renamed) {
					continue
				}
				t.Run(name+" "+string(deletions)+map[bool]string{true: " renamed"}[renamed], func(t *testing.T) {
					t.Parallel()
					s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
					in, work, trash := s.box("INBOX"), s.box("Work"), s.box("Trash")
					for i := range 4 {
						in.add(plainMail(i), `\Seen`)
						work.add(plainMail(10+i), `\Seen`)
					}
					trash.add(plainMail(20), `\Seen`)
					use := func(o *Options) { o.Deletions = deletions }
					h.sync(s, use)
					h.move("INBOX", 1, "Work", renamed)
					h.move("Work", 2, "INBOX", renamed)
					h.move("Trash", 1, "Work", renamed)
					if alter == nil {
						work.refuse = &mail.Fault{Kind: mail.KindNo, Op: "EXAMINE", Text: "in use"}
					}
					rep := h.sync(s, use, func(o *Options) {
						if alter != nil {
							o.Dial = func(ctx context.Context) (Session, error) {
								d, err := s.dial(ctx)
								if err != nil {
									return Session{}, err
								}
								return sessionOf(&partial{d.Opener.(*session), alter}, d.Greeting), nil
							}
						}
					})
					if !slices.ContainsFunc(h.events, func(e report.Event) bool {
						return e.Mailbox == "Work" && (e.Type == report.EventFault || e.Type == report.EventNote)
					}) {
						t.Errorf("nothing was said: %+v", rep)
					}
					if rep.Deleted+rep.Uploaded+rep.Removed > 0 {
						t.Errorf("away: %+v", rep)
					}
					work.refuse = nil
					for range 3 {
						if rep = h.sync(s, use); rep.Deleted+rep.Uploaded+rep.Removed > 0 {
							t.Errorf("back: %+v", rep)
						}
					}
					if len(in.msgs) != 4 || len(work.msgs) != 5 || len(trash.msgs) != 0 {
						t.Errorf("INBOX has %d messages, Work %d, Trash %d", len(in.msgs), len(work.msgs), len(trash.msgs))
					}
					h.check(s)
				})
			}
		}
	}
}

// A mailbox that the server opens for reading only, once or for many runs, gets the
// flag when it can be written again.
func TestAFlagOutlastsAReadOnlyMailbox(t *testing.T) {
	for name, caps := range extensions() {
		for _, byTag := range []bool{false, true} {
			t.Run(name+map[bool]string{true: " by tag"}[byTag], func(t *testing.T) {
				t.Parallel()
				s, h := newServer(append(slices.Clone(caps), "UIDPLUS", "MOVE")...), newHome(t)
				use := func(o *Options) { o.TagFlags = byTag }
				in := s.box("INBOX")
				for i := range 3 {
					in.add(plainMail(i), `\Seen`)
				}
				h.sync(s, use)
				h.sync(s, use)
				if byTag {
					h.tag(notmuchID([]byte(plainMail(1))), []string{"flagged"}, nil)
				} else {
					h.flag("INBOX", 2, "FS")
				}
				in.readOnly = true
				for range 3 {
					if rep := h.sync(s, use); rep.Pushed > 0 || len(in.msgs[2].flags) > 1 {
						t.Errorf("read-only: %+v", rep)
					}
				}
				in.readOnly = false
				if rep := h.sync(s, use); rep.Pushed != 1 || !rep.Clean() {
					t.Errorf("writable again: %+v", rep)
				}
				h.check(s)
			})
		}
	}
}
