package pipeline

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/mail"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	wire "github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
)

// StubHeader is the header field by which a stub says that it is one. Its value is
// `v=1; key=HASH.UIDVALIDITY.UID; sig=SIGNATURE`; stubs of before had no signature.
const StubHeader = "X-Notmuch-Imap-Stub"

// StubSubject is what a stub's subject begins with.
const StubSubject = "[not fetched] "

// StubKey names the message that a stub stands for. Hash is of account and
// mailbox, so that the key holds nothing that a header could break.
type StubKey struct {
	Hash        string // 16 hexadecimal digits
	UIDValidity uint64
	UID         imap.UID
}

// NewStubKey gives the key of a message.
func NewStubKey(account, mailbox string, uidValidity uint64, uid imap.UID) StubKey {
	sum := sha256.Sum256([]byte(account + "\x00" + mailbox))
	return StubKey{hex.EncodeToString(sum[:8]), uidValidity, uid}
}

// KeyOf gives the key of a row's message.
func KeyOf(account string, row ledger.Message) StubKey {
	return NewStubKey(account, row.Mailbox, row.UIDValidity, row.UID)
}

// String gives HASH.UIDVALIDITY.UID.
func (k StubKey) String() string {
	return fmt.Sprintf("%s.%d.%d", k.Hash, k.UIDValidity, k.UID)
}

// MessageID is the stub's own, without angle brackets: it threads with the real
// mail by References, and never merges with a copy of it.
func (k StubKey) MessageID() string {
	return fmt.Sprintf("%d.%d.%s%s", k.UID, k.UIDValidity, k.Hash, stubDomain)
}

const stubDomain = "@imap-stub.invalid"

// ErrNotStub says that a mail is not one of our stubs.
var ErrNotStub = errors.New("this mail is not a stub of notmuch-imap")

// claim is what a mail says of itself that looks like a stub. Anybody can send one.
type claim struct {
	key       StubKey
	signature string
	// mailed: it came by the way of mail, or does not have the Message-ID that a stub
	// of this key has.
	mailed bool
}

// claimFields are the fields that a claim is read from.
func claimFields() []string { return []string{StubHeader, "Message-ID", "Received"} }

func claimOf(h wire.Header) (claim, error) {
	_, params, err := mime.ParseMediaType("stub/x; " + h.Get(StubHeader))
	if err != nil || params["v"] != "1" {
		return claim{}, ErrNotStub
	}
	parts := strings.Split(params["key"], ".")
	if len(parts) != 3 {
		return claim{}, ErrNotStub
	}
	key, ok := parseKey(parts[0], parts[1], parts[2])
	if !ok {
		return claim{}, ErrNotStub
	}
	return claim{key, params["sig"], h.Has("Received") || h.MessageID() != key.MessageID()}, nil
}

// signature is what only who has the account's secret can say of a stub.
func signature(secret string, key StubKey) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(key.String()))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// signedBy tells whether who has the secret wrote the claim.
func (c claim) signedBy(secret string) bool {
	return secret != "" && hmac.Equal([]byte(c.signature), []byte(signature(secret, c.key)))
}

// isStub tells whether the mail at path, of whose header there are the fields of a
// claim, is one of our stubs, also if it was moved or copied. We signed it; or the
// secret of then is lost, or it is older than signatures, and the ledger has a stub of
// this key that is not at its place, or that this is a copy of.
func (r *run) isStub(ctx context.Context, h wire.Header, path string) (bool, error) {
	c, err := claimOf(h)
	if err == nil && c.signedBy(r.secret) {
		return true, nil
	}
	if err != nil || c.mailed {
		return false, nil //nolint:nilerr // then it is none
	}
	rows, err := r.Ledger.InState(ctx, ledger.Stub, ledger.GivenUp, ledger.Skipped, ledger.Deferred)
	if err != nil {
		return false, err
	}
	for _, m := range rows {
		if KeyOf(r.Account, m) != c.key || m.StubKey == "" {
			continue
		}
		place, here, err := r.fileOf(ctx, ledger.Message{Mailbox: m.Mailbox, Key: m.StubKey, Name: m.StubName})
		if err != nil || !here {
			return err == nil, err
		}
		same, err := sameBeginning(place, path)
		if errors.Is(err, fs.ErrNotExist) {
			return true, nil // renamed this moment: the next run tells
		}
		return same, err
	}
	return false, nil
}

