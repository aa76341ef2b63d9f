package pipeline

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
)

// server is an IMAP server as pipeline sees it, without a wire. It counts what
// it is asked.
type server struct {
	mu       sync.Mutex
	caps     []string
	greeting string
	boxes    map[string]*serverBox
	asked    []string
	fetched  map[imap.UID]int // bodies handed out
	sent     []int            // their sizes, in their order
	dials    int
	// lingers has it be at what was given to it over a connection that is cut: catchUp does that.
	lingers bool
	late    []func()
	// dialErr, if set, is what a dial gives.
	dialErr func(n int) error
	listErr error
	refuses map[string]*mail.Fault // by verb of a raw exchange
	// unwilling are messages with which no command is done by this verb.
	unwilling map[string]imap.UID
	// writes counts commands that change something; the connection dies after
	// the effect of number cutAt, before its answer. 0: never.
	writes, cutAt int
	permanent     []string    // PERMANENTFLAGS of every mailbox
	picky         string      // a mail with this in it is refused, and with it those that come in the same command
	partly        bool        // but those before it are stored, as no server may
	mute          bool        // it tells no new UIDs
	wordless      bool        // it tells no Message-ID
	dedup         bool        // what it is given it has already, as UID 1
	footer        string      // what it puts below every mail that it is given, as Exchange changes them
	hangUp        bool        // the connection dies at the next SEARCH
	fat           int64       // by how much it says that mails are bigger than they are
	sizeless      *mail.Fault // what comes of the question how large messages are
	// blind, if not nil, is what it says are the messages that are marked \Deleted.
	blind      imap.UIDSet
	lag        map[string]mail.Status // what STATUS tells in place of the truth, by mailbox
	cutExamine int                    // the connection dies at the EXAMINE or SELECT of this number; 0: never
	prefix     string                 // of all mailboxes but INBOX
	delim      rune                   // 0: a slash
	shallow    bool                   // it makes no mailbox above one that it is to make
	holders    map[string]bool        // \Noselect
	subscribed map[string]bool
	gone       map[string]bool // mailboxes that were deleted
	made       uint64          // mailboxes that were made after that
	noSelect   bool            // nothing is opened for writing
	// lies, if set, alters what COPYUID and APPENDUID say.
	lies func(validity, uid *uint64)
	// tells, if set, alters what EXAMINE says.
	tells func(*mail.Selected)
	// before, if set, is called before a question is answered, by what it is about: other clients go on.
	before func(what string)
	// hides are messages that no list has that is asked for.
	hides imap.UIDSet
	// rest, if set, alters what it gives of a message whose beginning is here.
	rest func(string) (string, error)
	// effect, if set, is called when a command has changed something, before it is
	// answered.
	effect func(verb string)
	// unheard: what it answers to a command that changes something does not come.
	unheard bool
	// forgets, if set, tells of which messages it makes no change of this flag, though it says so;
	// and stuck are its mod-sequences where it does.
	forgets func(uid imap.UID, flag string) bool
	stuck   bool
}

type serverBox struct {
	validity     uint64
	next         imap.UID
	modseq       uint64
	msgs         map[imap.UID]*serverMail
	gone         map[imap.UID]uint64 // mod-sequence of the expunge
	refuse       error               // of EXAMINE
	refuseSelect error               // of SELECT
	readOnly     bool                // to everybody
	attrs        []string            // that LIST tells
}

type serverMail struct {
	raw    string
	flags  []string
	date   time.Time
	modseq uint64
	// fault is what happens when the body is asked for in any way: nil data
	// and the error that the command gives. Death ends the connection.
	fault *serverFault
}

type serverFault struct {
	err   *mail.Fault // nil: OK without data
	death bool
	// items answers single items of the ladder.
	items map[string]string
	// plain is handed out instead of the mail.
	plain string
	// sets: BODY[] sets \Seen, although it must not after EXAMINE.
	sets bool
	// leaves: the server hangs up behind the answer to BODY[].
	leaves bool
	// silent are the items to which no answer comes.
	silent []string
	// cut is after how many bytes of it the connection dies.
	cut int
	// times is how often it happens; 0 means always.
	times int
}

