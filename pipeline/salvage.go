package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
)

// failure is what is known of a message that the server lists and does not hand
// over.
type failure struct {
	box        *box
	uid        imap.UID
	message    mail.Message // flags, date, size, as far as they were told
	err        error        // the first fault that the message itself met
	substitute *substitute
	header     []byte // of the real mail, whole or some fields
	lines      []mail.Line
}

// transcriptLines bounds what a stub shows of the conversation.
const transcriptLines = 200

// note keeps what an exchange told.
func (f *failure) note(ex *mail.Exchange, err error) {
	if ex != nil {
		if room := transcriptLines - len(f.lines); room > 0 {
			f.lines = append(f.lines, ex.Lines[:min(room, len(ex.Lines))]...)
		}
		for _, m := range ex.Fetched {
			if m.UID == f.uid || (m.UID == 0 && len(ex.Fetched) == 1) {
				f.learn(m.Message)
			}
		}
	}
	if err == nil && ex != nil && ex.Status == "OK" {
		err = &mail.Fault{Kind: mail.KindNoData, Op: "UID FETCH", UID: f.uid}
	}
	if f.err == nil {
		f.err = err
	}
}

func (f *failure) learn(m mail.Message) {
	if m.Flags != nil {
		f.message.Flags = m.Flags
	}
	if !m.InternalDate.IsZero() {
		f.message.InternalDate = m.InternalDate
	}
	if m.Size > 0 {
		f.message.Size = m.Size
	}
}

// ladder is what is asked for, one item at a time, when the mail as a whole
// does not come. The seed's server answers some of these and not others. The
// last rung is not a PEEK: after EXAMINE it sets no flag (RFC 9051 6.3.3), and
// Exchange hands out its substitute there only.
func ladder() []string {
	return []string{
		"FLAGS",
		"INTERNALDATE",
		"RFC822.SIZE",
		"BODY.PEEK[HEADER.FIELDS (FROM SUBJECT)]",
		"BODY.PEEK[HEADER.FIELDS (DATE MESSAGE-ID)]",
		"BODY.PEEK[HEADER]",
		"BODY.PEEK[TEXT]",
		rungPartial,
		"BODY[]",
	}
}

// rungPartial stands for the mail in pieces.
const rungPartial = "partial"

// pieceSize is asked for at once on the partial rung, in bytes.
const pieceSize = 256 << 10

// salvageDeaths is how many connections one message may cost.
const salvageDeaths = 2

// salvage tries other roads to one message. delivered tells that the whole mail
// came by one of them and is on its way; otherwise f holds what was learnt.
func (w *worker) salvage(ctx context.Context, b *box, f *failure) (delivered bool, err error) {
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, w.Timeout)
	defer cancel()
	var head, text []byte
	deaths := 0
	for _, rung := range ladder() {
		if err := w.enter(ctx, b); err != nil {
			if ctx.Err() != nil {
				break
			}
			if scopeOf(err, atMailbox) == ScopeRun {
				return false, err
			}
			// That the ladder could not be climbed changes nothing about the
			// message; the next batch meets the server's trouble itself.
			return false, outer.Err()
		}
		if rung == rungPartial {
			delivered, err = w.salvagePieces(ctx, b, f)
			if delivered || errors.Is(err, errHandOver) {
				return delivered, err
			}
		} else {
			var ex *mail.Exchange
			ex, err = w.session.Exchange(ctx, fmt.Sprintf("UID FETCH %d (%s)", f.uid, rung))
			f.note(ex, err)
			data := bodyOf(ex, f.uid)
			switch {
			case len(data) == 0:
			case isSubstitute(f, data):
				head, text = nil, nil
			case rung == "BODY.PEEK[TEXT]":
				text = data
			case rung == "BODY[]":
				return w.deliverSalvaged(ctx, b, f, "BODY[]", data)
			case rung == "BODY.PEEK[HEADER]":
				head = data
				f.header = data
			case strings.HasPrefix(rung, "BODY.PEEK[HEADER.FIELDS") && f.header == nil:
				f.header = data
			case strings.HasPrefix(rung, "BODY.PEEK[HEADER.FIELDS"):
				f.header = append(bytes.TrimRight(f.header, "\r\n"), append([]byte("\r\n"), data...)...)
			}
			if len(head) > 0 && len(text) > 0 {
				return w.deliverSalvaged(ctx, b, f, "HEADER and TEXT", head, text)
			}
		}
		if !w.session.Alive() {
			if deaths++; deaths >= salvageDeaths {
				break
			}
		}
		if ctx.Err() != nil {
			break
		}
	}
	return false, outer.Err()
}

// isSubstitute keeps what a substitute reveals, and tells that it is one.
func isSubstitute(f *failure, data []byte) bool {
	sub, ok := parseSubstitute(data)
	if !ok {
		return false
	}
	if f.substitute == nil || f.substitute.subject == "" {
		f.substitute = &sub
	}
	return true
}