// sameBeginning tells whether two files are the same as far as maxStubHeader.
func sameBeginning(a, b string) (bool, error) {
	var text [2][]byte
	for i, path := range []string{a, b} {
		f, err := os.Open(path)
		if err != nil {
			return false, err
		}
		text[i], err = io.ReadAll(io.LimitReader(f, maxStubHeader))
		if err := errors.Join(err, f.Close()); err != nil {
			return false, err
		}
	}
	return bytes.Equal(text[0], text[1]), nil
}

// metaSecret is where the ledger keeps the secret by which stubs are signed.
const metaSecret = "stub secret"

// readSecret reads the secret, or makes one.
func (r *run) readSecret(ctx context.Context) (err error) {
	if r.secret, err = r.Ledger.Meta(ctx, metaSecret); err != nil || r.secret != "" {
		return err
	}
	r.secret = rand.Text()
	if r.DryRun {
		return nil
	}
	if err := r.Ledger.SetMeta(ctx, metaSecret, r.secret); err != nil {
		return err
	}
	r.step("secret recorded")
	return nil
}

// maxStubHeader bounds what ReadStub reads.
const maxStubHeader = 64 << 10

// ReadStub reads the key out of a stub's header. Whether the key is true, the
// ledger knows: anybody can send a mail with such a header.
func ReadStub(r io.Reader) (StubKey, error) {
	c, err := readClaim(r)
	return c.key, err
}

func readClaim(r io.Reader) (claim, error) {
	h, err := wire.ReadHeader(io.LimitReader(r, maxStubHeader), claimFields()...)
	if err != nil && len(h) == 0 {
		return claim{}, fmt.Errorf("%w: its header cannot be read", ErrNotStub)
	}
	return claimOf(h)
}

// VerifyStub tells whether r, a mail from its beginning, can be a stub of the ledger's
// account: it is signed, or has no sign of having come by mail, as those of before
// signatures. That there is such a message, the ledger's rows say.
func VerifyStub(ctx context.Context, l *ledger.Ledger, r io.Reader) (bool, error) {
	c, err := readClaim(r)
	if err != nil {
		return false, nil //nolint:nilerr // then it is none
	}
	secret, err := l.Meta(ctx, metaSecret)
	return err == nil && (c.signedBy(secret) || !c.mailed), err
}

// ParseStubID reads the key out of a stub's own Message-ID, without angle
// brackets.
func ParseStubID(id string) (StubKey, bool) {
	id, ok := strings.CutSuffix(id, stubDomain)
	parts := strings.Split(id, ".")
	if !ok || len(parts) != 3 {
		return StubKey{}, false
	}
	return parseKey(parts[2], parts[1], parts[0])
}

func parseKey(hash, uidValidity, uid string) (StubKey, bool) {
	if _, err := hex.DecodeString(hash); err != nil || len(hash) != 16 {
		return StubKey{}, false
	}
	validity, err := strconv.ParseUint(uidValidity, 10, 64)
	if err != nil {
		return StubKey{}, false
	}
	n, err := strconv.ParseUint(uid, 10, 32)
	if err != nil || n == 0 {
		return StubKey{}, false
	}
	return StubKey{strings.ToLower(hash), validity, imap.UID(n)}, true
}

// sendStub puts a stub on the line in the message's place.
func (w *worker) sendStub(ctx context.Context, f failure, now time.Time) error {
	b := f.box
	date := f.date(now)
	s, err := b.dir.Spool(w.keys.New(now))
	if err != nil {
		return err
	}
	if _, err := s.Write(w.stub(f, now)); err != nil {
		s.Discard()
		return err
	}
	it := &item{box: b, op: opStub, spool: s, row: ledger.Message{
		Mailbox: b.Name, UIDValidity: b.now.UIDValidity, UID: f.uid,
		StubKey: s.Key(), Size: f.message.Size, WireSize: int64(f.size()), Date: date, Flags: storedFlags(f.message.Flags),
		Attempts: 1, Since: now, NextTry: retryAt(now, 1), Reason: f.reason(),
	}}
	it.add, it.remove = w.initialTags(it.row.Flags, b.add, b.remove)
	it.add = append(it.add, TagFailed)
	return w.send(ctx, it)
}

// salvagedHeader says how many bytes of the mail a stub has.
const salvagedHeader = "X-Notmuch-Imap-Salvaged"

// size is how much of the mail is known, in bytes.
func (f *failure) size() int {
	n := len(f.header) + len(f.start) + len(f.text)
	for _, p := range f.parts {
		n += len(p.data)
	}
	if f.substitute != nil {
		n += len(f.substitute.subject) + len(f.substitute.from) + len(f.substitute.sent)
	}
	return n
}

