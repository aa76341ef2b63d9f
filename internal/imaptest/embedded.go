// Package imaptest has the servers of the demo and the tests: an embedded one
// that holds the seed's mailbox, a scripted one that can break every rule, and
// what it takes to run a real Dovecot.
package imaptest

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
)

// Credentials of the embedded server.
const (
	User     = "user@example.org"
	Password = "correct horse battery staple"
)

// The seed's mailbox: what the administrator's server held on that evening.
const (
	SeedMessages    = 1233
	SeedUIDValidity = 14
	SeedUIDNext     = 16124
	SeedBadUID      = 15541
)

// Server is an embedded IMAP server with imapmemserver behind it. It has no
// extension, as the seed's Exchange: neither LIST-STATUS nor CONDSTORE nor
// UIDPLUS.
type Server struct {
	Certificate *Certificate
	listener    net.Listener
	server      *imapserver.Server
	user        *imapmemserver.User
	done        chan struct{}

	mu     sync.Mutex
	broken map[imap.UID]Substitute // of INBOX
}

// Substitute is what Exchange makes up for a message that it cannot convert.
type Substitute struct {
	Subject, From, Sent string
}

// NewServer starts a server with an empty INBOX on a port that the kernel picks.
func NewServer() (*Server, error) {
	user := imapmemserver.NewUser(User, Password)
	return start(user)
}

func start(user *imapmemserver.User) (*Server, error) {
	cert, err := NewCertificate()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{Certificate: cert, listener: l, user: user, done: make(chan struct{}), broken: make(map[imap.UID]Substitute)}
	s.server = imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return &session{UserSession: imapmemserver.NewUserSession(user), server: s}, nil, nil
		},
		Caps:   imap.CapSet{imap.CapIMAP4rev1: {}},
		Logger: log.New(io.Discard, "", 0),
	})
	go func() {
		defer close(s.done)
		_ = s.server.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert.TLS}, MinVersion: tls.VersionTLS12})) // ends with Close
	}()
	return s, nil
}

// Host and Port are where the server listens, with implicit TLS.
func (s *Server) Host() string { return "127.0.0.1" }

// Port is the one that the kernel picked.
func (s *Server) Port() int { return s.listener.Addr().(*net.TCPAddr).Port } //nolint:forcetypeassert // of a TCP listener

// Close ends the server and all of its connections.
func (s *Server) Close() error {
	err := s.server.Close()
	<-s.done
	return err
}

// NewSeed starts a server that holds the seed's mailbox.
func NewSeed() (*Server, error) {
	user := imapmemserver.NewUser(User, Password)
	// imapmemserver counts UIDVALIDITY up with each mailbox, and UIDs with each
	// message.
	for i := range SeedUIDValidity - 1 {
		name := "x" + strconv.Itoa(i)
		if err := errors.Join(user.Create(name, nil), user.Delete(name)); err != nil {
			return nil, err
		}
	}
	if err := user.Create("INBOX", nil); err != nil {
		return nil, err
	}
	wanted := seedUIDs()
	for uid := imap.UID(1); uid < SeedUIDNext; uid++ {
		raw, flags, date := []byte("\r\n"), []imap.Flag{imap.FlagDeleted}, time.Unix(0, 0)
		if i, ok := slices.BinarySearch(wanted, uid); ok {
			raw, flags, date = seedMail(i, uid)
		}
		if _, err := user.Append("INBOX", literal{bytes.NewReader(raw), int64(len(raw))}, &imap.AppendOptions{Flags: flags, Time: date}); err != nil {
			return nil, err
		}
	}
	view := imapmemserver.NewUserSession(user)
	if _, err := view.Select("INBOX", &imap.SelectOptions{}); err != nil {
		return nil, err
	}
	if err := errors.Join(view.Expunge(nil, nil), view.Close()); err != nil {
		return nil, err
	}
	if err := user.Create("Archive", nil); err != nil {
		return nil, err
	}
	s, err := start(user)
	if err != nil {
		return nil, err
	}
	s.broken[SeedBadUID] = Substitute{Subject: "Minutes of the meeting on Tuesday", From: "Jane Doe", Sent: "11/1/2013 8:00:00 PM"}
	return s, nil
}

type literal struct {
	*bytes.Reader
	size int64
}

func (l literal) Size() int64 { return l.size }

// seedUIDs gives the 1233 UIDs, ascending: those that the seed names stand at
// the sequence numbers that it names.
func seedUIDs() []imap.UID {
	named := []imap.UID{15500, 15507, 15514, 15516, 15523, SeedBadUID, 15544, 15545, 15553, 15561, 15562} // sequence numbers 1040..1050
	var out []imap.UID
	for seq := range 1039 {
		out = append(out, imap.UID(1+seq*14)) // up to 14533
	}
	out = append(out, named...)
	for seq := len(out); seq < SeedMessages; seq++ {
		out = append(out, imap.UID(15563+(seq-1050)*3)) // up to 16109
	}
	return out
}

