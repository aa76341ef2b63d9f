package pipeline

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
)

// server is an IMAP server as pipeline sees it, without a wire. It counts what
// it is asked.
type server struct {
	mu      sync.Mutex
	caps    []string
	boxes   map[string]*serverBox
	asked   []string
	fetched map[imap.UID]int // bodies handed out
	dials   int
	// dialErr, if set, is what a dial gives.
	dialErr func(n int) error
	listErr error
	refuses map[string]*mail.Fault // by verb of a raw exchange
	// writes counts commands that change something; the connection dies after
	// the effect of number cutAt, before its answer. 0: never.
	writes, cutAt int
	permanent     []string // PERMANENTFLAGS of every mailbox
	picky         string   // a mail with this in it is refused, and with it those that come in the same command
	partly        bool     // but those before it are stored, as no server may
	mute          bool     // it tells no new UIDs
	wordless      bool     // it tells no Message-ID
	dedup         bool     // what it is given it has already, as UID 1
	footer        string   // what it puts below every mail that it is given, as Exchange changes them
	hangUp        bool     // the connection dies at the next SEARCH
	fat           int64    // by how much it says that mails are bigger than they are
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
	// hides are messages that no list has that is asked for.
	hides imap.UIDSet
	// effect, if set, is called when a command has changed something, before it is
	// answered.
	effect func(verb string)
	// unheard: what it answers to a command that changes something does not come.
	unheard bool
}

type serverBox struct {
	validity uint64
	next     imap.UID
	modseq   uint64
	msgs     map[imap.UID]*serverMail
	gone     map[imap.UID]uint64 // mod-sequence of the expunge
	refuse   error               // of EXAMINE
	readOnly bool                // to everybody
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
	// times is how often it happens; 0 means always.
	times int
}

func newServer(caps ...string) *server {
	return &server{caps: caps, boxes: map[string]*serverBox{}, fetched: map[imap.UID]int{}}
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
			return nil, err
		}
	}
	return &session{server: s}, nil
}

type session struct {
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
	s.server.asked = append(s.server.asked, fmt.Sprintf(format, args...))
	return s.server.mu.Unlock
}

func (s *session) status(b *serverBox) mail.Status {
	st := mail.Status{Messages: uint32(len(b.msgs)), UIDNext: b.next, UIDValidity: b.validity}
	if s.Has("CONDSTORE") {
		st.HighestModSeq = b.modseq
	}
	return st
}