func newServer(caps ...string) *server {
	return &server{caps: caps, greeting: "fake", boxes: map[string]*serverBox{}, fetched: map[imap.UID]int{}}
}

func (s *server) box(name string) *serverBox {
	if s.boxes[name] == nil {
		s.boxes[name] = &serverBox{validity: 14, next: 1, modseq: 1, msgs: map[imap.UID]*serverMail{}, gone: map[imap.UID]uint64{}}
	}
	return s.boxes[name]
}

func rawMail(n int) string {
	return fmt.Sprintf("From: a@example.org\r\nMessage-ID: <m%d@example.org>\r\nSubject: mail %d\r\n\r\nbody %d\r\nbare\nlf and \x00 nul\r\n", n, n, n)
}

// add puts a mail into a mailbox.
func (b *serverBox) add(raw string, flags ...string) imap.UID {
	uid := b.next
	b.next++
	b.modseq++
	if flags == nil {
		flags = []string{}
	}
	b.msgs[uid] = &serverMail{raw: raw, flags: flags, date: time.Date(2020, 1, 1, 0, 0, int(uid), 0, time.UTC), modseq: b.modseq}
	return uid
}

func (b *serverBox) expunge(uid imap.UID) *serverMail {
	m := b.msgs[uid]
	delete(b.msgs, uid)
	b.modseq++
	b.gone[uid] = b.modseq
	return m
}

func (b *serverBox) flag(uid imap.UID, flags ...string) {
	b.modseq++
	if flags == nil {
		flags = []string{}
	}
	b.msgs[uid].flags, b.msgs[uid].modseq = flags, b.modseq
}

func (b *serverBox) uids() []imap.UID { return slices.Sorted(maps.Keys(b.msgs)) }

func (s *server) dial(context.Context) (Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dials++
	if s.dialErr != nil {
		if err := s.dialErr(s.dials); err != nil {
			return Session{}, err
		}
	}
	c := &session{server: s}
	c.verbs = verbs{c.Exchange, c.Mailbox}
	return sessionOf(c, s.greeting), nil
}

// sessionOf is a fake as a run has it; it has every part.
func sessionOf(c any, greeting string) Session {
	return Session{
		Opener: c.(probe.Opener), Lister: c.(Lister), Folders: c.(Folders), Describer: c.(Describer),
		Fetcher: c.(Fetcher), Writer: c.(Writer), Greeting: greeting,
	}
}

type session struct {
	verbs
	server  *server
	name    string
	dead    bool
	left    bool           // the server has hung up, which shows at the next command
	ahead   *mail.Selected // what Append was told of the mailbox aheadOf
	aheadOf string
}

func (s *session) Has(c string) bool { return slices.Contains(s.server.caps, c) }
func (s *session) Mailbox() string   { return s.name }
func (s *session) Alive() bool       { return !s.dead }
func (s *session) Close() error      { s.dead = true; return nil }

func (s *session) ask(format string, args ...any) func() {
	s.server.mu.Lock()
	s.ahead = nil
	what := fmt.Sprintf(format, args...)
	s.server.asked = append(s.server.asked, what)
	if s.server.before != nil {
		s.server.before(what)
	}
	return s.server.mu.Unlock
}

func (s *session) status(b *serverBox) mail.Status {
	st := mail.Status{Messages: uint32(len(b.msgs)), UIDNext: b.next, UIDValidity: b.validity}
	if s.Has("CONDSTORE") {
		st.HighestModSeq = b.modseq
	}
	return st
}

func (s *session) List(context.Context, mail.Listing) ([]mail.Mailbox, error) {
	defer s.ask("LIST")()
	var out []mail.Mailbox
	for _, name := range slices.Sorted(maps.Keys(s.server.boxes)) {
		st := s.status(s.server.boxes[name])
		if lag, ok := s.server.lag[name]; ok {
			st = lag
		}
		out = append(out, mail.Mailbox{Name: name, Delim: s.server.separator(), Attrs: s.server.boxes[name].attrs, Status: &st})
	}
	for _, name := range slices.Sorted(maps.Keys(s.server.holders)) {
		out = append(out, mail.Mailbox{Name: name, Delim: s.server.separator(), Attrs: []string{`\Noselect`}})
	}
	return out, s.server.listErr
}