// seedMail makes the mail at place i: threads, lists, charsets, some read.
func seedMail(i int, uid imap.UID) ([]byte, []imap.Flag, time.Time) {
	date := time.Date(2013, 1, 1, 8, 0, 0, 0, time.UTC).Add(time.Duration(i) * 7 * time.Hour)
	people := []string{"Anna Berg <anna@example.org>", "=?utf-8?q?J=C3=BCrgen_Gro=C3=9F?= <juergen@example.net>", "Build <build@ci.example.com>", "Zoë <zoe@example.org>"}
	topics := []string{"Minutes", "=?utf-8?b?w4RuZGVydW5nZW4=?= am Vertrag", "Lunch on Friday", "nightly build failed", "Re: offer"}
	topic := topics[i/5%len(topics)]
	var b strings.Builder
	from, subject := people[i%len(people)], fmt.Sprintf("%s (%d)", topic, i/5)
	if uid == SeedBadUID {
		from, subject = "Jane Doe <jane@example.org>", "Minutes of the meeting on Tuesday"
	}
	fmt.Fprintf(&b, "From: %s\r\nTo: %s\r\nSubject: %s\r\nDate: %s\r\nMessage-ID: <seed-%d@example.org>\r\n",
		from, User, subject, date.Format(time.RFC1123Z), uid)
	if i%5 != 0 {
		fmt.Fprintf(&b, "In-Reply-To: <seed-thread-%d@example.org>\r\nReferences: <seed-thread-%d@example.org>\r\n", i/5, i/5)
	}
	fmt.Fprintf(&b, "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nMail number %d.\r\n%s",
		i+1, strings.Repeat("A line of text, as people write them — now and then with an ü.\r\n", 3+i%40))
	flags := []imap.Flag{imap.FlagSeen}
	switch {
	case i > SeedMessages-20, uid == SeedBadUID:
		flags = nil
	case i%50 == 0:
		flags = append(flags, imap.FlagFlagged)
	case i%9 == 0:
		flags = append(flags, imap.FlagAnswered)
	}
	return []byte(b.String()), flags, date
}

// Heal makes the server hand out the message again.
func (s *Server) Heal(uid imap.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.broken, uid)
}

// Append puts a mail into a mailbox, and makes the mailbox if need be.
func (s *Server) Append(mailbox string, raw []byte, date time.Time, flags ...imap.Flag) (imap.UID, error) {
	_ = s.user.Create(mailbox, nil) // it may be there
	data, err := s.user.Append(mailbox, literal{bytes.NewReader(raw), int64(len(raw))}, &imap.AppendOptions{Flags: flags, Time: date})
	if err != nil {
		return 0, err
	}
	return data.UID, nil
}

// session is one connection. It hands out everything but the broken messages.
type session struct {
	*imapmemserver.UserSession
	server  *Server
	mailbox string
	examine bool
}

func (c *session) Select(name string, options *imap.SelectOptions) (*imap.SelectData, error) {
	data, err := c.UserSession.Select(name, options)
	if err != nil {
		return nil, err
	}
	c.mailbox, c.examine = name, options.ReadOnly
	// No \*: the seed's Exchange takes no keywords but one.
	data.PermanentFlags = []imap.Flag{imap.FlagSeen, imap.FlagAnswered, imap.FlagFlagged, imap.FlagDeleted, imap.FlagDraft, "$MDNSent"}
	return data, nil
}

// Fetch leaves broken messages to themselves, and does not mark as seen what is
// only examined (RFC 9051 6.3.3), which imapmemserver would.
func (c *session) Fetch(w *imapserver.FetchWriter, set imap.NumSet, options *imap.FetchOptions) error {
	safe := *options
	if c.examine {
		safe.BodySection = nil
		for _, b := range options.BodySection {
			peek := *b
			peek.Peek = true
			safe.BodySection = append(safe.BodySection, &peek)
		}
	}
	for uid, sub := range c.broken() {
		seq, err := c.seq(uid)
		if err != nil {
			return err
		}
		rest, named := without(set, seq, uid)
		if !named {
			continue
		}
		taken, err := c.fetchBroken(w, seq, uid, sub, options)
		if err != nil {
			return err
		}
		if !taken {
			continue
		}
		if set = rest; rest == nil {
			return nil
		}
	}
	return c.UserSession.Fetch(w, set, &safe)
}

// broken gives the broken messages of the selected mailbox.
func (c *session) broken() map[imap.UID]Substitute {
	if !strings.EqualFold(c.mailbox, "INBOX") {
		return nil
	}
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	return maps.Clone(c.server.broken)
}

// seq gives a message's sequence number; 0 if it is gone.
func (c *session) seq(uid imap.UID) (uint32, error) {
	data, err := c.Search(imapserver.NumKindSeq, &imap.SearchCriteria{UID: []imap.UIDSet{imap.UIDSetNum(uid)}}, &imap.SearchOptions{})
	if err != nil {
		return 0, err
	}
	return data.Max, nil
}