// enrich writes a stub anew if more of its mail could be had than before. The
// file keeps its name, so that nobody who looks at it loses it. WireSize of its
// row says how much of the mail notmuch has read in it: after a crash in the
// middle of this the file has more.
func (w *worker) enrich(ctx context.Context, f failure, old *ledger.Message, now time.Time) error {
	name, ok, err := f.box.find(old.StubKey, old.StubName)
	if err != nil || !ok {
		return err
	}
	had, err := salvagedSize(f.box.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // renamed or removed this moment; the next attempt looks again
	}
	if err != nil {
		return err
	}
	if size := f.size(); size > had {
		if err := w.rewrite(f, *old, name, now); err != nil {
			return err
		}
		had = size
	}
	if old.WireSize == int64(had) {
		return nil
	}
	results, err := w.Index.Apply(ctx, []wire.Change{{Op: wire.OpReindex, Path: f.box.path(name), ID: old.ID}})
	if err != nil {
		return err
	}
	w.step("stub read anew")
	if len(results) == 1 && results[0].Err != nil {
		// It stands as it is; that notmuch cannot read it costs nothing else.
		w.note(f.box, "UID %d: %v", f.uid, results[0].Err)
	}
	old.WireSize = int64(had)
	return nil
}

// rewrite puts a stub into the place of the one that is there.
func (w *worker) rewrite(f failure, old ledger.Message, name string, now time.Time) error {
	s, err := f.box.dir.Spool(w.keys.New(now))
	if err != nil {
		return err
	}
	if _, err := s.Write(w.stub(f, now)); err != nil {
		s.Discard()
		return err
	}
	s.SetTime(old.Date)
	if err := maildir.SyncAll([]*maildir.Spool{s}); err != nil {
		s.Discard()
		return err
	}
	if err := s.Replace(name); err != nil {
		s.Discard()
		return err
	}
	w.step("stub written anew")
	return nil
}

// salvagedSize reads from a stub how much of the mail it has.
func salvagedSize(path string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()                                                           //nolint:errcheck // only read
	h, _ := wire.ReadHeader(io.LimitReader(f, maxStubHeader), salvagedHeader) // what can be read of it
	n, _ := strconv.Atoi(h.Get(salvagedHeader))                               // 0: it does not say
	return n, nil
}

// dueStubs gives the UIDs of the stubs to ask for again. A stub whose file the
// user removed means: stop asking.
func (w *worker) dueStubs(ctx context.Context, b *box, gone []imap.UID) ([]imap.UID, error) {
	var uids []imap.UID
	for _, st := range b.due {
		if slices.Contains(gone, st.UID) {
			continue
		}
		_, ok, err := b.find(st.StubKey, st.StubName)
		if err != nil {
			return nil, err
		}
		if ok || w.wants(st) || waits(st) && st.StubKey == "" {
			uids = append(uids, st.UID)
			continue
		}
		st.State = ledger.GivenUp
		if err := w.Ledger.Save(ctx, st); err != nil {
			return nil, err
		}
		w.step("given up recorded")
		w.note(b, "UID %d: its stub was removed, so it is not asked for any more", st.UID)
	}
	return uids, nil
}

// date is the real mail's as far as it is known.
func (f *failure) date(now time.Time) time.Time {
	switch {
	case !f.message.InternalDate.IsZero():
		return f.message.InternalDate.UTC().Truncate(time.Second)
	case len(f.header) > 0 && !wire.ParseEnvelope(f.header).Date.IsZero():
		return wire.ParseEnvelope(f.header).Date.UTC().Truncate(time.Second)
	case f.substitute != nil && !f.substitute.date.IsZero():
		return f.substitute.date
	}
	return now
}

// reason is one plain line: what the server did, whose fault it is.
func (f *failure) reason() string {
	if f.substitute != nil {
		return "the server cannot convert this message and sends a substitute for it"
	}
	fault, ok := errors.AsType[*wire.Fault](f.err)
	if !ok {
		return "the server lists this message but does not hand it over"
	}
	switch fault.Kind {
	case wire.KindNoData:
		return "the server lists this message and says OK, but sends nothing of it"
	case wire.KindNo, wire.KindBad:
		return fmt.Sprintf("the server lists this message but refuses to send it: %q", fault.Text)
	case wire.KindCut, wire.KindBye:
		return "the server hangs up whenever this message is asked for"
	case wire.KindSilent:
		return "the server falls silent whenever this message is asked for"
	case wire.KindShort:
		return "the server breaks this message off before its end"
	default:
		return "the server's answer for this message cannot be read: " + fault.Kind.String()
	}
}