func (s *session) List(context.Context) ([]mail.Mailbox, error) {
	defer s.ask("LIST")()
	var out []mail.Mailbox
	for _, name := range slices.Sorted(maps.Keys(s.server.boxes)) {
		st := s.status(s.server.boxes[name])
		if lag, ok := s.server.lag[name]; ok {
			st = lag
		}
		out = append(out, mail.Mailbox{Name: name, Delim: s.server.separator(), Status: &st})
	}
	for _, name := range slices.Sorted(maps.Keys(s.server.holders)) {
		out = append(out, mail.Mailbox{Name: name, Delim: s.server.separator(), Attrs: []string{`\Noselect`}})
	}
	return out, s.server.listErr
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

func (s *session) Identify(_ context.Context, uids imap.UIDSet) ([]mail.Message, error) {
	defer s.ask("IDENTIFY")()
	return s.identify(uids), nil
}

func (s *session) identify(uids imap.UIDSet) (out []mail.Message) {
	s.each(uids, func(u imap.UID, m *serverMail) bool {
		id := parseHeader([]byte(m.raw)).messageID
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
	return sink.Done(mail.Message{UID: u, Flags: m.flags, InternalDate: m.date, Size: int64(len(raw)) + fat, BodySize: int64(len(raw))}, sp)
}

func (s *session) FetchOne(ctx context.Context, uid imap.UID, sink mail.Sink) (*mail.Exchange, error) {
	ex := &mail.Exchange{Command: fmt.Sprintf("UID FETCH %d", uid), Lines: []mail.Line{{Client: true, Text: fmt.Sprintf("UID FETCH %d (BODY.PEEK[])", uid)}}}
	came := false
	inner := sink
	inner.Done = func(m mail.Message, sp mail.Spool) error { came = true; return sink.Done(m, sp) }
	err := s.Fetch(ctx, uidSet([]imap.UID{uid}), inner)
	if err == nil && !came {
		ex.Status = "OK"
		err = &mail.Fault{Kind: mail.KindNoData, Op: "UID FETCH", UID: uid}
	}
	return ex, err
}

func (s *session) Exchange(ctx context.Context, command string) (ex *mail.Exchange, err error) {
	if err := ctx.Err(); err != nil {
		return &mail.Exchange{}, err
	}
	defer s.ask("%s", command)()
	if s.left {
		s.dead, s.name = true, ""
		return &mail.Exchange{}, &mail.Fault{Kind: mail.KindCut}
	}
	ex = &mail.Exchange{Command: command, Status: "OK", Lines: []mail.Line{{Client: true, Text: command}}}
	verb, args := command, ""
	for _, v := range []string{"UID FETCH", "UID STORE", "UID EXPUNGE", "UID MOVE", "UID COPY", "EXPUNGE", "CREATE", "DELETE", "SUBSCRIBE", "UNSUBSCRIBE"} {
		if strings.HasPrefix(command, v) {
			verb, args = v, strings.TrimSpace(command[len(v):])
			break
		}
	}
	if err := s.server.refuses[verb]; err != nil {
		if err.Kind == mail.KindCut {
			s.dead, s.name = true, ""
			return ex, err
		}
		ex.Status, ex.Text = "NO", err.Text
		return ex, nil
	}
	if verb != "UID FETCH" && verb != "NAMESPACE" {
		elsewhere := []string{"CREATE", "DELETE", "SUBSCRIBE", "UNSUBSCRIBE", "UID COPY"} // not of the mailbox that is selected
		if b := s.server.boxes[s.name]; !slices.Contains(elsewhere, verb) && b != nil && b.readOnly {
			ex.Status, ex.Code, ex.Text = "NO", "READ-ONLY", "not here"
			return ex, nil
		}
		defer func() {
			if s.server.unheard {
				s.dead, s.name = true, ""
				err = &mail.Fault{Kind: mail.KindCut, Op: verb}
			}
		}()
		if s.server.effect != nil {
			defer s.server.effect(verb)
		}
		if s.server.writes++; s.server.writes == s.server.cutAt {
			defer func() { s.dead, s.name = true, "" }()
			defer func() { err = &mail.Fault{Kind: mail.KindCut, Op: verb} }()
		}
	}
	b := s.server.boxes[s.name]
	switch verb {
	case "UID STORE":
		set, rest, _ := strings.Cut(args, " ")
		for _, uid := range parseUIDs(set) {
			if m := b.msgs[uid]; m != nil {
				flag := strings.Trim(rest[strings.IndexByte(rest, '('):], "()")
				m.flags = slices.DeleteFunc(slices.Clone(m.flags), func(f string) bool { return f == flag })
				if rest[0] == '+' {
					m.flags = append(m.flags, flag)
				}
				b.modseq++
				m.modseq = b.modseq
			}
		}
	case "EXPUNGE", "UID EXPUNGE":
		if verb == "UID EXPUNGE" && !s.Has("UIDPLUS") {
			ex.Status = "BAD"
			break
		}
		for _, uid := range b.uids() {
			if slices.Contains(b.msgs[uid].flags, `\Deleted`) && (args == "" || slices.Contains(parseUIDs(args), uid)) {
				b.expunge(uid)
			}
		}
	case "UID MOVE", "UID COPY":
		set, name, _ := strings.Cut(args, " ")
		to := s.server.boxes[strings.Trim(name, `"`)]
		if to == nil {
			ex.Status, ex.Code = "NO", "TRYCREATE"
			break
		}
		if to.readOnly {
			ex.Status, ex.Code, ex.Text = "NO", "NOPERM", "not there"
			break
		}
		var from, dest []string
		var validity, told uint64
		for _, uid := range parseUIDs(set) {
			m := b.msgs[uid]
			if m == nil {
				continue
			}
			validity, told = to.validity, uint64(to.next)
			if s.server.lies != nil {
				s.server.lies(&validity, &told)
			}
			from, dest = append(from, fmt.Sprint(uid)), append(dest, fmt.Sprint(told))
			copied := to.msgs[to.add(m.raw, slices.Clone(m.flags)...)]
			copied.date = m.date
			if verb == "UID MOVE" {
				b.expunge(uid)
			}
		}
		if !s.server.mute && len(from) > 0 {
			ex.Untagged = []string{fmt.Sprintf("OK [COPYUID %d %s %s] done", validity, strings.Join(from, ","), strings.Join(dest, ","))}
		}
	case "CREATE":
		s.server.create(ex, strings.Trim(args, `"`))
	case "DELETE":
		name := strings.Trim(args, `"`)
		if s.server.boxes[name] == nil {
			ex.Status, ex.Code = "NO", "NONEXISTENT"
			break
		}
		s.server.drop(name)
	case "SUBSCRIBE", "UNSUBSCRIBE":
		if s.server.subscribed == nil {
			s.server.subscribed = map[string]bool{}
		}
		s.server.subscribed[strings.Trim(args, `"`)] = verb == "SUBSCRIBE"
	case "NAMESPACE":
		ex.Untagged = []string{fmt.Sprintf(`NAMESPACE (("%s" "%c")) NIL NIL`, s.server.prefix, s.server.separator())}
	case "UID FETCH":
		return s.exchangeFetch(ctx, ex, args)
	default:
		ex.Status = "BAD"
	}
	return ex, nil
}

func parseUIDs(set string) (uids []imap.UID) {
	for part := range strings.SplitSeq(set, ",") {
		var a, b imap.UID
		if n, _ := fmt.Sscanf(part, "%d:%d", &a, &b); n == 1 {
			b = a
		}
		for u := a; u <= b; u++ {
			uids = append(uids, u)
		}
	}
	return uids
}

func (s *session) exchangeFetch(ctx context.Context, ex *mail.Exchange, args string) (*mail.Exchange, error) {
	var uid imap.UID
	if _, err := fmt.Sscanf(args, "%d", &uid); err != nil {
		return nil, err
	}
	item := strings.TrimSuffix(args[strings.IndexByte(args, '(')+1:], ")")
	if fields, ok := strings.CutPrefix(item, "UID BODY.PEEK[HEADER.FIELDS"); ok {
		for _, u := range parseUIDs(args[:strings.IndexByte(args, ' ')]) {
			m := s.server.boxes[s.name].msgs[u]
			if m == nil || m.fault != nil {
				continue
			}
			head, _ := splitHeader([]byte(m.raw))
			ex.Fetched = append(ex.Fetched, mail.Fetched{Message: mail.Message{UID: u}, Items: map[string]mail.Value{"BODY[HEADER.FIELDS" + fields: {Text: head}}})
		}
		return ex, nil
	}
	m := s.server.boxes[s.name].msgs[uid]
	if m == nil || m.fault == nil {
		return ex, nil
	}
	has := func(name, text string) {
		ex.Fetched = []mail.Fetched{{Message: mail.Message{UID: uid}, Items: map[string]mail.Value{name: {Text: []byte(text[:min(len(text), 1<<20)]), Size: int64(len(text))}}}}
	}
	if item == "FLAGS" && !m.fault.death {
		has(item, strings.Join(m.flags, " "))
		ex.Fetched[0].Flags = m.flags
	}
	if text, ok := m.fault.items[item]; ok {
		if m.fault.sets && strings.HasPrefix(item, "BODY[") && !slices.Contains(m.flags, `\Seen`) {
			m.flags = append(m.flags, `\Seen`)
		}
		has(strings.Replace(item, ".PEEK", "", 1), text)
		s.left = m.fault.leaves && item == "BODY[]"
	}
	if slices.Contains(m.fault.silent, item) {
		<-ctx.Done()
		s.dead, s.name = true, ""
		return &mail.Exchange{}, ctx.Err()
	}
	if m.fault.death {
		s.dead, s.name = true, ""
		return ex, &mail.Fault{Kind: mail.KindCut}
	}
	return ex, nil
}

func (s *session) Select(ctx context.Context, name string) (*mail.Selected, error) {
	if s.server.noSelect {
		return nil, &mail.Fault{Kind: mail.KindNo, Op: "SELECT", Text: "in use"}
	}
	sel, err := s.Examine(ctx, name, nil)
	if err == nil {
		sel.PermanentFlags, sel.ReadOnly = s.server.permanent, s.server.boxes[name].readOnly
	}
	return sel, err
}

func (s *session) Append(ctx context.Context, name string, uploads []mail.Upload, stored func(int, mail.Appended), then *mail.Known) ([]mail.Appended, error) {
	out, err := s.append(name, uploads, stored)
	if err == nil && then != nil && s.Has("QRESYNC") {
		if sel, err := s.Examine(ctx, name, then); err == nil && sel.Resynced {
			s.ahead, s.aheadOf = sel, name
		}
	}
	return out, err
}

func (s *session) append(name string, uploads []mail.Upload, stored func(int, mail.Appended)) ([]mail.Appended, error) {
	defer s.ask("APPEND %s %d", name, len(uploads))()
	out := make([]mail.Appended, len(uploads))
	b := s.server.boxes[name]
	tell := func(i int) {
		s.server.mu.Unlock() // who hears of it may look at the server
		stored(i, out[i])
		s.server.mu.Lock()
	}
	together := len(uploads) > 1 && !uploads[0].Alone && s.Has("MULTIAPPEND")
	if together {
		unwanted := slices.IndexFunc(uploads, func(u mail.Upload) bool { return s.server.unwanted(u) })
		for i := range out {
			if unwanted >= 0 {
				out[i] = mail.Appended{Err: &mail.Fault{Kind: mail.KindNo, Op: "APPEND", Code: "TOOBIG", Text: "too big"}, Together: true}
			}
		}
		if unwanted >= 0 {
			for _, u := range uploads[:unwanted] {
				if raw, err := os.ReadFile(u.Path); err == nil && s.server.partly {
					uid := b.add(strings.ReplaceAll(strings.ReplaceAll(string(raw), "\r\n", "\n"), "\n", "\r\n"), u.Flags...)
					b.msgs[uid].date = u.InternalDate
				}
			}
			return out, nil
		}
	}
	for i, u := range uploads {
		raw, err := os.ReadFile(u.Path)
		if err != nil {
			out[i].Err = err
			continue
		}
		f := s.server.refuses["APPEND"]
		if b.readOnly {
			f = &mail.Fault{Kind: mail.KindNo, Code: "NOPERM", Text: "not here"}
		}
		if f != nil {
			out[i].Err = f
			continue
		}
		if s.server.unwanted(u) {
			out[i].Err = &mail.Fault{Kind: mail.KindNo, Op: "APPEND", Code: "TOOBIG", Text: "too big"}
			continue
		}
		wire := strings.ReplaceAll(strings.ReplaceAll(string(raw), "\r\n", "\n"), "\n", "\r\n")
		if int64(len(wire)) != u.Size {
			return out, fmt.Errorf("%s has %d bytes, announced were %d", u.Path, len(wire), u.Size)
		}
		if s.server.dedup {
			s.server.writes++
			out[i] = mail.Appended{UIDValidity: b.validity, UID: 1}
			tell(i)
			continue
		}
		uid := b.add(wire+s.server.footer, u.Flags...)
		b.msgs[uid].date = u.InternalDate
		if s.server.footer != "" {
			b.msgs[uid].date = b.msgs[uid].date.Add(time.Hour)
		}
		if s.server.effect != nil {
			s.server.effect("APPEND")
		}
		if s.server.writes++; s.server.writes == s.server.cutAt || s.server.unheard {
			s.dead, s.name = true, ""
			err := &mail.Fault{Kind: mail.KindCut, Op: "APPEND"}
			for ; i < len(out); i++ {
				out[i].Err = err
			}
			return out, err
		}
		if !s.server.mute {
			validity, told := b.validity, uint64(uid)
			if s.server.lies != nil {
				s.server.lies(&validity, &told)
			}
			out[i] = mail.Appended{UIDValidity: validity, UID: imap.UID(told)}
		}
		tell(i)
	}
	return out, nil
}

// unwanted tells whether the server refuses a mail.
func (s *server) unwanted(u mail.Upload) bool {
	raw, err := os.ReadFile(u.Path)
	return err == nil && s.picky != "" && strings.Contains(string(raw), s.picky)
}

func (s *session) Quote(name string) string { return `"` + name + `"` }
func (s *session) Greeting() string         { return "fake" }

func (s *session) Deleted(context.Context) (out imap.UIDSet, err error) {
	defer s.ask("SEARCH DELETED")()
	if s.server.blind != nil {
		return s.server.blind, nil
	}
	s.each(everyUID(), func(u imap.UID, m *serverMail) bool {
		if slices.Contains(m.flags, `\Deleted`) {
			out.AddNum(u)
		}
		return true
	})
	return out, nil
}

// notmuch is the index as pipeline sees it: messages by id with files and tags,
// kept in one file so that it outlives a killed process.
type notmuch struct {
	mu   sync.Mutex
	path string
	fail error
	uuid string // of the database
	// refuses is what a single change of flags gives, or of a stub's words.
	refuses error
}

type indexed struct {
	Mod   uint64 // the revision at which it changed last
	Files []string
	Tags  []string
	Read  map[string]int // by key: how long the file was when it was read
}

func (m *indexed) read(path string, raw []byte) {
	if m.Read == nil {
		m.Read = map[string]int{}
	}
	key, _ := maildir.ParseName(path)
	m.Read[key] = len(raw)
}

func (x *notmuch) load() (map[string]*indexed, error) {
	db := map[string]*indexed{}
	b, err := os.ReadFile(x.path)
	if errors.Is(err, fs.ErrNotExist) {
		return db, nil
	}
	if err != nil {
		return nil, err
	}
	return db, json.Unmarshal(b, &db)
}

func (x *notmuch) Apply(_ context.Context, changes []mail.Change) ([]mail.Result, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.fail != nil {
		return nil, x.fail
	}
	db, err := x.load()
	if err != nil {
		return nil, err
	}
	byFile := func(path string) (string, *indexed) {
		for id, m := range db {
			if slices.Contains(m.Files, path) {
				return id, m
			}
		}
		return "", nil
	}
	byKey := func(path string) (string, *indexed) {
		for id, m := range db {
			if slices.ContainsFunc(m.Files, sameKey(path)) {
				return id, m
			}
		}
		return "", nil
	}
	forget := func(path string) []string {
		id, m := byFile(path)
		if m == nil {
			return nil
		}
		m.Files = slices.DeleteFunc(m.Files, func(f string) bool { return f == path })
		if len(m.Files) == 0 {
			delete(db, id)
		}
		return m.Tags
	}
	retag := func(m *indexed, add, remove []string) {
		m.Tags = slices.DeleteFunc(append(m.Tags, add...), func(t string) bool { return slices.Contains(remove, t) })
		slices.Sort(m.Tags)
		m.Tags = slices.Compact(m.Tags)
	}
	out := make([]mail.Result, len(changes))
	for i, c := range changes {
		switch c.Op {
		case mail.OpAdd, mail.OpReplace:
			raw, err := os.ReadFile(c.Path)
			if errors.Is(err, fs.ErrNotExist) {
				// As the real one: it was renamed since.
				dir := maildir.Dir(filepath.Dir(filepath.Dir(c.Path)))
				key, _ := maildir.ParseName(c.Path)
				if name, ok, e := dir.Find(key); ok && e == nil {
					c.Path = filepath.Join(string(dir), name)
					raw, err = os.ReadFile(c.Path)
				}
			}
			if err != nil {
				out[i] = mail.Result{Path: c.Path, Err: err}
				continue
			}
			id := notmuchID(raw)
			m, known := db[id]
			if !known {
				m = &indexed{}
				db[id] = m
				retag(m, c.New, nil)
			}
			if !slices.Contains(m.Files, c.Path) {
				m.Files = append(slices.DeleteFunc(m.Files, sameKey(c.Path)), c.Path)
			}
			m.read(c.Path, raw)
			if c.Op == mail.OpReplace {
				retag(m, forget(c.OldPath), nil)
			}
			retag(m, c.Add, c.Remove)
			out[i] = mail.Result{ID: id, Path: c.Path, Duplicate: known}
		case mail.OpReindex:
			raw, err := os.ReadFile(c.Path)
			if err != nil {
				return nil, err
			}
			if _, m := byKey(c.Path); m != nil {
				m.read(c.Path, raw)
			}
			out[i].Err = x.refuses
		case mail.OpFlag:
			if x.refuses != nil {
				out[i].Err = x.refuses
				continue
			}
			// As the real one: a path that the database has from before a
			// crash is found by its key.
			id, m := byKey(c.Path)
			if m == nil {
				out[i].Err = fs.ErrNotExist
				continue
			}
			retag(m, c.Add, c.Remove)
			name := maildir.WithFlags("cur/"+filepath.Base(c.Path), c.Set, c.Clear)
			to := filepath.Join(filepath.Dir(filepath.Dir(c.Path)), name)
			if err := os.Rename(c.Path, to); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			m.Files[slices.IndexFunc(m.Files, sameKey(c.Path))] = to
			out[i] = mail.Result{ID: id, Path: to}
		case mail.OpRemove:
			forget(c.Path)
			if m := db[c.ID]; m != nil {
				retag(m, c.Add, c.Remove)
			}
		}
	}
	return out, x.save(db)
}

func (x *notmuch) Changes(_ context.Context, since mail.Revision, under string) (now mail.Revision, tagged []mail.Tagged, whole bool, err error) {
	db, err := x.load()
	if err != nil {
		return now, nil, false, err
	}
	now = mail.Revision{UUID: "db" + x.uuid, N: x.revision()}
	whole = since.UUID != now.UUID
	for id, m := range db {
		if !whole && m.Mod <= since.N {
			continue
		}
		inside := func(f string) bool { return strings.HasPrefix(f, under+"/") }
		t := mail.Tagged{ID: id, Tags: m.Tags, Others: slices.DeleteFunc(slices.Clone(m.Files), inside),
			Paths: slices.DeleteFunc(slices.Clone(m.Files), func(f string) bool { return !inside(f) })}
		if len(t.Paths) > 0 {
			tagged = append(tagged, t)
		}
	}
	return now, tagged, whole, nil
}

// revision counts the changes, and is kept apart: the last message to change may
// be gone.
func (x *notmuch) revision() (n uint64) {
	b, _ := os.ReadFile(x.path + ".revision")
	_, _ = fmt.Sscan(string(b), &n)
	return n
}

// notmuchID is the id that notmuch gives a mail.
func notmuchID(raw []byte) string {
	if id := parseHeader(raw).messageID; id != "" {
		return id
	}
	return fmt.Sprintf("notmuch-sha1-%x", sha1.Sum(raw))
}

func (x *notmuch) save(db map[string]*indexed) error {
	old, err := x.load()
	if err != nil {
		return err
	}
	now := x.revision() + 1
	for id, m := range db {
		if o := old[id]; o == nil || !slices.Equal(o.Tags, m.Tags) || !slices.Equal(o.Files, m.Files) {
			m.Mod = now
		}
	}
	if err := os.WriteFile(x.path+".revision", []byte(fmt.Sprint(now)), 0o600); err != nil {
		return err
	}
	b, err := json.Marshal(db)
	if err != nil {
		return err
	}
	if err := os.WriteFile(x.path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(x.path+".new", x.path)
}

func sameKey(path string) func(string) bool {
	key, _ := maildir.ParseName(path)
	dir := filepath.Dir(filepath.Dir(path))
	return func(other string) bool {
		k, _ := maildir.ParseName(other)
		return k == key && filepath.Dir(filepath.Dir(other)) == dir
	}
}

// home is one user's local store.
type home struct {
	t      *testing.T
	dir    string
	now    time.Time
	events []Event
	index  *notmuch
	// givenUp are messages of INBOX of which nothing is to be here.
	givenUp []imap.UID
	// placeholders are messages of INBOX that a hook left on the server.
	placeholders []imap.UID
}

func newHome(t *testing.T) *home {
	t.Helper()
	dir := t.TempDir()
	return &home{t: t, dir: dir, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), index: &notmuch{path: filepath.Join(dir, "index.json")}}
}

func (h *home) options(s *server, l *ledger.Ledger) Options {
	return Options{
		Account: "work", Address: "me@example.org", Root: filepath.Join(h.dir, "mail"), Dial: s.dial, Index: h.index, Ledger: l,
		NewTags: []string{"inbox", "unread"}, Connections: 2, Timeout: 5 * time.Second,
		Now:  func() time.Time { return h.now },
		Emit: func(e Event) { h.events = append(h.events, e) },
	}
}

// sync runs one sync; change may alter its options.
func (h *home) sync(s *server, change ...func(*Options)) *Report {
	h.t.Helper()
	rep, err := h.try(s, change...)
	if err != nil {
		h.t.Fatal(err)
	}
	return rep
}

func (h *home) try(s *server, change ...func(*Options)) (*Report, error) {
	return h.tryIn(context.Background(), s, change...)
}

// tryIn is try with a context that may end.
func (h *home) tryIn(ctx context.Context, s *server, change ...func(*Options)) (*Report, error) {
	l, err := ledger.Open(context.Background(), filepath.Join(h.dir, "state"))
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			h.t.Error(err)
		}
	}()
	if err := os.MkdirAll(filepath.Join(h.dir, "mail"), 0o700); err != nil {
		h.t.Fatal(err)
	}
	o := h.options(s, l)
	for _, f := range change {
		f(&o)
	}
	h.events = nil
	s.asked = nil
	return Sync(ctx, o)
}

// files gives the mails of a mailbox's folder by name.
func (h *home) files(mailbox string) map[string]string {
	out := map[string]string{}
	for _, sub := range []string{"new", "cur"} {
		entries, err := os.ReadDir(filepath.Join(h.dir, "mail", mailbox, sub))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			h.t.Fatal(err)
		}
		for _, e := range entries {
			b, err := os.ReadFile(filepath.Join(h.dir, "mail", mailbox, sub, e.Name()))
			if err != nil {
				h.t.Fatal(err)
			}
			out[sub+"/"+e.Name()] = string(b)
		}
	}
	return out
}