// without takes one message out of a set of either kind, and tells whether it
// was in it. Rest is nil if nothing else was.
func without(set imap.NumSet, seq uint32, uid imap.UID) (rest imap.NumSet, named bool) {
	switch set := set.(type) {
	case imap.UIDSet:
		var out imap.UIDSet
		for _, r := range set {
			pieces, in := cut(uint32(r.Start), uint32(r.Stop), uint32(uid))
			named = named || in
			for _, p := range pieces {
				out = append(out, imap.UIDRange{Start: imap.UID(p[0]), Stop: imap.UID(p[1])})
			}
		}
		if len(out) > 0 {
			return out, named
		}
	case imap.SeqSet:
		var out imap.SeqSet
		for _, r := range set {
			pieces, in := cut(r.Start, r.Stop, seq)
			named = named || in
			for _, p := range pieces {
				out = append(out, imap.SeqRange{Start: p[0], Stop: p[1]})
			}
		}
		if len(out) > 0 {
			return out, named
		}
	}
	return nil, named
}

// cut takes n out of a range; a stop of 0 is `*`.
func cut(start, stop, n uint32) (pieces [][2]uint32, in bool) {
	if n == 0 || start == 0 || n < start || stop != 0 && n > stop {
		return [][2]uint32{{start, stop}}, false
	}
	if n > start {
		pieces = append(pieces, [2]uint32{start, n - 1})
	}
	if stop == 0 || n < stop {
		pieces = append(pieces, [2]uint32{n + 1, stop})
	}
	return pieces, true
}

// fetchBroken answers as the seed's Exchange did in its transcripts a02 to a04.
// taken is false for what it answers as for any other message.
func (c *session) fetchBroken(w *imapserver.FetchWriter, seq uint32, uid imap.UID, sub Substitute, options *imap.FetchOptions) (taken bool, err error) {
	if len(options.BodySection) == 0 && options.BodyStructure == nil && !options.RFC822Size && !options.Envelope {
		return false, nil // flags and dates
	}
	if options.RFC822Size && len(options.BodySection) > 0 || len(options.BodySection) > 1 {
		return true, nil // OK, and nothing
	}
	write := func(f func(*imapserver.FetchResponseWriter) error) (bool, error) {
		m := w.CreateMessage(seq)
		m.WriteUID(uid)
		return true, errors.Join(f(m), m.Close())
	}
	if options.BodyStructure != nil {
		return write(func(m *imapserver.FetchResponseWriter) error {
			one := &imap.BodyStructureSinglePart{Type: "text", Subtype: "plain", Params: map[string]string{"charset": "iso-8859-1"}, Encoding: "quoted-printable", Size: 1, Text: &imap.BodyStructureText{NumLines: 1}}
			if options.BodyStructure.Extended {
				one.Extended = &imap.BodyStructureSinglePartExt{}
			}
			m.WriteBodyStructure(one)
			return nil
		})
	}
	if len(options.BodySection) == 0 {
		return true, nil
	}
	section := options.BodySection[0]
	fields := slices.Collect(func(yield func(string) bool) {
		for _, f := range section.HeaderFields {
			if !yield(strings.ToLower(f)) {
				return
			}
		}
	})
	slices.Sort(fields)
	var body string
	switch {
	case slices.Equal(fields, []string{"from", "subject"}):
		body = sub.header(uid) + "\r\n"
	case !section.Peek && section.Specifier == imap.PartSpecifierNone && len(section.Part) == 0:
		body = sub.mail(uid)
	default:
		return true, nil
	}
	return write(func(m *imapserver.FetchResponseWriter) error {
		lw := m.WriteBodySection(section, int64(len(body)))
		_, err := io.WriteString(lw, body)
		return errors.Join(err, lw.Close())
	})
}

func (s Substitute) header(uid imap.UID) string {
	return fmt.Sprintf("From: Microsoft Exchange Server 2010\r\nSubject: Retrieval using the IMAP4 protocol failed for the following\r\n message: %d\r\n", uid)
}

// mail is the substitute as Exchange words it (OfflineIMAP#62).
func (s Substitute) mail(uid imap.UID) string {
	return s.header(uid) + "To: " + User + "\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=\"iso-8859-1\"\r\n" +
		"Content-Transfer-Encoding: quoted-printable\r\n\r\n" +
		"The server couldn't retrieve the following message:\r\n\r\n" +
		fmt.Sprintf("Subject: \"%s\"\r\nFrom: \"%s\"\r\nSent date: %s\r\n\r\n", s.Subject, s.From, s.Sent) +
		"The message hasn't been deleted. You might be able to view it using either =\r\nOutlook or Outlook Web App. " +
		"You can also contact the sender to find out what=\r\n the message says.\r\n"
}
