package remote

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// grudging is a server that refuses one argument, and counts how often it is asked for it.
type grudging struct {
	mu       sync.Mutex
	port     int
	caps     string
	greeting string
	refuses  string // what is in the command that it refuses
	answer   string
	asked    int
	mailbox  string // refused itself, whatever the command has
}

func newGrudging(t *testing.T, caps, refuses, answer string) *grudging {
	t.Helper()
	g := &grudging{caps: caps, greeting: "ready", refuses: refuses, answer: answer, mailbox: "locked"}
	g.port = serve(t, func(p *peer) {
		p.greet(g.offers())
		for {
			tag, command := p.command()
			if tag == "" {
				return
			}
			p.send("%s", strings.ReplaceAll(g.answers(command), "{tag}", tag))
		}
	})
	return g
}

func (g *grudging) offers() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.caps
}

// learns another capability.
func (g *grudging) learns(capability string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.caps += " " + capability
}

func (g *grudging) times() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.asked
}

func (g *grudging) answers(command string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if strings.Contains(command, g.refuses) {
		g.asked++
		return "{tag} " + g.answer + "\r\n"
	}
	verb := operation(command)
	switch {
	case strings.Contains(command, `"`+g.mailbox+`"`):
		return "{tag} NO it is locked\r\n"
	case verb == "EXAMINE" || verb == "SELECT":
		return "* 2000 EXISTS\r\n* OK [UIDVALIDITY 3] x\r\n* OK [UIDNEXT 10] x\r\n* OK [HIGHESTMODSEQ 4] x\r\n{tag} OK done\r\n"
	case verb == "UID SEARCH" && strings.Contains(command, "RETURN"):
		return "* ESEARCH (TAG \"{tag}\") UID ALL 1:2\r\n{tag} OK done\r\n"
	case verb == "UID SEARCH":
		return "* SEARCH 1 2\r\n{tag} OK done\r\n"
	case verb == "UID FETCH":
		return "* 1 FETCH (UID 1 FLAGS ())\r\n{tag} OK done\r\n"
	case verb == "LIST":
		return "* LIST () \"/\" INBOX\r\n{tag} OK done\r\n"
	case verb == "STATUS":
		return "* STATUS INBOX (MESSAGES 3 UIDVALIDITY 3 UIDNEXT 5 HIGHESTMODSEQ 4)\r\n{tag} OK done\r\n"
	case verb == "ENABLE":
		return "* ENABLED QRESYNC\r\n{tag} OK done\r\n"
	}
	return "{tag} OK done\r\n"
}

