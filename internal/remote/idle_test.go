package remote

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// idles is a server with ten messages in INBOX that says lines after its "+", answers DONE
// by bye ("{tag} OK done"), and never if that is "". It has greeted.
func idles(t *testing.T, plus, lines, bye string) func(*peer) {
	return func(p *peer) {
		for {
			tag, command := p.command()
			switch {
			case tag == "":
				return
			case strings.HasPrefix(command, "EXAMINE"):
				p.send("* 10 EXISTS\r\n* OK [UIDVALIDITY 14] ids\r\n%s OK done\r\n", tag)
			case command == "IDLE":
				p.send("%s", strings.ReplaceAll(plus, "{tag}", tag))
				p.send("%s", lines)
				if !strings.HasPrefix(plus, "+") {
					continue
				}
				switch done := p.line(); done {
				case "DONE":
				case "":
					return
				default:
					t.Errorf("in IDLE came %q", done)
				}
				if bye == "" {
					p.hang()
					return
				}
				p.send("%s\r\n", strings.ReplaceAll(bye, "{tag}", tag))
			default:
				p.send("%s OK done\r\n", tag)
			}
		}
	}
}

// idler is a session with it, in INBOX.
func idler(t *testing.T, o func(*Options), plus, lines, bye string) *Session {
	t.Helper()
	opts := plain(serve(t, func(p *peer) {
		p.greet(testCaps + " IDLE")
		idles(t, plus, lines, bye)(p)
	}))
	if o != nil {
		o(&opts)
	}
	s := dialed(t, opts)
	if _, err := s.Examine(t.Context(), "INBOX", nil); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestIdleTellsNewsWhenItComes(t *testing.T) {
	t.Parallel()
	s := idler(t, nil, "+ idling\r\n", "* OK Still here\r\n* 10 EXISTS\r\n* 11 EXISTS\r\n* 1 RECENT\r\n* 3 FETCH (FLAGS (\\Seen))\r\n"+
		"* 4 FETCH (UID 9 MODSEQ (812) FLAGS (\\Seen))\r\n* 4 FETCH (MODSEQ (812) FLAGS (\\Seen))\r\n* 4 FETCH (FLAGS (MODSEQ) MODSEQ (x))\r\n* 2 EXPUNGE\r\n* 10 EXISTS\r\n* VANISHED 7,8\r\n", "{tag} OK done")
	end := make(chan struct{})
	var got []mail.News
	err := s.Idle(t.Context(), end, func(n mail.News) {
		if got = append(got, n); len(got) == 7 {
			close(end)
		}
	})
	inbox := mail.News{Mailbox: "INBOX"}
	gone := mail.News{Mailbox: "INBOX", Gone: true}
	flags := mail.News{Mailbox: "INBOX", Status: mail.Status{UIDValidity: 14, HighestModSeq: 812}}
	if want := []mail.News{inbox, inbox, flags, flags, inbox, gone, gone}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %+v; a repetition is no news, all else is: %+v", err, got, want)
	}
	if _, err := s.Exchange(t.Context(), "NOOP"); err != nil {
		t.Errorf("the connection is of no use after IDLE: %v", err)
	}
}

func TestIdleEndsWithoutNews(t *testing.T) {
	t.Parallel()
	var h heard
	s := idler(t, func(o *Options) { *o = h.options(*o) }, "+ idling\r\n", "", "{tag} OK done")
	end := make(chan struct{})
	close(end) // before the server said that it idles: DONE must wait for that
	for range 3 {
		if err := s.Idle(t.Context(), end, func(n mail.News) { t.Errorf("news of nothing: %+v", n) }); err != nil {
			t.Fatal(err)
		}
	}
	if text := h.String(t); strings.Count(text, "S: + idling\nC: DONE\nS: ") != 3 {
		t.Errorf("the transcript is\n%s", text)
	}
}

// A connection that is dead does not answer DONE.
func TestIdleThatWentMute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := pipe(t, time.Minute, testCaps+" IDLE", idles(t, "+ idling\r\n", "", ""))
		if _, err := s.Examine(t.Context(), "INBOX", nil); err != nil {
			t.Fatal(err)
		}
		end := make(chan struct{})
		close(end)
		f := wantFault(t, s.Idle(t.Context(), end, func(mail.News) {}), mail.KindSilent)
		if f.Op != "IDLE" || f.Mailbox != "INBOX" || s.Alive() {
			t.Errorf("%+v, alive: %v", f, s.Alive())
		}
	})
}

// One that drips during IDLE gets no more time after DONE.
func TestIdleOfADrippingServerIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const timeout = time.Minute
		s := pipe(t, timeout, testCaps+" IDLE", func(p *peer) {
			_, _ = p.command()
			p.send("+ idling\r\n")
			p.line() // DONE
			for err := error(nil); err == nil; time.Sleep(timeout / 20) {
				_, err = p.Write([]byte("x"))
			}
		})
		end := make(chan struct{})
		close(end)
		wantFault(t, s.Idle(t.Context(), end, func(mail.News) {}), mail.KindSilent)
	})
}

func TestIdleRefused(t *testing.T) {
	t.Parallel()
	for name, plus := range map[string]string{"NO": "{tag} NO not today\r\n", "BAD": "{tag} BAD what?\r\n", "OK at once": "{tag} OK done already\r\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := idler(t, nil, plus, "", "")
			err := s.Idle(t.Context(), nil, func(mail.News) {})
			if _, refused := mail.Refused(err); !refused {
				t.Errorf("%v", err)
			}
			if _, err := s.Exchange(t.Context(), "NOOP"); err != nil {
				t.Errorf("the session does not live on: %v", err)
			}
		})
	}
}

func TestIdleAndTheServerThatLeaves(t *testing.T) {
	t.Parallel()
	hangUp := func(lines string) error {
		s := dialed(t, plain(serve(t, func(p *peer) {
			p.greet(testCaps + " IDLE")
			_, _ = p.command()
			p.send("+ idling\r\n%s", lines)
		})))
		return s.Idle(t.Context(), nil, func(mail.News) {})
	}
	// Exchange after 29 minutes.
	if f := wantFault(t, hangUp("* BYE Session timed out, please login again.\r\n"), mail.KindBye); !strings.Contains(f.Text, "timed out") {
		t.Errorf("%+v", f)
	}
	wantFault(t, hangUp(""), mail.KindCut)
	wantFault(t, hangUp("* 11 EX"), mail.KindCut)
}

func TestIdleEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := idler(t, nil, "+ idling\r\n", "* 11 EXISTS\r\n", "")
	ctx, cancel := context.WithCancel(t.Context())
	if err := s.Idle(ctx, nil, func(mail.News) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if s.Alive() {
		t.Error("alive")
	}
}

func TestIdleBoundsTheServer(t *testing.T) {
	t.Parallel()
	s := idler(t, nil, "+ idling\r\n", strings.Repeat("* 11 RECENT\r\n", 200), "")
	s.maxNoise = 100
	wantFault(t, s.Idle(t.Context(), nil, func(mail.News) {}), mail.KindTooLarge)
}