// stub writes the mail that stands in the place of one that could not be had.
func (w *worker) stub(f failure, now time.Time) []byte {
	b := f.box
	var real wire.Envelope
	if len(f.header) > 0 {
		real = wire.ParseEnvelope(f.header)
	}
	subject, from := real.Subject, real.From
	if f.substitute != nil {
		subject, from = cmp.Or(f.substitute.subject, subject), cmp.Or(f.substitute.from, from)
	}

	var m bytes.Buffer
	field := func(name, value string) { fmt.Fprintf(&m, "%s: %s\n", name, value) }
	w.stubHeader(&m, f, subject, from, real.MessageID, nil, TagFailed, now)
	attached := f.attachments()
	boundary := boundary()
	if len(attached) > 0 {
		field("Content-Type", `multipart/mixed; boundary="`+boundary+`"`)
		m.WriteString("\n--" + boundary + "\n")
	}
	field("Content-Type", "text/plain; charset=utf-8")
	field("Content-Transfer-Encoding", "8bit")
	m.WriteByte('\n')

	para := func(format string, args ...any) {
		m.WriteString(wrap(fmt.Sprintf(format, args...), 72) + "\n\n")
	}
	para("This is not the mail itself. It is a note that notmuch-imap wrote because %s.", f.reason())
	if f.substitute != nil {
		para("Exchange does so when it cannot turn what it has stored into a mail. The mail is not deleted: you may be able to read it in " +
			"Outlook or Outlook on the web, or ask its sender.")
	} else {
		para("The mail may still be readable in the provider's webmail.")
	}
	para("%s", f.blame(b))
	if f.substitute != nil || w.exchange {
		text, command := exchangeCure(w.Address)
		para("%s", text)
		m.WriteString("  " + strings.ReplaceAll(command, "\n", "\n  ") + "\n\n")
		para("It often helps. Then press ,r.")
	}

	m.WriteString("Keys on this note (they come from `notmuch imap setup mutt`)\n\n")
	m.WriteString("  ,i  look what the server says now     notmuch imap inspect\n")
	m.WriteString("  ,r  ask for it now                    notmuch imap retry\n")
	m.WriteString("  ,d  stop asking, remove this note     notmuch imap drop\n")
	m.WriteString("  ,D  delete the message on the server  notmuch imap drop --remote\n\n")

	sent := real.Fields.Get("Date")
	if f.substitute != nil {
		sent = f.substitute.sent
	}
	w.known(&m, f, subject, from, sent, real.MessageID)
	m.WriteString("What happens next\n\n")
	para("Every sync asks for it again when it is due: after 15 minutes, an hour, a day, then every week. When the mail comes it takes this " +
		"note's place and keeps your tags. When it is deleted on the server, this note goes away.")
	m.WriteString("  list all of these    notmuch search tag:" + TagFailed + "\n")
	m.WriteString("  with the details     notmuch imap stubs\n")
	m.WriteString("  stop asking for it   delete this note\n\n")
	para("Whatever you do with this note, nothing happens to the message on the server, unless you press ,D and say yes.")

	if len(attached) > 0 {
		para("What could be had of the mail is attached to this note: %s.", named(attached))
	}
	if len(f.header) > 0 && f.substitute == nil {
		m.WriteString("What could be had of it\n\n")
		indent(&m, f.header, 100)
	}
	if len(f.lines) > 0 {
		m.WriteString("The conversation with the server\n\n")
		for _, l := range f.lines {
			who := "S"
			if l.Client {
				who = "C"
			}
			fmt.Fprintf(&m, "  %s %s: %s\n", l.At.Format("15:04:05"), who, wire.OneLine(l.Text, 300))
		}
	}
	for _, a := range attached {
		fmt.Fprintf(&m, "\n--%s\n%s\n", boundary, a.head)
		m.Write(a.data)
	}
	if len(attached) > 0 {
		m.WriteString("\n--" + boundary + "--\n")
	}
	return m.Bytes()
}

