package journal

import (
	"context"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Flagging is flags that are about to change here. A run that is killed between a
// file's new name and its record would else leave letters that look as if the user had
// set them: the next would tell the server of them, and move what another program
// marked for deletion to the Trash.
type Flagging struct {
	Mailbox     string
	UIDValidity uint64
	UID         imap.UID
	Flags       []string // as the server has them
}

// IntendFlags notes which flags are about to change here: rows have them as the server
// does.
func (j *Journal) IntendFlags(ctx context.Context, rows []ledger.Message) error {
	intents := make([]Flagging, len(rows))
	for i, row := range rows {
		intents[i] = Flagging{row.Mailbox, row.UIDValidity, row.UID, row.Flags}
	}
	return j.Flags.Set(ctx, intents)
}

// FlagsDone closes what IntendFlags opened.
func (j *Journal) FlagsDone(ctx context.Context) error { return j.Flags.Drop(ctx) }

// Told is which flags of a message the server is told of, set or taken off. It is forgotten
// when the look has recorded what became of that.
type Told struct {
	Mailbox     string   `json:"mailbox"`
	UIDValidity uint64   `json:"uidvalidity"`
	UID         imap.UID `json:"uid"`
	Flags       []string `json:"flags"`
}

// MovedBack is a file that goes back to the folder of its mailbox.
type MovedBack struct {
	From, To string // absolute
	ID       string // of its message, by notmuch
}

// Undoing is, by the mailbox and the key of its file, a mail of which something is about to be undone
// here: first its tags and letters, then where its file is. While that is under way nothing tells it
// from what its owner does, and a file that came from the attic from one that is new.
type Undoing struct {
	Mailbox     string    `json:"mailbox"` // where it is, or comes to
	UIDValidity uint64    `json:"uidvalidity,omitempty"`
	UID         imap.UID  `json:"uid,omitempty"` // 0 of what comes from the attic
	Key         string    `json:"key"`           // of its file, as which it comes
	ID          string    `json:"id"`
	Digest      string    `json:"digest,omitempty"`
	To          string    `json:"to,omitempty"` // the mailbox to whose folder it goes; "": it stays
	Add         []string  `json:"add,omitempty"`
	Remove      []string  `json:"remove,omitempty"` // tags
	Set         string    `json:"set,omitempty"`
	Clear       string    `json:"clear,omitempty"` // letters
	Kept        string    `json:"kept,omitempty"`  // its key in the attic; "": it is here
	KeptAt      time.Time `json:"kept_at,omitzero"`
	Flags       []string  `json:"flags,omitempty"` // of what comes from there
	Tags        []string  `json:"tags,omitempty"`  // that it is to have, without those of flags
	Before      []string  `json:"before,omitempty"`
	After       []string  `json:"after,omitempty"` // flags, as the log has them
	From        string    `json:"from,omitempty"`
	Subject     string    `json:"subject,omitempty"`
	Why         string    `json:"why"`
}

// Target is the mailbox to whose folder the file goes; "": it stays where it is.
func (u *Undoing) Target() string {
	if u.Kept != "" {
		return u.Mailbox
	}
	return u.To
}

// Action is that as the log has it.
func (u *Undoing) Action() mail.Action {
	return mail.Action{
		Kind: mail.ActUndo, Mailbox: u.Mailbox, UIDValidity: u.UIDValidity, UID: u.UID, Key: u.Key, ID: u.ID, Digest: u.Digest, Other: u.To,
		Before: u.Before, After: u.After, Attic: u.Kept != "", From: u.From, Subject: u.Subject, Why: u.Why,
	}
}

// Moving is the move under way out of a mailbox. While its answer has not come, and
// between COPY and EXPUNGE, the next run would take the mail for two: its file is that
// of the new message, and the original looks as if it had been deleted here.
type Moving struct {
	Mailbox     string               `json:"mailbox"`
	UIDValidity uint64               `json:"uidvalidity"`
	UIDs        []imap.UID           `json:"uids"`
	To          string               `json:"to"`
	ToValidity  uint64               `json:"to_validity"`
	ToNext      imap.UID             `json:"to_next"`        // the new messages have this UID or a higher one
	Copied      bool                 `json:"copied"`         // by COPY, and the server said so
	Verb        string               `json:"verb"`           // MOVE or COPY; "", from an older version, is COPY
	Deleted     bool                 `json:"deleted"`        // to the Trash, since they were deleted here
	Absent      []imap.UID           `json:"absent"`         // those that have no file in the mailbox's folder
	Files       map[imap.UID]Arrival `json:"files"`          // the files of those that were moved here
	At          time.Time            `json:"at,omitzero"`    // when it was asked for; zero from an older version
	Tags        map[imap.UID]Tagged  `json:"tags,omitempty"` // what is known of those that have no file there any more
	ByTags      bool                 `json:"-"`
}

// Tagged is the tags of a mail whose file is gone, and of which notmuch may have heard that by the
// next run.
type Tagged []string

// Gone is a message that is gone, with its row, while notmuch is yet to hear of it.
type Gone struct {
	ledger.Message
	Tags Tagged `json:"tags,omitempty"`
}

// Arrival is, by the key of its file, a mail that the server has taken into a mailbox in
// which it was not looked for yet. What a server says of new UIDs is looked at before it
// is believed, so that it is no row yet.
type Arrival struct {
	Row  ledger.Message `json:"row"`            // as it will be; its UID is 0 if the server did not tell it
	Next imap.UID       `json:"next"`           // it has this UID or a higher one
	From ledger.Message `json:"from"`           // the row of the message that was moved; zero for an upload
	At   time.Time      `json:"at,omitzero"`    // when an upload was last known to be under way; zero from an older version
	Here bool           `json:"here,omitempty"` // of what was here before the first sync
}

// Linking is, by the key of the new file, that a message is linked into the folder of the
// mailbox in which the server has it now: the file where it was, and this one, are of one
// message. It is forgotten with the row of where it was, or when the server has it there
// still.
type Linking struct {
	Mailbox     string   `json:"mailbox"` // where it was
	UIDValidity uint64   `json:"uidvalidity"`
	UID         imap.UID `json:"uid"`
	To          string   `json:"to"`
	ToValidity  uint64   `json:"to_validity"`
	ToUID       imap.UID `json:"to_uid"`
	ByTags      bool     `json:"by_tags,omitempty"` // we moved it there
	Gone        bool     `json:"gone,omitempty"`    // the server did not have it any more where it was
}

// Ruled is where a message goes by its tags. It is forgotten with the row of the message.
type Ruled struct {
	Mailbox     string   `json:"mailbox"`
	UIDValidity uint64   `json:"uidvalidity"`
	UID         imap.UID `json:"uid"`
	To          string   `json:"to"`
}

// Removal is a mailbox that is being deleted. Keys are the mails in the folder that the
// ledger does not know.
type Removal struct {
	Mailbox     string   `json:"mailbox"`
	Folder      string   `json:"folder,omitempty"` // here; "" if there is none
	UIDValidity uint64   `json:"uidvalidity"`
	Keys        []string `json:"keys,omitempty"`
}
