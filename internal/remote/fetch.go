package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// maxKept bounds a body that is kept in memory, in bytes.
const maxKept = 1 << 20

// maxAnswers bounds how many FETCH responses are kept in memory: no mailbox has
// more messages, and a server could go on for ever.
const maxAnswers = 20_000_000

// gather collects the messages of FETCH responses without bodies, in the order
// of the first word on each, the last word on each counting.
func (s *Session) gather(ctx context.Context, uids imap.UIDSet, items, modifier string, learn func(*mail.Message, mail.Fetched)) ([]mail.Message, error) {
	if s.exists == 0 {
		return nil, nil // Dovecot says "Invalid messageset" then (mattermost-plugin#29)
	}
	var out []mail.Message
	at := make(map[imap.UID]int)
	h := handler{fetch: func(seq uint32) error {
		f, err := s.fetch(seq, maxText, nil)
		if err != nil || f.UID == 0 || !uids.Contains(f.UID) {
			return err
		}
		if learn != nil {
			learn(&f.Message, f)
		}
		if i, again := at[f.UID]; again {
			if f.Flags != nil {
				out[i].Flags = f.Flags
			}
			return nil
		}
		if len(out) >= maxAnswers {
			return &mail.Fault{Kind: mail.KindTooLarge, Text: "no end of messages"}
		}
		at[f.UID] = len(out)
		out = append(out, f.Message)
		return nil
	}}
	for _, part := range sets(uids) {
		a, err := s.command(ctx, fmt.Sprintf("UID FETCH %s (%s)%s", part, items, modifier), h)
		if err != nil {
			return nil, err
		}
		if f := a.fault("UID FETCH"); f != nil {
			return nil, s.inMailbox(f)
		}
	}
	return out, nil
}

// Flags gives UID and flags of those of uids that exist and that changed after
// the mod-sequence changedSince (RFC 7162 3.1.4); 0 means all.
func (s *Session) Flags(ctx context.Context, uids imap.UIDSet, changedSince uint64) ([]mail.Message, error) {
	modifier := ""
	if changedSince > 0 {
		modifier = fmt.Sprintf(" (CHANGEDSINCE %d)", changedSince)
	}
	return s.gather(ctx, uids, "UID FLAGS", modifier, nil)
}

// Identify gives flags, date, size and Message-ID.
func (s *Session) Identify(ctx context.Context, uids imap.UIDSet) ([]mail.Message, error) {
	return s.gather(ctx, uids, "UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)]", "", func(m *mail.Message, f mail.Fetched) {
		for name, v := range f.Items {
			if strings.HasPrefix(name, "BODY[HEADER.FIELDS") {
				m.MessageID = messageID(string(v.Text))
			}
		}
	})
}

// messageID reads the one field of a header, as notmuch does: what stands
// between angle brackets, or else the whole value.
func messageID(field string) string {
	_, value, _ := strings.Cut(field, ":")
	value = strings.Join(strings.Fields(value), " ")
	if _, rest, ok := strings.Cut(value, "<"); ok {
		value, _, _ = strings.Cut(rest, ">")
	}
	return strings.TrimSpace(value)
}

// incoming sorts what a fetch brings: bodies into spools, and spools to their
// messages, whatever order the server tells things in.
type incoming struct {
	s     *Session
	sink  mail.Sink
	asked imap.UIDSet
	// alone: one message was asked for, and a body that comes without a UID is
	// its.
	alone imap.UID
	spool mail.Spool // of the response that is being read
	size  int64
	told  map[imap.UID]mail.Message // what came without a body
	late  []lateMail                // bodies that came before their flags
	done  map[imap.UID]bool
	got   []mail.Fetched // alone: kept for the exchange
	fails error          // of the sink
}

type lateMail struct {
	m     mail.Message
	spool mail.Spool
}

// maxLate bounds how many bodies wait for their flags.
const maxLate = 1000

func (in *incoming) open(item string, size int64) (io.Writer, error) {
	if item != "BODY[]" || size == 0 {
		return nil, nil
	}
	if in.spool != nil { // a second body in one response
		return io.Discard, nil
	}
	spool, err := in.sink.Open(size)
	if err != nil {
		in.fails = err
		return nil, err
	}
	in.spool, in.size = spool, size
	return spool, nil
}

// fetch takes one response.
func (in *incoming) fetch(seq uint32) error {
	in.spool = nil
	f, err := in.s.fetch(seq, maxKept, in)
	spool := in.spool
	in.spool = nil
	if err != nil {
		if spool != nil {
			spool.Discard()
		}
		return err
	}
	if in.alone != 0 && len(in.got) < 100 {
		in.got = append(in.got, f)
	}
	m := f.Message
	if _, told := f.Items["UID"]; m.UID == 0 && !told && in.alone != 0 {
		m.UID = in.alone
	}
	known := in.told[m.UID]
	if m.Flags == nil {
		m.Flags = known.Flags
	}
	if m.InternalDate.IsZero() {
		m.InternalDate = known.InternalDate
	}
	if m.Size == 0 {
		m.Size = known.Size
	}
	if m.UID == 0 || !in.asked.Contains(m.UID) {
		if spool != nil {
			spool.Discard()
			in.s.note("dropped a message that was not asked for")
		}
		return nil
	}
	if spool == nil {
		in.told[m.UID] = m
		return nil
	}
	m.BodySize = in.size
	if in.done[m.UID] {
		spool.Discard()
		return nil
	}
	in.done[m.UID] = true
	if m.Flags == nil && len(in.late) < maxLate {
		in.late = append(in.late, lateMail{m, spool})
		return nil
	}
	return in.hand(m, spool)
}