// bodyOf gives the one body that an exchange brought for the message, whole.
func bodyOf(ex *mail.Exchange, uid imap.UID) []byte {
	if ex == nil {
		return nil
	}
	for _, m := range ex.Fetched {
		// A response without a UID can only be about what was asked for; one
		// that says UID 0 (OfflineIMAP#336) is about nothing.
		if _, told := m.Items["UID"]; m.UID != uid && (told || len(ex.Fetched) > 1) {
			continue
		}
		for name, v := range m.Items {
			if strings.HasPrefix(name, "BODY[") && !v.Nil && v.Size == int64(len(v.Text)) {
				return v.Text
			}
		}
	}
	return nil
}

// salvagePieces asks for the mail in ranges until one is short.
func (w *worker) salvagePieces(ctx context.Context, b *box, f *failure) (bool, error) {
	var s *maildir.Spool
	for offset := 0; ; offset += pieceSize {
		ex, err := w.session.Exchange(ctx, fmt.Sprintf("UID FETCH %d (BODY.PEEK[]<%d.%d>)", f.uid, offset, pieceSize))
		f.note(ex, err)
		data := bodyOf(ex, f.uid)
		if err != nil || ex.Status != "OK" || len(data) > pieceSize || (len(data) == 0 && offset == 0) || (offset == 0 && isSubstitute(f, data)) {
			if s != nil {
				s.Discard()
			}
			return false, err
		}
		if s == nil {
			if s, err = b.dir.Spool(w.keys.New(w.Now())); err != nil {
				return false, &handOverError{err}
			}
		}
		if _, err := s.Write(data); err != nil {
			s.Discard()
			return false, &handOverError{err}
		}
		if len(data) < pieceSize {
			m := f.message
			m.UID = f.uid
			return true, wrapHandOver(w.deliver(ctx, b, m, s, "fetched in pieces"))
		}
	}
}

// deliverSalvaged sends a mail that was put together on its way.
func (w *worker) deliverSalvaged(ctx context.Context, b *box, f *failure, road string, parts ...[]byte) (bool, error) {
	s, err := b.dir.Spool(w.keys.New(w.Now()))
	if err != nil {
		return false, err
	}
	for _, p := range parts {
		if _, err := s.Write(p); err != nil {
			s.Discard()
			return false, err
		}
	}
	m := f.message
	m.UID = f.uid
	if err := w.deliver(ctx, b, m, s, "fetched as "+road); err != nil {
		return false, err
	}
	w.lived()
	return true, nil
}

func wrapHandOver(err error) error {
	if err == nil {
		return nil
	}
	return &handOverError{err}
}

// settle turns the held failures into stubs, unless the server itself is
// suspect: then a message that came before is asked for, and if that does not
// come either the account is left and no stub is written.
func (w *worker) settle(ctx context.Context, b *box) error {
	if len(w.held) == 0 {
		return nil
	}
	if w.streak >= sick {
		well, err := w.canary(ctx, b)
		if err != nil {
			return err
		}
		if !well {
			return errSick
		}
		w.streak = 0
	}
	held := w.held
	w.held = nil
	for _, f := range held {
		if err := w.fail(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// canary asks for a message of the mailbox that came in an earlier run.
func (w *worker) canary(ctx context.Context, b *box) (bool, error) {
	rows, err := w.Ledger.Rows(ctx, b.Name, b.now.UIDValidity)
	if err != nil {
		return false, err
	}
	tried := 0
	for i := len(rows) - 1; i >= 0 && tried < 3; i-- {
		if rows[i].State != "present" {
			continue
		}
		tried++
		if err := w.enter(ctx, b); err != nil {
			return false, nil //nolint:nilerr // a server that does not even let us in is not well
		}
		came := false
		_, err := w.session.FetchOne(ctx, rows[i].UID, mail.Sink{
			Open: func(int64) (mail.Spool, error) { return void{}, nil },
			Done: func(mail.Message, mail.Spool) error { came = true; return nil },
		})
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if came && err == nil {
			return true, nil
		}
	}
	return false, nil
}

// void takes a body that nobody wants.
type void struct{}

func (void) Write(p []byte) (int, error) { return len(p), nil }
func (void) Discard()                    {}

// fail records one failure: a new stub, or one more attempt at an old one.
func (w *worker) fail(ctx context.Context, f failure) error {
	now := w.Now().UTC().Truncate(time.Second)
	if old, ok := f.box.stubs[f.uid]; ok {
		old.Attempts++
		old.NextTry = retryAt(now, old.Attempts)
		old.Reason = f.reason()
		if err := w.Ledger.Save(ctx, old); err != nil {
			return err
		}
		w.step("attempt recorded")
		w.tally(func(r *Report) { r.Stubs++ })
		return nil
	}
	return w.sendStub(ctx, f, now)
}
