package plan

import (
	"strings"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Traits are what is known of a mail, by which it is told from others. Each may be missing.
type Traits struct {
	key     string       // of its file
	id      string       // its Message-ID, in the form of mail.MessageID
	named   bool         // that stood in it, and was not made up of its bytes
	sizes   [2]int64     // that it has, in bytes; zero if it has but one
	dates   [2]time.Time // from when it is; likewise
	text    mail.Digest
	written bool // they are those of a file, which is as it was written: servers may change a mail, and tell sizes that are not exact
}

// Told are the traits of a message as the server tells them.
func Told(m mail.Message) Traits {
	return Traits{id: mail.NotmuchID(m.MessageID), named: m.MessageID != "", sizes: [2]int64{m.Size}, dates: [2]time.Time{inSeconds(m.InternalDate)}}
}

// Agreed are the traits of a row's message as the server told them.
func Agreed(m *ledger.Message) Traits {
	return Traits{id: mail.NotmuchID(m.ID), named: RealID(m.ID) != "", sizes: [2]int64{m.Size}, dates: [2]time.Time{inSeconds(m.Date)}, text: m.Digest}
}

// Came are the traits of a row's file. Of one without Digest only sizes are known: the server's, and
// that which came.
func Came(m *ledger.Message) Traits {
	t := Agreed(m)
	t.key, t.sizes[1], t.dates, t.written = m.Key, m.WireSize, [2]time.Time{}, true
	return t
}

// Traits are those of a file.
func (s *Untracked) Traits() Traits {
	t := Agreed(&s.Message)
	t.key, t.dates[1], t.written = s.Key, inSeconds(s.Sent), true
	if s.Added > 0 {
		t.sizes[1] = s.Size - s.Added
	}
	return t
}

func inSeconds(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// Sign is what one of their traits says of two mails.
type Sign int

// The signs. The stronger ones are greater.
const (
	Missing Sign = iota // one of them does not have it
	Differs
	Near // it differs by what mail readers change of a mail that they save, or by how long that takes
	Equal
)

// Weight is what the traits of two mails say, each for itself.
type Weight struct {
	ID, Size, Date, Text Sign
	Nameless             bool // none of the two has a Message-ID
	oneKey, bothWritten  bool
}

// Weigh compares what is known of two mails. It is the same whichever is the first.
func Weigh(a, b Traits) Weight {
	w := Weight{
		ID: signOfIDs(a, b), Size: signOfSizes(a, b), Date: signOfDates(a, b),
		Nameless: !a.named && !b.named, oneKey: a.key != "" && a.key == b.key, bothWritten: a.written && b.written,
	}
	switch {
	case a.text.IsZero() || b.text.IsZero():
	case a.text == b.text:
		w.Text = Equal
	default:
		w.Text = Differs
	}
	return w
}

func signOfIDs(a, b Traits) Sign {
	switch {
	case a.id != "" && a.id == b.id:
		return Equal
	case a.named && b.named:
		return Differs
	}
	return Missing
}

func signOfSizes(a, b Traits) (s Sign) {
	for i, x := range a.sizes {
		for j, y := range b.sizes {
			switch {
			case (i > 0 || j > 0) && (x == 0 || y == 0):
			case x == y:
				return Equal
			case x == 0 || y == 0:
			case near(x, y):
				s = max(s, Near)
			default:
				s = max(s, Differs)
			}
		}
	}
	return s
}

func signOfDates(a, b Traits) (s Sign) {
	for _, x := range a.dates {
		for _, y := range b.dates {
			switch {
			case x.IsZero() || y.IsZero():
			case x.Equal(y):
				return Equal
			case x.Sub(y).Abs() < sentCopyWindow:
				s = max(s, Near)
			default:
				s = max(s, Differs)
			}
		}
	}
	return s
}

// maxClientSizeDrift is by how many bytes a mail reader may change a mail that it copies
// from one folder to another: Mutt writes Content-Length and Lines.
const maxClientSizeDrift = 512

// near tells whether two sizes differ by what a mail reader may change.
func near(a, b int64) bool { return max(a-b, b-a) <= maxClientSizeDrift }

// sentCopyWindow is within what time a mail that was sent is saved.
const sentCopyWindow = 10 * time.Minute

// Verdict is whether two mails are one.
type Verdict int

// The verdicts.
const (
	Open      Verdict = iota // only their texts tell
	Same                     // nothing says otherwise, and enough says so
	Different                // they contradict each other
)

// Judge tells whether two mails are one. It is the one judgement of that: what else asks which mail
// is which chooses whom to ask it of, and whose evidence goes first where several may be one.
//
// Evidence may be missing, and may not contradict. An equal Message-ID is not enough, since one mail may
// come in several copies: size or date must agree, too. Where one of the two has none, both must:
// there are servers that tell none of a header that they cannot read, that add one, and mails that
// notmuch has under a made-up one. One thing alone that differs proves nothing: there are servers whose
// sizes are not exact (Exchange), and mail with two Message-IDs.
//
// Of two files the text decides, or else the size, which must be exact unless they have one key: who edits
// a mail gives it a new one, so that under the same one something may have been added.
func Judge(a, b Traits) Verdict { return Weigh(a, b).Verdict() }

// Verdict is what follows of it.
func (w Weight) Verdict() Verdict {
	other := func(s Sign) bool { return s == Differs || s == Near }
	switch {
	case w.Text == Equal:
		return Same
	case w.bothWritten:
		return w.ofFiles()
	case w.ID == Equal: // servers may change texts
		return verdict(w.Text != Differs && (w.Size == Equal || w.Date == Equal), false)
	case w.ID == Differs:
		return verdict(false, other(w.Size) || other(w.Date))
	}
	return verdict(w.Text != Differs && w.Size == Equal && w.Date == Equal, other(w.Size) && other(w.Date))
}

// ofFiles is Verdict of two files.
func (w Weight) ofFiles() Verdict {
	switch {
	case w.Text == Differs:
		return Different
	case w.oneKey:
		return verdict(w.Size >= Near, w.Size == Differs)
	}
	return verdict(w.Size == Equal && w.ID != Differs, w.Size == Differs || w.Size == Near)
}

func verdict(same, another bool) Verdict {
	switch {
	case same:
		return Same
	case another:
		return Different
	}
	return Open
}

// Exact tells whether all agrees that a copy on the server has of its original: Message-ID, if any,
// size and date, of which one may not be known.
func (w Weight) Exact() bool {
	return (w.ID == Equal || w.Nameless) && w.Size == Equal && (w.Date == Equal || w.Date == Missing)
}

// Upheld tells whether two mails can be one of which the server says so. Servers change mails that
// they are given (Exchange), but not a Message-ID.
func (w Weight) Upheld() bool {
	switch w.ID {
	case Equal:
		return true
	case Differs:
		return false
	default:
		return w.Size >= Near && (w.Nameless || w.Date == Equal)
	}
}

// RealID gives the id that a mail has for sure; "" where it may have none. notmuch
// makes one up for mail without Message-ID, and for one that is too long.
func RealID(id string) string {
	if strings.HasPrefix(id, "notmuch-sha1-") {
		return ""
	}
	return mail.NotmuchID(id)
}

// Another tells whether the server's message cannot be the one of the row that has its UID.
func Another(row ledger.Message, m mail.Message) bool {
	return Judge(Agreed(&row), Told(m)) == Different
}