func (in *incoming) hand(m mail.Message, spool mail.Spool) error {
	if err := in.sink.Done(m, spool); err != nil {
		in.fails = err
		return &ourFault{err}
	}
	return nil
}

// finish hands over what waited for its flags.
func (in *incoming) finish() error {
	for len(in.late) > 0 {
		l := in.late[0]
		in.late = in.late[1:]
		if t := in.told[l.m.UID]; l.m.Flags == nil {
			l.m.Flags = t.Flags
		}
		if err := in.hand(l.m, l.spool); err != nil {
			in.drop()
			return err
		}
	}
	return nil
}

func (in *incoming) drop() {
	for _, l := range in.late {
		l.spool.Discard()
	}
	in.late = nil
}

func (s *Session) fetchItems() string {
	if s.Has("CONDSTORE") {
		return "(UID FLAGS INTERNALDATE RFC822.SIZE MODSEQ BODY.PEEK[])"
	}
	return "(UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])"
}

// fetchInto asks for bodies and gives the answer to the last command.
func (s *Session) fetchInto(ctx context.Context, in *incoming, items string) (answer, error) {
	var a answer
	for _, part := range sets(in.asked) {
		var err error
		a, err = s.command(ctx, "UID FETCH "+part+" "+items, handler{fetch: in.fetch})
		if in.fails != nil {
			in.drop()
			return a, in.fails
		}
		if err != nil {
			// What came whole before the connection went is delivered.
			if ctx.Err() != nil {
				in.drop()
			} else if e := in.finish(); e != nil {
				return a, in.fails
			}
			return a, err
		}
		if a.status != "OK" {
			break
		}
	}
	if in.finish() != nil {
		return a, in.fails
	}
	return a, nil
}

// Fetch streams the messages of one batch to the sink. Bodies are never in
// memory. That the error is nil does not mean that all of them came.
func (s *Session) Fetch(ctx context.Context, uids imap.UIDSet, sink mail.Sink) error {
	in := &incoming{s: s, sink: sink, asked: uids, told: make(map[imap.UID]mail.Message), done: make(map[imap.UID]bool)}
	a, err := s.fetchInto(ctx, in, s.fetchItems())
	if err != nil {
		return err
	}
	return s.inMailbox(a.fault("UID FETCH"))
}

// FetchOne fetches one message with everything recorded. A body that comes
// without its UID is taken for the message's, since nothing else was asked for.
// The exchange is there beside an error, too.
func (s *Session) FetchOne(ctx context.Context, uid imap.UID, sink mail.Sink) (*mail.Exchange, error) {
	set := imap.UIDSet{{Start: uid, Stop: uid}}
	in := &incoming{s: s, sink: sink, asked: set, alone: uid, told: make(map[imap.UID]mail.Message), done: make(map[imap.UID]bool)}
	ex := &mail.Exchange{}
	var a answer
	err := s.recorded(ex, func() (err error) {
		a, err = s.fetchInto(ctx, in, s.fetchItems())
		return err
	})
	ex.Fetched = in.got
	ex.Status, ex.Code, ex.Text = a.status, a.code, a.text
	f := &mail.Fault{Kind: mail.KindNoData, Op: "UID FETCH", Mailbox: s.mailbox, UID: uid}
	switch {
	case errors.Is(err, in.fails) && in.fails != nil:
		return ex, err
	case err != nil:
		if fault, ok := errors.AsType[*mail.Fault](err); ok {
			fault.UID = uid
		}
		return ex, err
	case in.done[uid]:
		return ex, nil
	case a.status != "OK":
		err := s.inMailbox(a.fault("UID FETCH"))
		if fault, ok := errors.AsType[*mail.Fault](err); ok {
			fault.UID = uid
		}
		return ex, err
	}
	return ex, f
}

// Exchange speaks one command by hand. A tagged NO or BAD is no error.
func (s *Session) Exchange(ctx context.Context, command string) (*mail.Exchange, error) {
	ex := &mail.Exchange{Command: command}
	var a answer
	err := s.recorded(ex, func() (err error) {
		a, err = s.command(ctx, command, handler{
			fetch: func(seq uint32) error {
				f, err := s.fetch(seq, maxKept, nil)
				if err == nil && len(ex.Fetched) < 100 {
					ex.Fetched = append(ex.Fetched, f)
				}
				return err
			},
			status: func(word, code, text string) {
				if code != "" {
					text = "[" + code + "] " + text
				}
				if len(ex.Untagged) < 100 {
					ex.Untagged = append(ex.Untagged, s.shown(word+" "+text, maxLineText))
				}
			},
		})
		return err
	})
	ex.Status, ex.Code, ex.Text = a.status, a.code, a.text
	if err != nil && s.left {
		ex.Status = "BYE"
	}
	return ex, err
}

// recorded keeps the transcript of what f says.
func (s *Session) recorded(ex *mail.Exchange, f func() error) error {
	s.record = &transcript{redact: s.redact}
	defer func() { s.record = nil }()
	err := f()
	if len(s.record.part) > 0 {
		s.record.end() // what came of a line that the connection cut
	}
	ex.Lines = s.record.lines
	return err
}
