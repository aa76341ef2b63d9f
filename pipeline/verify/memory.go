package verify

import (
	"context"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// Memory is what syncs remember of files, folders and tags: what they do about them goes by it.
type Memory struct {
	// Twins are the mailboxes of files, by key, that are of messages which have another file
	// there.
	Twins map[string]string
	// HereBefore are the mailboxes of files, by key, that were here before the first sync and
	// are sent by an upload alone, and NeverUpload those of files that are not sent again.
	HereBefore, NeverUpload map[string]string
	// Kept are the mailboxes of files, by key, of messages of an older UIDVALIDITY without a match.
	Kept map[string]string
	// HeldHere and HeldThere are the mailboxes of which deletions here, or on the server, are held
	// back until a person answers.
	HeldHere, HeldThere map[string]bool
	// Doubt says why the folder of a mailbox is not believed, by what was seen of it last, or "".
	Doubt  func(mailbox string, dir maildir.Dir) string
	TagsAt mail.Revision // up to where tags were looked at
	Rules  string        // what tags ordered then, as one word
	// Unseen tells whether what notmuch's database has of a message was not yet seen in it, since it
	// is another one than the one in which tags were agreed on: they order nothing; nil: none.
	Unseen func(known ledger.Mailbox, uid imap.UID) bool
	// OldTags gives the tags that order nothing of a file, since they were said of others.
	OldTags func(mailbox, key string) plan.OldTags
	// HeldBack judges a file of a mailbox's folder that was here before the first sync, as an upload
	// does, and gives the message that holds it back; nil: none is held.
	HeldBack func(ctx context.Context, mailbox string, dir maildir.Dir, f *plan.Untracked) (plan.Held, ledger.Message, error)
	// Note tells by these fields of a file's header whether it is a stub of which nobody knows,
	// as of another account; nil: none is.
	Note       func(mail.Header) bool
	NoteFields []string
}

// doubt is Doubt, "" if nobody has said.
func (m *Memory) doubt(mailbox string, dir maildir.Dir) string {
	if m.Doubt == nil {
		return ""
	}
	return m.Doubt(mailbox, dir)
}

// seen tells whether a message's tags may be its owner's doing.
func (m *Memory) seen(known ledger.Mailbox, uid imap.UID) bool {
	return m.Unseen == nil || !m.Unseen(known, uid)
}