// TestOptionalArguments that the server refuses, by whatever word: all goes on without them,
// and no later session asks for them, so long as the server is as it was.
func TestOptionalArguments(t *testing.T) {
	t.Parallel()
	all := imap.UIDSet{{Start: 1, Stop: 9}}
	known := &mail.Known{UIDValidity: 3, HighestModSeq: 4}
	open := func(ctx context.Context, s *Session) error {
		_, err := s.Examine(ctx, "INBOX", known)
		return err
	}
	listed := func(ctx context.Context, s *Session) error {
		bs, err := s.List(ctx, mail.Listing{})
		if err == nil && (len(bs) != 1 || bs[0].Err != nil || bs[0].Status == nil || bs[0].Status.Messages != 3) {
			err = fmt.Errorf("%+v", bs)
		}
		return err
	}
	within := func(f func(context.Context, *Session) ([]mail.Message, error)) func(context.Context, *Session) error {
		return func(ctx context.Context, s *Session) error {
			if _, err := s.Examine(ctx, "INBOX", nil); err != nil {
				return err
			}
			ms, err := f(ctx, s)
			if err == nil && len(ms) != 1 {
				err = fmt.Errorf("%+v", ms)
			}
			return err
		}
	}
	for name, c := range map[string]struct {
		caps, refuses string
		do            func(context.Context, *Session) error
	}{
		"EXAMINE (CONDSTORE)": {"CONDSTORE", `EXAMINE "INBOX" (CONDSTORE)`, open},
		"SELECT (CONDSTORE)": {"CONDSTORE", `SELECT "INBOX" (CONDSTORE)`, func(ctx context.Context, s *Session) error {
			sel, err := s.Select(ctx, "INBOX")
			if err == nil && (sel.HighestModSeq != 0) != s.Has("CONDSTORE") {
				err = fmt.Errorf("%+v", sel)
			}
			return err
		}},
		"EXAMINE (QRESYNC)":    {"ENABLE QRESYNC", `(QRESYNC (3 4`, open},
		"ENABLE QRESYNC":       {"ENABLE QRESYNC", "ENABLE", open},
		"LIST RETURN (STATUS)": {"LIST-STATUS SPECIAL-USE CONDSTORE", "RETURN", listed},
		"STATUS HIGHESTMODSEQ": {"CONDSTORE", " HIGHESTMODSEQ)", listed},
		"FETCH (CHANGEDSINCE)": {"CONDSTORE", "CHANGEDSINCE", within(func(ctx context.Context, s *Session) ([]mail.Message, error) { return s.Flags(ctx, all, 4) })},
		"FETCH X-GM-MSGID":     {"X-GM-EXT-1", "X-GM-MSGID", within(func(ctx context.Context, s *Session) ([]mail.Message, error) { return s.Identify(ctx, all) })},
		"SEARCH RETURN": {"ESEARCH", "RETURN (ALL)", within(func(ctx context.Context, s *Session) ([]mail.Message, error) {
			found, err := s.Search(ctx, all)
			if err == nil && found.String() != "1:2" {
				err = fmt.Errorf("%v", found)
			}
			return make([]mail.Message, 1), err
		})},
		"COMPRESS DEFLATE": {deflate, "COMPRESS", within(func(ctx context.Context, s *Session) ([]mail.Message, error) {
			return s.Flags(ctx, imap.UIDSet{{Start: 1, Stop: 0}}, 0)
		})},
	} {
		for _, answer := range []string{"BAD what is that", "NO not so", "NO [CANNOT] not so"} {
			t.Run(name+"/"+answer, func(t *testing.T) {
				t.Parallel()
				g := newGrudging(t, "IMAP4rev1 "+c.caps, c.refuses, answer)
				o := plain(g.port)
				o.Compress = true
				begin := func(known *Refusals) *Session {
					o.Names = &Names{}
					o.Names.Refusals.Recall(known.Refused())
					return dialed(t, o)
				}
				works := func(s *Session, want int) {
					t.Helper()
					if err := c.do(t.Context(), s); err != nil || g.times() != want {
						t.Errorf("%v; asked for %d times, want %d", err, g.times(), want)
					}
				}
				s := begin(&Refusals{})
				works(s, 1)
				works(s, 1)
				s = begin(&o.Names.Refusals)
				works(s, 1)
				g.learns("IDLE")
				works(begin(&o.Names.Refusals), 2)
				if _, refused := o.Names.Refusals.Refused(); len(refused) != 1 {
					t.Errorf("refused: %q", refused)
				}
			})
		}
	}
}

// TestARefusedMailboxIsNoRefusedArgument: what is refused without the argument, too, or by a
// code that says why, tells nothing of the argument.
func TestARefusedMailboxIsNoRefusedArgument(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{"no code": "NO it is locked", "a code": "NO [NOPERM] it is locked", "BAD": "BAD it is locked"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGrudging(t, "IMAP4rev1 ENABLE QRESYNC CONDSTORE LIST-STATUS", `"locked"`, answer)
			s := dialed(t, plain(g.port))
			for range 2 {
				if sel, err := s.Examine(t.Context(), "locked", &mail.Known{UIDValidity: 3, HighestModSeq: 4}); err == nil {
					t.Errorf("%+v", sel)
				}
				if _, err := s.Select(t.Context(), "locked"); err == nil {
					t.Error("selected")
				}
				boxes := []listed{{Mailbox: mail.Mailbox{Name: "locked"}, wire: "locked"}, {Mailbox: mail.Mailbox{Name: "INBOX"}, wire: "INBOX"}}
				if err := s.statuses(t.Context(), boxes, []int{0, 1}); err != nil || boxes[0].Err == nil || boxes[1].Status == nil {
					t.Errorf("%v: %+v", err, boxes)
				}
			}
			if _, refused := s.names.Refusals.Refused(); len(refused) > 0 || !s.Has("QRESYNC") {
				t.Errorf("refused: %q, has %v", refused, slices.Sorted(slices.Values(s.Capabilities())))
			}
			if want := map[bool]int{true: 6, false: 14}[strings.Contains(answer, "[")]; g.times() != want {
				t.Errorf("asked %d times, want %d", g.times(), want)
			}
		})
	}
}