// stubHeader writes what every stub's header has, but for its MIME type. id is
// the real mail's, and refs are what that refers to.
func (w *worker) stubHeader(m *bytes.Buffer, f failure, subject, from, id string, refs []string, label string, now time.Time) {
	b := f.box
	key := NewStubKey(w.Account, b.Name, b.now.UIDValidity, f.uid)
	field := func(name, value string) { fmt.Fprintf(m, "%s: %s\n", name, value) }
	field("From", w.stubFrom(from))
	field("To", mailAddress("", w.Address))
	field("Subject", mime.QEncoding.Encode("utf-8", StubSubject+cmp.Or(wire.OneLine(subject, 400), fmt.Sprintf("%s UID %d", wire.OneLine(b.Name, 100), f.uid))))
	field("Date", f.date(now).Format(time.RFC1123Z))
	field("Message-ID", "<"+key.MessageID()+">")
	if validID(id) {
		field("In-Reply-To", "<"+id+">")
		refs = append(slices.DeleteFunc(slices.Clone(refs), func(r string) bool { return !validID(r) }), id)
		field("References", "<"+strings.Join(refs, ">\n <")+">")
	}
	field("X-Label", label)
	field(StubHeader, "v=1; key="+key.String()+"; sig="+signature(w.secret, key))
	field("X-Notmuch-Imap-Account", mime.QEncoding.Encode("utf-8", wire.OneLine(w.Account, 200)))
	field("X-Notmuch-Imap-Mailbox", mime.QEncoding.Encode("utf-8", wire.OneLine(b.Name, 200)))
	field(salvagedHeader, strconv.Itoa(f.size()))
	field("Auto-Submitted", "auto-generated")
	field("MIME-Version", "1.0")
}

// known writes what is known of the real mail.
func (w *worker) known(m *bytes.Buffer, f failure, subject, from, sent, id string) {
	m.WriteString("What is known of it\n\n")
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(m, "  %-13s %s\n", name, value)
		}
	}
	row("Subject", wire.OneLine(subject, 400))
	row("From", wire.OneLine(from, 400))
	row("Sent", wire.OneLine(sent, 100))
	row("Message-ID", wire.OneLine(id, 400))
	if !f.message.InternalDate.IsZero() {
		row("Received", f.message.InternalDate.Format(time.RFC1123Z))
	}
	if f.message.Size > 0 {
		row("Size", fmt.Sprintf("%d bytes, as the server says", f.message.Size))
	}
	if f.message.Flags != nil {
		row("Flags", wire.OneLine(cmp.Or(strings.Join(f.message.Flags, " "), "none"), 400))
	}
	row("Account", wire.OneLine(w.Account, 200))
	row("Mailbox", wire.OneLine(f.box.Name, 200))
	row("UID", fmt.Sprintf("%d (UIDVALIDITY %d)", f.uid, f.box.now.UIDValidity))
	m.WriteByte('\n')
}

// blame says whose fault it is and how that was found.
func (f *failure) blame(b *box) string {
	return fmt.Sprintf("The fault is the server's, not yours and not that of the network: it was asked for UID %d "+
		"together with other messages, then alone, then for its parts one by one, and it still lists the message. "+
		"The other messages of %s are not affected.", f.uid, wire.OneLine(b.Name, 100))
}

func (w *worker) stubFrom(from string) string {
	if a, err := mail.ParseAddress(from); err == nil {
		return mailAddress(a.Name, a.Address)
	}
	if from = wire.OneLine(from, 200); from != "" {
		return mailAddress(from, "") // a name is known, an address is not
	}
	return mailAddress("notmuch-imap", w.Address)
}

// mailAddress writes an address that is always well-formed.
func mailAddress(name, address string) string {
	address = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' || strings.ContainsRune(`<>()[]\,;:"`, r) {
			return -1
		}
		return r
	}, address)
	if !strings.Contains(address, "@") {
		address = cmp.Or(address, "unknown") + "@imap-stub.invalid"
	}
	return (&mail.Address{Name: wire.OneLine(name, 200), Address: address}).String()
}

// validID tells whether a Message-ID from the server can stand in a header of
// ours.
func validID(id string) bool {
	if id == "" || len(id) > 900 || !strings.Contains(id, "@") {
		return false
	}
	return !strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' || r == '<' || r == '>' })
}

// indent writes the server's text so that it cannot be taken for a header or a
// separator of ours.
func indent(m *bytes.Buffer, text []byte, most int) {
	n := 0
	for line := range strings.Lines(string(text)) {
		if n++; n > most {
			m.WriteString("  ...\n")
			break
		}
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			m.WriteString("  " + wire.OneLine(line, 300) + "\n")
		}
	}
	m.WriteByte('\n')
}

// wrap breaks text into lines of at most width columns.
func wrap(text string, width int) string {
	var b strings.Builder
	col := 0
	for _, word := range strings.Fields(text) {
		n := len([]rune(word))
		switch {
		case col == 0:
		case col+1+n > width:
			b.WriteByte('\n')
			col = 0
		default:
			b.WriteByte(' ')
			col++
		}
		b.WriteString(word)
		col += n
	}
	return b.String()
}