func (s *session) Recount(_ context.Context, name string) (mail.Status, error) {
	defer s.ask("STATUS %s", name)()
	s.name = ""
	return s.status(s.server.boxes[name]), nil
}

func (s *server) separator() rune {
	if s.delim == 0 {
		return '/'
	}
	return s.delim
}

// drop deletes a mailbox.
func (s *server) drop(name string) {
	delete(s.boxes, name)
	if s.gone == nil {
		s.gone = map[string]bool{}
	}
	s.gone[name] = true
}

// create answers CREATE. A mailbox that there was before gets another
// UIDVALIDITY.
func (s *server) create(ex *mail.Exchange, name string) {
	up := name[:max(0, strings.LastIndexByte(name, byte(s.separator())))]
	switch {
	case s.boxes[name] != nil:
		ex.Status, ex.Code = "NO", "ALREADYEXISTS"
	case !strings.HasPrefix(name, s.prefix):
		ex.Status, ex.Code = "NO", "CANNOT"
	case s.shallow && up != "" && s.boxes[up] == nil:
		ex.Status, ex.Code = "NO", "NONEXISTENT"
	default:
		if s.gone[name] {
			s.made++
		}
		s.box(name).validity += s.made
		delete(s.holders, name)
	}
}

func (s *session) Examine(_ context.Context, name string, known *mail.Known) (*mail.Selected, error) {
	if sel := s.ahead; sel != nil && s.aheadOf == name && known != nil {
		s.ahead = nil
		return sel, nil
	}
	defer s.ask("EXAMINE %s", name)()
	s.name = ""
	if s.server.cutExamine > 0 {
		if s.server.cutExamine--; s.server.cutExamine == 0 {
			s.dead = true
			return nil, &mail.Fault{Kind: mail.KindCut, Op: "EXAMINE"}
		}
	}
	b := s.server.boxes[name]
	if b == nil {
		return nil, &mail.Fault{Kind: mail.KindNo, Op: "EXAMINE", Text: "no such mailbox"}
	}
	if b.refuse != nil {
		return nil, b.refuse
	}
	s.name = name
	sel := &mail.Selected{Status: s.status(b)}
	if known != nil && known.UIDValidity == b.validity {
		sel.Resynced = true
		for _, u := range b.uids() {
			if b.msgs[u].modseq > known.HighestModSeq {
				sel.Changed = append(sel.Changed, mail.Message{UID: u, Flags: b.msgs[u].flags})
			}
		}
		for u, seq := range b.gone {
			if seq > known.HighestModSeq {
				sel.Vanished.AddNum(u)
			}
		}
		sel.Identified = s.identify(known.Identify)
	}
	if s.server.tells != nil {
		s.server.tells(sel)
	}
	return sel, nil
}

func (s *session) each(uids imap.UIDSet, f func(imap.UID, *serverMail) bool) {
	b := s.server.boxes[s.name]
	for _, u := range b.uids() {
		if uids.Contains(u) && !f(u, b.msgs[u]) {
			return
		}
	}
}

func (s *session) Flags(_ context.Context, uids imap.UIDSet, since uint64) (out []mail.Message, err error) {
	defer s.ask("FLAGS since %d", since)()
	s.each(uids, func(u imap.UID, m *serverMail) bool {
		if m.modseq > since && !s.server.hides.Contains(u) {
			out = append(out, mail.Message{UID: u, Flags: m.flags})
		}
		return true
	})
	return out, nil
}

func (s *session) Search(_ context.Context, uids imap.UIDSet) (out imap.UIDSet, err error) {
	defer s.ask("SEARCH")()
	if s.server.hangUp {
		s.server.hangUp, s.dead, s.name = false, true, ""
		return nil, &mail.Fault{Kind: mail.KindCut, Op: "UID SEARCH"}
	}
	s.each(uids, func(u imap.UID, _ *serverMail) bool {
		if !s.server.hides.Contains(u) {
			out.AddNum(u)
		}
		return true
	})
	return out, nil
}

