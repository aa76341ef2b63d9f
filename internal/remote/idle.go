package remote

import (
	"context"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// maxDone is how long a server may take to answer DONE. It has nothing else to do: what
// takes longer is a connection that is dead.
const maxDone = 10 * time.Second

// idling is a session's patience while it is in IDLE. end may be called from another
// goroutine than the one that reads.
type idling struct {
	mu    sync.Mutex
	until time.Time // when the server must have said something; zero: whenever it likes
	done  bool      // DONE was sent
	shown bool      // and is in the transcript
}

// patient sets until.
func (i *idling) patient(conn net.Conn, until time.Time) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.until = until
	return conn.SetReadDeadline(until) // also that of a read that is under way
}

// read is a read from the connection in IDLE. What comes slowly is bounded by the end of it.
func (i *idling) read(w *wire, p []byte) (int, error) {
	i.mu.Lock()
	err := w.conn.SetReadDeadline(i.until)
	i.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n, err := w.conn.Read(p)
	w.came += int64(n)
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.done && !i.shown && w.record != nil {
		i.shown = true
		w.record.add(true, "DONE")
	}
	return n, err
}

// end sends DONE, after which the server must answer soon.
func (s *Session) endIdle(i *idling) {
	if i.patient(s.conn, time.Now().Add(min(maxDone, s.timeout))) != nil {
		return // whoever reads meets the same
	}
	i.mu.Lock()
	i.done = true
	i.mu.Unlock()
	_, _ = s.Write([]byte("DONE\r\n")) // as above
}

// Idle waits for news (RFC 2177) and tells each when it comes, in the goroutine that calls
// Idle, until end is closed. A server that then does not answer within ten seconds has a
// dead connection: mail.KindSilent. One that refuses IDLE is told by mail.Refused, and the
// session lives. News that came since the last command is told, too. The caller ends it
// before 29 minutes are over, since servers may then close the connection.
func (s *Session) Idle(ctx context.Context, end <-chan struct{}, tell func(mail.News)) error {
	i := &idling{until: time.Now().Add(s.timeout)}
	begun, over := make(chan struct{}), make(chan struct{})
	h := s.heeding(tell)
	h.goOn = func() {
		select {
		case <-begun:
			return // a server that says so twice
		default:
		}
		if i.patient(s.conn, time.Time{}) == nil {
			close(begun)
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-begun:
		case <-over:
			return
		}
		select {
		case <-end:
			s.endIdle(i)
		case <-over:
		}
	})
	s.idle = i
	a, err := s.command(ctx, "IDLE", h)
	s.idle = nil
	close(over)
	wg.Wait()
	if err != nil {
		return err
	}
	i.mu.Lock()
	done := i.done
	i.mu.Unlock()
	if !done && a.status == "OK" {
		// Nobody ended it, and to begin again at once would be a busy loop.
		return &mail.Fault{Kind: mail.KindNo, Op: "IDLE", Mailbox: s.mailbox, Text: a.text}
	}
	return s.refused(a, "IDLE")
}

// flagged gives what a FETCH that nobody asked for tells of a change of flags; zero if that is not
// when it was (RFC 7162 3.2.4).
func (s *Session) flagged(line string) mail.Status {
	_, rest, _ := strings.Cut(strings.ToUpper(line), "MODSEQ (")
	digits, _, _ := strings.Cut(rest, ")")
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || n == 0 || s.validity == 0 {
		return mail.Status{}
	}
	return mail.Status{UIDValidity: s.validity, HighestModSeq: n}
}

// heeding makes news of what a server says unasked.
func (s *Session) heeding(tell func(mail.News)) handler {
	exists := s.exists
	return handler{
		bytes: maxList,
		data: func(word string) (bool, error) {
			switch word {
			case "STATUS":
				return true, s.statusNews(tell)
			case "LIST":
				// A mailbox was made, renamed or deleted (RFC 5465 5.4).
				tell(mail.News{Gone: true})
				return true, s.skipLine()
			case "VANISHED":
				tell(mail.News{Mailbox: s.mailbox, Gone: true})
				return true, s.skipLine()
			}
			return false, nil
		},
		status: func(_, code, _ string) {
			if name, _, _ := strings.Cut(code, " "); strings.EqualFold(name, "NOTIFICATIONOVERFLOW") {
				tell(mail.News{Gone: true, Over: true})
			}
		},
		other: func(line string) {
			words := strings.Fields(line)
			switch {
			case s.mailbox == "" || len(words) < 2:
			case words[1] == "EXISTS":
				// Some say it now and then though nothing came.
				if s.exists != exists {
					tell(mail.News{Mailbox: s.mailbox})
				}
			case words[1] == "EXPUNGE":
				tell(mail.News{Mailbox: s.mailbox, Gone: true})
			case words[1] == "FETCH":
				tell(mail.News{Mailbox: s.mailbox, Status: s.flagged(line)})
			}
			exists = s.exists
		},
	}
}