// check asserts that the store holds the server's mail, each once, byte for
// byte, with its flags, indexed and recorded; that nothing lies in tmp; and that
// exactly the given messages have a stub.
func (h *home) check(s *server, stubs ...imap.UID) {
	h.t.Helper()
	db, err := h.index.load()
	if err != nil {
		h.t.Fatal(err)
	}
	paths := map[string]bool{}
	for _, m := range db {
		for _, f := range m.Files {
			paths[f] = true
			key, _ := maildir.ParseName(f)
			if raw, err := os.ReadFile(f); err == nil && m.Read[key] != len(raw) {
				h.t.Errorf("notmuch has read %d bytes of %s, which has %d", m.Read[key], f, len(raw))
			}
		}
	}
	n := 0
	for name, b := range s.boxes {
		want := map[string]int{}
		for u, m := range b.msgs {
			if !slices.Contains(stubs, u) && (name != "INBOX" || !slices.Contains(h.givenUp, u) && !slices.Contains(h.placeholders, u)) {
				want[strings.ReplaceAll(m.raw, "\r\n", "\n")+"|"+letters(m.flags)]++
			}
		}
		got := map[string]int{}
		gotStubs, gotPlaceholders := 0, 0
		for file, raw := range h.files(name) {
			n++
			if !paths[filepath.Join(h.dir, "mail", name, file)] {
				h.t.Errorf("%s/%s is not indexed", name, file)
			}
			if _, err := ReadStub(strings.NewReader(raw)); err == nil {
				if strings.Contains(raw, "\nX-Label: "+TagSkipped+"\n") {
					gotPlaceholders++
				} else {
					gotStubs++
				}
				m := db[stubID(raw)]
				if m == nil || slices.Contains(m.Tags, TagSkipped) == slices.Contains(m.Tags, TagFailed) || slices.Contains(m.Tags, TagSkipped) != strings.Contains(raw, "X-Label: "+TagSkipped) {
					h.t.Errorf("%s/%s has the tags %+v", name, file, m)
				}
				continue
			}
			_, flags := maildir.ParseName(file)
			got[raw+"|"+flags]++
		}
		if !maps.Equal(want, got) {
			h.t.Errorf("%s holds %d mails, want %d: %s", name, len(got), len(want), difference(want, got))
		}
		if name == "INBOX" && gotStubs != len(stubs) {
			h.t.Errorf("%d stubs, want %d", gotStubs, len(stubs))
		}
		if name == "INBOX" && gotPlaceholders != len(h.placeholders) {
			h.t.Errorf("%d placeholders, want %d", gotPlaceholders, len(h.placeholders))
		}
		if tmp, _ := os.ReadDir(filepath.Join(h.dir, "mail", name, "tmp")); len(tmp) > 0 {
			h.t.Errorf("%s/tmp holds %d files", name, len(tmp))
		}
	}
	if len(paths) != n {
		h.t.Errorf("notmuch knows %d files, there are %d", len(paths), n)
	}
	l, err := ledger.OpenReadOnly(context.Background(), filepath.Join(h.dir, "state"))
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for name, b := range s.boxes {
		rows, err := l.Rows(context.Background(), name, b.validity)
		if err != nil {
			h.t.Fatal(err)
		}
		if len(rows) != len(b.msgs) {
			h.t.Errorf("%s: %d rows for %d messages", name, len(rows), len(b.msgs))
		}
		for _, r := range rows {
			m := b.msgs[r.UID]
			if m == nil || !sameFlags(r.Flags, m.flags) || r.State == ledger.Intended {
				h.t.Errorf("%s UID %d: row %+v", name, r.UID, r)
			}
		}
	}
}

// stubID gives the Message-ID of a stub.
func stubID(raw string) string {
	key, _ := ReadStub(strings.NewReader(raw))
	return key.MessageID()
}

func difference(want, got map[string]int) string {
	var b bytes.Buffer
	for k, n := range want {
		if b.Len() > 1000 {
			break
		}
		if got[k] != n {
			fmt.Fprintf(&b, "\n  want %d, have %d of %.80q%s", n, got[k], k, k[strings.LastIndexByte(k, '|'):])
		}
	}
	for k, n := range got {
		if want[k] == 0 {
			fmt.Fprintf(&b, "\n  %d too many of %.80q%s", n, k, k[strings.LastIndexByte(k, '|'):])
		}
	}
	return b.String()
}
