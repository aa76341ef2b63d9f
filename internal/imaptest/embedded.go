// Package imaptest has the servers of the demo and the tests: an embedded one
// that holds the seed's mailbox, a scripted one that can break every rule, and
// what it takes to run a real Dovecot.
package imaptest

import (
	"bytes"
	"crypto/tls"
	"errors"
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

// Server is an embedded IMAP server with imapmemserver behind it. Unless it is
// given some, it has no extension, as the seed's Exchange: neither LIST-STATUS
// nor CONDSTORE nor UIDPLUS.
type Server struct {
	Certificate *Certificate
	caps        imap.CapSet
	listener    net.Listener
	server      *imapserver.Server
	user        *imapmemserver.User
	done        chan struct{}

	mu     sync.Mutex
	broken map[place]Substitute
}

// place is where a message is. Mailbox is upper case.
type place struct {
	mailbox string
	uid     imap.UID
}

// NewServer starts a server with an empty INBOX on a port that the kernel picks.
func NewServer() (*Server, error) {
	user := imapmemserver.NewUser(User, Password)
	return start(user)
}

func start(user *imapmemserver.User, extensions ...imap.Cap) (*Server, error) {
	cert, err := NewCertificate()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	caps := imap.CapSet{imap.CapIMAP4rev1: {}}
	for _, c := range extensions {
		caps[c] = struct{}{}
	}
	s := &Server{Certificate: cert, caps: caps, listener: l, user: user, done: make(chan struct{}), broken: make(map[place]Substitute)}
	s.server = imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return &session{UserSession: imapmemserver.NewUserSession(user), server: s}, nil, nil
		},
		Caps:   caps,
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

// NewSeed starts a server that holds the seed's mailbox. The seed's own had no
// extensions; UIDPLUS and MOVE can be had.
func NewSeed(extensions ...imap.Cap) (*Server, error) {
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
	s, err := start(user, extensions...)
	if err != nil {
		return nil, err
	}
	s.broken[place{"INBOX", SeedBadUID}] = seedSubstitute()
	return s, nil
}

type literal struct {
	*bytes.Reader
	size int64
}

func (l literal) Size() int64 { return l.size }

// Heal makes the server hand out the message again.
func (s *Server) Heal(uid imap.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.broken, func(p place, _ Substitute) bool { return p.uid == uid })
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

// refusal is the answer to a change of what is only examined, which
// imapmemserver would make.
func (c *session) refusal() error {
	if c.examine {
		return &imap.Error{Type: imap.StatusResponseTypeNo, Text: "The mailbox is read-only"}
	}
	return nil
}

// lacks is the answer to a command of an extension that is not told of.
func (c *session) lacks(extension imap.Cap) error {
	if c.server.caps.Has(extension) {
		return nil
	}
	return &imap.Error{Type: imap.StatusResponseTypeBad, Text: "Unknown command"}
}

// Store changes no flag of what is only examined.
func (c *session) Store(w *imapserver.FetchWriter, set imap.NumSet, flags *imap.StoreFlags, options *imap.StoreOptions) error {
	if err := c.refusal(); err != nil {
		return err
	}
	return c.UserSession.Store(w, set, flags, options)
}

// Expunge is for EXPUNGE, UID EXPUNGE and, with nobody to write to, CLOSE.
func (c *session) Expunge(w *imapserver.ExpungeWriter, uids *imap.UIDSet) error {
	if *w == (imapserver.ExpungeWriter{}) && c.examine {
		return nil // RFC 9051 6.4.1: CLOSE then removes nothing, and that is no error
	}
	if uids != nil {
		if err := c.lacks(imap.CapUIDPlus); err != nil {
			return err
		}
	}
	if err := c.refusal(); err != nil {
		return err
	}
	return c.UserSession.Expunge(w, uids)
}

// Copy tells the new UIDs with UIDPLUS alone.
func (c *session) Copy(set imap.NumSet, name string) (*imap.CopyData, error) {
	data, err := c.copy(set, name)
	if err != nil || len(data.SourceUIDs) == 0 || c.lacks(imap.CapUIDPlus) != nil {
		return nil, err
	}
	return data, nil
}

// copy copies a broken message as a broken one.
func (c *session) copy(set imap.NumSet, name string) (*imap.CopyData, error) {
	data, err := c.UserSession.Copy(set, name)
	if err != nil {
		return nil, err
	}
	from, _ := data.SourceUIDs.Nums() // both sets are of numbers alone
	to, _ := data.DestUIDs.Nums()
	broken := c.broken()
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	for i, uid := range from {
		if sub, ok := broken[uid]; ok {
			c.server.broken[place{strings.ToUpper(name), to[i]}] = sub
		}
	}
	return data, nil
}

// Move is copy and expunge; imapmemserver's own tells each EXPUNGE twice.
func (c *session) Move(w *imapserver.MoveWriter, set imap.NumSet, name string) error {
	if err := c.lacks(imap.CapMove); err != nil {
		return err
	}
	if err := c.refusal(); err != nil {
		return err
	}
	data, err := c.copy(set, name)
	if err != nil || len(data.SourceUIDs) == 0 {
		return err
	}
	if c.lacks(imap.CapUIDPlus) == nil {
		if err := w.WriteCopyData(data); err != nil {
			return err
		}
	}
	deleted := &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagDeleted}}
	return errors.Join(c.UserSession.Store(nil, data.SourceUIDs, deleted, &imap.StoreOptions{}), c.UserSession.Expunge(nil, &data.SourceUIDs))
}

// broken gives the broken messages of the selected mailbox.
func (c *session) broken() map[imap.UID]Substitute {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	out := make(map[imap.UID]Substitute)
	for p, sub := range c.server.broken {
		if strings.EqualFold(p.mailbox, c.mailbox) {
			out[p.uid] = sub
		}
	}
	return out
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
