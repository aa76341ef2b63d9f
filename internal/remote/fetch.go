package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// maxKept bounds a body that is kept in memory, in bytes.
const maxKept = 1 << 20

// extra is what a FETCH can do without: an item, or a modifier.
type extra struct{ name, item, modifier string }

// gather collects the messages of FETCH responses without bodies.
func (s *Session) gather(ctx context.Context, uids imap.UIDSet, items string, extra extra) ([]mail.Message, error) {
	if s.exists == 0 {
		return nil, nil // Dovecot says "Invalid messageset" then (mattermost-plugin#29)
	}
	uids = normal(uids)
	if extra.modifier == "" { // else few are told
		if err := s.compress(ctx, uids, worthLines); err != nil {
			return nil, err
		}
	}
	var out []mail.Message
	h := s.gathering(uids, &out)
	for _, part := range sets(uids) {
		err := s.optional(extra.name, extra.name != "", func(with bool) error {
			line := fmt.Sprintf("UID FETCH %s (%s)", part, items)
			if with {
				line = fmt.Sprintf("UID FETCH %s (%s%s)%s", part, items, extra.item, extra.modifier)
			}
			a, err := s.command(ctx, line, h)
			if err != nil {
				return err
			}
			return s.refused(a, "UID FETCH")
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// gathering takes those of uids into out, in the order of the first word on each.
func (s *Session) gathering(uids imap.UIDSet, out *[]mail.Message) handler {
	at := make(map[imap.UID]int)
	return handler{fetch: func(seq uint32) error {
		s.kept = 0 // what is kept of a response is in the message
		f, err := s.fetch(seq, maxText, nil)
		if err != nil || f.UID == 0 || !uids.Contains(f.UID) {
			return err
		}
		for name, v := range f.Items {
			if strings.HasPrefix(name, "BODY[HEADER.FIELDS") {
				f.MessageID = mail.ParseHeader(v.Text, "Message-ID").MessageID()
			}
		}
		if i, again := at[f.UID]; again {
			(*out)[i] = merge(f.Message, (*out)[i]) // the last word counts
		} else {
			at[f.UID] = len(*out)
			*out = append(*out, f.Message)
		}
		return s.plausible(len(*out))
	}}
}

// merge fills in what a response leaves out from what was told before.
func merge(m, before mail.Message) mail.Message {
	if m.Flags == nil {
		m.Flags = before.Flags
	}
	if m.InternalDate.IsZero() {
		m.InternalDate = before.InternalDate
	}
	if m.Size == 0 {
		m.Size = before.Size
	}
	if m.ModSeq == 0 {
		m.ModSeq = before.ModSeq
	}
	if m.MessageID == "" {
		m.MessageID = before.MessageID
	}
	if m.GmailID == 0 {
		m.GmailID = before.GmailID
	}
	return m
}

// Flags gives UID and flags of those of uids that exist and that changed after
// the mod-sequence since (RFC 7162 3.1.4); 0 means all. Of a server that refuses that,
// all come.
func (s *Session) Flags(ctx context.Context, uids imap.UIDSet, since uint64) ([]mail.Message, error) {
	if since == 0 {
		return s.gather(ctx, uids, "UID FLAGS", extra{})
	}
	return s.gather(ctx, uids, "UID FLAGS", extra{name: changedSince, modifier: fmt.Sprintf(" (CHANGEDSINCE %d)", since)})
}

// Sizes gives UID and size.
func (s *Session) Sizes(ctx context.Context, uids imap.UIDSet) ([]mail.Message, error) {
	return s.gather(ctx, uids, "UID RFC822.SIZE", extra{})
}

// identity is what tells which message one is.
const identity = "UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)]"

// Identify gives flags, date, size and Message-ID, and Gmail's number for it.
func (s *Session) Identify(ctx context.Context, uids imap.UIDSet) ([]mail.Message, error) {
	if !s.Has("X-GM-EXT-1") {
		return s.gather(ctx, uids, identity, extra{})
	}
	return s.gather(ctx, uids, identity, extra{name: gmailID, item: " X-GM-MSGID"})
}

// incoming sorts what a fetch brings: bodies into spools, and spools to their
// messages, whatever order the server tells things in.
type incoming struct {
	s     *Session
	sink  mail.Sink
	asked imap.UIDSet
	items string // of each message
	body  string // the one of them that is its body
	// alone: one message was asked for, and a body that comes without a UID is
	// its.
	alone  imap.UID
	spool  mail.Spool // of the response that is being read
	size   int64
	told   map[imap.UID]mail.Message // what came without a body
	bySeq  map[uint32]mail.Message   // the same, without a UID
	late   []lateMail                // bodies that came before their flags
	orphan []lateMail                // alone: bodies without a UID
	done   map[imap.UID]bool
	wasted int64          // bytes of bodies that nobody asked for
	got    []mail.Fetched // alone: kept for the exchange
	fails  error          // of the sink
}

type lateMail struct {
	m     mail.Message
	spool mail.Spool
}

// Bounds of what waits for something else to come.
const (
	maxLate    = 1000
	maxBySeq   = 100_000
	maxFetched = 100 // FETCH responses that an exchange shows
)

func newIncoming(s *Session, uids imap.UIDSet, sink mail.Sink) *incoming {
	return &incoming{s: s, sink: sink, asked: normal(uids), items: fetchItems, body: "BODY[]", told: make(map[imap.UID]mail.Message),
		bySeq: make(map[uint32]mail.Message), done: make(map[imap.UID]bool)}
}

func (in *incoming) open(item string, size int64) (io.Writer, error) {
	if item != in.body || size == 0 {
		return nil, nil
	}
	if in.spool != nil { // a second body in one response
		return io.Discard, nil
	}
	spool, err := in.sink.Open(size)
	if err != nil {
		return nil, err
	}
	in.spool, in.size = spool, size
	return spool, nil
}

// fetch takes one response.
func (in *incoming) fetch(seq uint32) error {
	in.spool = nil
	if in.alone == 0 {
		in.s.kept = 0 // nothing of a response is kept but its message
	}
	f, err := in.s.fetch(seq, maxKept, in)
	spool := in.spool
	in.spool = nil
	if err != nil {
		if spool != nil {
			spool.Discard()
		}
		if ours, ok := errors.AsType[*ourFault](err); ok {
			in.fails = ours.err
		}
		return err
	}
	if in.alone != 0 && len(in.got) < maxFetched {
		in.got = append(in.got, f)
	}
	m := f.Message
	if spool != nil {
		m.BodySize = in.size
	}
	_, told := f.Items["UID"]
	switch {
	case !told && spool == nil:
		if len(in.bySeq) < maxBySeq {
			in.bySeq[seq] = merge(m, in.bySeq[seq])
		}
		return nil
	case !told && in.alone != 0 && len(in.orphan) < 2:
		in.orphan = append(in.orphan, lateMail{m, spool})
		return nil
	case m.UID == 0, !in.asked.Contains(m.UID):
		if spool != nil {
			in.s.note("UID FETCH: dropped a body that is of no message asked for")
		}
		return in.waste(spool)
	case spool != nil && in.done[m.UID]:
		return in.waste(spool)
	case spool == nil:
		in.told[m.UID] = merge(m, in.told[m.UID])
		return in.s.plausible(len(in.told))
	}
	in.done[m.UID] = true
	if m = in.complete(m); m.Flags == nil && len(in.late) < maxLate {
		in.late = append(in.late, lateMail{m, spool})
		return nil
	}
	return in.hand(m, spool)
}

// complete adds what other responses told of the message.
func (in *incoming) complete(m mail.Message) mail.Message {
	return merge(merge(m, in.told[m.UID]), in.bySeq[m.Seq])
}

// waste drops a body that is not wanted, and ends it if that has no end.
func (in *incoming) waste(spool mail.Spool) error {
	if spool == nil {
		return nil
	}
	spool.Discard()
	if in.wasted += in.size; in.wasted > in.s.maxLiteral {
		return &mail.Fault{Kind: mail.KindTooLarge, Text: "no end of messages that nobody asked for"}
	}
	return nil
}

func (in *incoming) hand(m mail.Message, spool mail.Spool) error {
	if err := in.sink.Done(m, spool); err != nil {
		in.fails = err
		return &ourFault{err}
	}
	return nil
}

// finish hands over what waited for its flags, or for certainty that nothing
// else comes.
func (in *incoming) finish() error {
	if len(in.orphan) == 1 && !in.done[in.alone] {
		o := in.orphan[0]
		in.orphan = nil
		o.m.UID = in.alone
		in.done[in.alone] = true
		in.late = append(in.late, o)
	}
	for len(in.late) > 0 {
		l := in.late[0]
		in.late = in.late[1:]
		if err := in.hand(in.complete(l.m), l.spool); err != nil {
			in.drop()
			return err
		}
	}
	in.drop()
	return nil
}

func (in *incoming) drop() {
	for _, l := range append(in.late, in.orphan...) {
		l.spool.Discard()
	}
	in.late, in.orphan = nil, nil
}

// fetchItems is what a mail is made of here.
const fetchItems = "(UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])"

// fetchInto asks for bodies and gives the answer to the last command.
func (s *Session) fetchInto(ctx context.Context, in *incoming, h handler) (answer, error) {
	h.fetch = in.fetch
	a := answer{status: "OK"} // nothing asked for, nothing refused
	for _, part := range sets(in.asked) {
		var err error
		a, err = s.command(ctx, "UID FETCH "+part+" "+in.items, h)
		if in.fails != nil {
			in.drop()
			return a, in.fails
		}
		if err != nil {
			// What came whole before the connection went is delivered.
			if ctx.Err() != nil {
				in.drop()
			} else if in.finish() != nil {
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
	if err := s.compress(ctx, uids, worthMails); err != nil {
		return err
	}
	a, err := s.fetchInto(ctx, newIncoming(s, uids, sink), handler{})
	if err != nil {
		return err
	}
	return s.refused(a, "UID FETCH")
}

// FetchRest streams what a message has behind so many bytes of its own, which Fetch has brought
// before. The message that the sink gets is told of as by Fetch, with the size of the whole. A server
// that cannot do that brings nothing, or something that does not add up to the size.
func (s *Session) FetchRest(ctx context.Context, uid imap.UID, from int64, sink mail.Sink) error {
	in := newIncoming(s, imap.UIDSet{{Start: uid, Stop: uid}}, sink)
	in.items = fmt.Sprintf("(UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[]<%d.%d>)", from, math.MaxInt32)
	in.body = fmt.Sprintf("BODY[]<%d>", from)
	a, err := s.fetchInto(ctx, in, handler{})
	if err != nil {
		return err
	}
	return s.refused(a, "UID FETCH")
}

// FetchOne fetches one message with everything recorded. A body that comes
// without its UID is taken for the message's if it is the only one, since
// nothing else was asked for. The exchange is there beside an error, too.
func (s *Session) FetchOne(ctx context.Context, uid imap.UID, sink mail.Sink) (*mail.Exchange, error) {
	in := newIncoming(s, imap.UIDSet{{Start: uid, Stop: uid}}, sink)
	in.alone = uid
	ex := &mail.Exchange{Command: fmt.Sprintf("UID FETCH %d %s", uid, fetchItems)}
	err := s.recorded(ex, func(h handler) (answer, error) { return s.fetchInto(ctx, in, h) })
	ex.Fetched = in.got
	switch {
	case err == nil && in.done[uid]:
		return ex, nil
	case err == nil && ex.Status == "OK":
		err = s.noData("UID FETCH", uid)
	case err == nil:
		err = s.refused(answer{status: ex.Status, code: ex.Code, text: ex.Text}, "UID FETCH")
	}
	if in.fails == nil {
		if f, ok := errors.AsType[*mail.Fault](err); ok {
			f.UID = uid
		}
	}
	return ex, err
}

// Exchange speaks one command by hand. A tagged NO or BAD is no error.
func (s *Session) Exchange(ctx context.Context, command string) (*mail.Exchange, error) {
	ex := &mail.Exchange{Command: s.redact(command)}
	err := s.recorded(ex, func(h handler) (answer, error) {
		h.fetch = func(seq uint32) error {
			f, err := s.fetch(seq, maxKept, nil)
			if err == nil && len(ex.Fetched) < maxFetched {
				ex.Fetched = append(ex.Fetched, f)
			}
			return err
		}
		return s.command(ctx, command, h)
	})
	return ex, err
}

// recorded keeps the transcript of what f says, and the answer to it.
func (s *Session) recorded(ex *mail.Exchange, f func(handler) (answer, error)) error {
	s.record = &transcript{wire: s.wire, keep: true}
	if s.log != nil {
		s.record.to = s.log.to
	}
	other := func(line string) {
		switch most := maxLineText; len(ex.Untagged) {
		case maxFetched:
			ex.Untagged = append(ex.Untagged, "...")
		case maxFetched + 1:
		default:
			if word, _, _ := strings.Cut(line, " "); word == "SEARCH" || word == "ESEARCH" {
				most = 2 * maxKept // what line gives, not half a number
			} else if strings.Contains(line, "[COPYUID ") {
				most = maxCode
			}
			ex.Untagged = append(ex.Untagged, s.shown(line, most))
		}
	}
	a, err := f(handler{other: other, status: func(word, code, text string) {
		if code != "" {
			text = "[" + code + "] " + text
		}
		other(word + " " + text)
	}})
	if len(s.record.part) > 0 {
		s.record.end(true) // what came of a line that the connection cut
	}
	ex.Lines = s.record.lines
	s.record = s.log
	ex.Status, ex.Code, ex.Text = a.status, a.code, a.text
	if err != nil {
		ex.Status = ""
		if s.bye != "" {
			ex.Status = "BYE"
		}
	}
	return err
}