func (s *session) Sizes(_ context.Context, uids imap.UIDSet) (out []mail.Message, err error) {
	defer s.ask("SIZES")()
	if s.server.sizeless != nil {
		s.dead = s.server.sizeless.Kind == mail.KindCut
		return nil, s.server.sizeless
	}
	s.each(uids, func(u imap.UID, m *serverMail) bool {
		out = append(out, mail.Message{UID: u, Size: int64(len(m.raw)) + s.server.fat})
		return true
	})
	return out, nil
}

func (s *session) Identify(_ context.Context, uids imap.UIDSet) ([]mail.Message, error) {
	defer s.ask("IDENTIFY")()
	return s.identify(uids), nil
}

func (s *session) identify(uids imap.UIDSet) (out []mail.Message) {
	s.each(uids, func(u imap.UID, m *serverMail) bool {
		id := mail.ParseEnvelope([]byte(m.raw)).MessageID
		if s.server.wordless {
			id = ""
		}
		out = append(out, mail.Message{UID: u, Flags: m.flags, InternalDate: m.date, Size: int64(len(m.raw)) + s.server.fat, MessageID: id})
		return true
	})
	return out
}

// hit tells whether a fault strikes now.
func (m *serverMail) hit() bool {
	if m.fault == nil {
		return false
	}
	if m.fault.times > 0 {
		if m.fault.times--; m.fault.times == 0 {
			defer func() { m.fault = nil }()
		}
	}
	return true
}

func (s *session) Fetch(_ context.Context, uids imap.UIDSet, sink mail.Sink) (err error) {
	defer s.ask("FETCH")()
	s.each(uids, func(u imap.UID, m *serverMail) bool {
		raw := m.raw
		if f := m.fault; m.hit() {
			switch {
			case f.plain != "":
				raw = f.plain
			case f.cut > 0:
				s.dead, s.name = true, ""
				sp, failed := sink.Open(int64(len(raw)))
				if err = failed; err == nil {
					_, _ = sp.Write([]byte(raw[:f.cut]))
					sp.Discard()
					err = &mail.Fault{Kind: mail.KindCut, Op: "UID FETCH"}
				}
				return false
			case f.death:
				s.dead, s.name = true, ""
				err = &mail.Fault{Kind: mail.KindCut, Op: "UID FETCH"}
				return false
			case f.err != nil:
				err = f.err
				return false
			default:
				return true
			}
		}
		err = hand(sink, u, m, raw, s.server.fat)
		s.server.fetched[u]++
		s.server.sent = append(s.server.sent, len(raw))
		return err == nil
	})
	return err
}

func hand(sink mail.Sink, u imap.UID, m *serverMail, raw string, fat int64) error {
	sp, err := sink.Open(int64(len(raw)))
	if err != nil {
		return err
	}
	if _, err := sp.Write([]byte(raw)); err != nil {
		sp.Discard()
		return err
	}
	return sink.Done(mail.Message{UID: u, Flags: m.flags, InternalDate: m.date, Size: int64(len(m.raw)) + fat, BodySize: int64(len(raw))}, sp)
}

func (s *session) FetchRest(_ context.Context, uid imap.UID, from int64, sink mail.Sink) (err error) {
	defer s.ask("REST %d", from)()
	s.each(mail.UIDSet([]imap.UID{uid}), func(u imap.UID, m *serverMail) bool {
		rest := m.raw[min(int64(len(m.raw)), from):]
		if s.server.rest != nil {
			rest, err = s.server.rest(rest)
		}
		if err == nil && rest != "" {
			err = hand(sink, u, m, rest, s.server.fat)
		}
		return false
	})
	return err
}

func (s *session) FetchOne(ctx context.Context, uid imap.UID, sink mail.Sink) (*mail.Exchange, error) {
	ex := &mail.Exchange{Command: fmt.Sprintf("UID FETCH %d", uid), Lines: []mail.Line{{Client: true, Text: fmt.Sprintf("UID FETCH %d (BODY.PEEK[])", uid)}}}
	came := false
	inner := sink
	inner.Done = func(m mail.Message, sp mail.Spool) error { came = true; return sink.Done(m, sp) }
	err := s.Fetch(ctx, mail.UIDSet([]imap.UID{uid}), inner)
	if err == nil && !came {
		ex.Status = "OK"
		err = &mail.Fault{Kind: mail.KindNoData, Op: "UID FETCH", UID: uid}
	}
	return ex, err
}
