package journal

import (
	"fmt"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
)

// Journal is the notes of one account, by kind.
type Journal struct {
	ledger *ledger.Ledger
	kinds  []Kind

	Renaming  Notes[Renaming]
	Told      Notes[Told]
	Flags     Note[[]Flagging]
	Back      Note[[]MovedBack]
	Undoing   Notes[Undoing]
	Expunge   Note[probe.Marks]
	Moving    Notes[Moving]
	Arriving  Notes[Arrival]
	Linked    Notes[Linking]
	Forgotten Notes[Gone]
	Ruled     Notes[Ruled]
	Remove    Note[Removal]

	Unsent       Notes[Unsent]
	Unavailable  Notes[Unavailable]
	Declined     Notes[Declined]
	Beside       Notes[Beside]
	TaggedUnsent Notes[TaggedUnsent]
	Standing     Notes[Standing]
	Removed      Notes[Removed]
	Old          Notes[map[string]bool]
	Refused      Note[Refusal]
	NotBefore    Note[Moment]
	LeftBy       Note[Text]
	Without      Note[Without]
	Undone       Note[Moment]

	Before      Notes[Text]
	NeverUpload Notes[Text]
	HereBefore  Notes[Text]
	Stood       Notes[Text]
	Imported    Notes[Imported]
	GoneSaid    Notes[Text]
	FolderSaid  Notes[Text]
	TwinSaid    Notes[Text]
	StaysSaid   Notes[Text]
	OddSaid     Notes[Text]
	UnkeptSaid  Notes[Text]

	Scanned   Notes[Scan]
	Uploading Notes[Since]
	Tags      Note[Revision]
	TagNames  Note[Revision]
	TagStamp  Note[Text]
	Unseen    Notes[Unseen]
	LastRun   Note[LastRun]
	Secret    Note[Text]
}

// Of gives the journal of a ledger. This is where every kind of note is declared.
func Of(l *ledger.Ledger) *Journal {
	j := &Journal{ledger: l, kinds: make([]Kind, 0, 64)} // it is made some fifty times in a run

	// Intents, in the order in which a run ends what an earlier one left of them. What
	// is to be put right here comes first, before the server is connected to, since what
	// is compared with the rows must be as the user left it: first the files are where the
	// rows say. Before the rest it is recalled what the server was told of flags.
	declare(j, &j.Renaming, "renaming/", Intent, OfMailbox, "a mailbox that has another name")
	declare(j, &j.Told, "told/", Intent, OfMessage, "flags that the server was told of")
	declare(j, &j.Flags.notes, "flags", Intent, Alone, "changed flags")
	declare(j, &j.Back.notes, "back", Intent, Alone, "files that are moved back")
	declare(j, &j.Undoing, "undoing/", Intent, OfMailboxFile, "a mail of which something is undone")
	// On the server: marks that others lost, before anything may expunge. Then the moves,
	// which say what arrives elsewhere; then what arrives and what was linked, before a
	// file that is gone from where it was may be forgotten; then what was moved by rule.
	declare(j, &j.Expunge.notes, "expunge", Intent, Alone, "an interrupted deletion")
	declare(j, &j.Moving, "moving/", Intent, OfMailbox, "an interrupted move")
	declare(j, &j.Arriving, "arriving/", Intent, OfFile, "a mail that arrives in a mailbox")
	declare(j, &j.Linked, "linked/", Intent, OfFile, "a mail that is linked into another folder")
	declare(j, &j.Forgotten, "forgotten/", Intent, OfMessage, "a mail that is gone")
	declare(j, &j.Ruled, "ruled/", Intent, OfMessage, "a move by tags")
	// When the server's mailboxes are known.
	declare(j, &j.Remove.notes, "remove", Intent, Alone, "a mailbox that is being deleted")

	// What failed.
	declare(j, &j.Unsent, "unsent/", Memory, OfMailboxFile, "new mail that the server would not take")                    // until it is sent or gone
	declare(j, &j.Unavailable, "silent/", Memory, OfWord, "a command that a mailbox lacks the answer to")                 // until it is answered, or the mailbox is gone
	declare(j, &j.Declined, "declined/", Memory, OfMessage, "what the server would not change of a message")              // until it is done, or wanted no more
	declare(j, &j.Beside, "beside/", Memory, OfMessage, "a note that stands for a mail that notmuch does not take")       // while it does not take it
	declare(j, &j.TaggedUnsent, "tagged/", Memory, OfMailboxFile, "the tag of new mail that the server would not take")   // while it is on it
	declare(j, &j.Standing, "standing/", Memory, OfWord, "a fault of a mailbox, and when it was told")                    // until a whole run does not meet it; what is held back, until it is answered or nothing of it is missing
	declare(j, &j.Removed, "removed/", Memory, OfContent, "the tags of mail that was removed here")                       // for 90 days
	declare(j, &j.Old, "old-tags/", Memory, OfMailboxFile, "tags that were there before a file")                          // until they change, or the file is gone
	declare(j, &j.Refused.notes, "sign-in refused", Memory, Alone, "refused sign-ins")                                    // until one succeeds
	declare(j, &j.NotBefore.notes, "not_before", Memory, Alone, "when the server wants to be asked again")                // until then
	declare(j, &j.LeftBy.notes, "not_before by", Memory, Alone, "how the server was reached that wants to be left alone") // until another one does
	declare(j, &j.Without.notes, "without", Memory, Alone, "what the server is asked without")                            // for 30 days, or until the server is another one

	declare(j, &j.Undone.notes, "undone", Memory, Alone, "when something was undone of which the server is yet to hear") // until a sync has told it

	// What was decided, and what was said once.
	declare(j, &j.NeverUpload, "uploaded/", Memory, OfFileIn, "a file that is not uploaded (again)")                               // while it is in its mailbox's folder
	declare(j, &j.HereBefore, "here/", Memory, OfFileIn, "a file that was here before the first sync")                             // until it is uploaded, or while it is in its mailbox's folder
	declare(j, &j.Stood, "stood/", Memory, OfFileIn, "a file that was alone here when its mailbox was taken over")                 // until it was sent, or while it is in its mailbox's folder
	declare(j, &j.Imported, "imported/", Memory, OfMailbox, "what another program remembered of a mailbox when it was taken over") // until its first sync
	declare(j, &j.Before, "before/", Always, OfFolder, "a folder that was here before the first sync")                             // until it becomes a mailbox or is deleted by our commands: where it is gone it may only be unmounted
	declare(j, &j.GoneSaid, "gone/", Memory, OfWord, "a mailbox that the server has no more")                                      // until it has it again, or the folder is gone, too
	declare(j, &j.FolderSaid, "folder/", Memory, OfFolder, "a folder that does not go to the server")                              // while there is one
	declare(j, &j.TwinSaid, "twin/", Memory, OfFileIn, "a file that the mailbox has already")                                      // while it is in the folder
	declare(j, &j.StaysSaid, "stays/", Memory, OfWord, "a flag that the server does not keep")                                     // as long as the mailbox
	declare(j, &j.OddSaid, "odd/", Memory, OfMailbox, "a mailbox whose name no command can say")                                   // while the server lists it

	declare(j, &j.UnkeptSaid, "unkept/", Memory, OfMailbox, "a mailbox whose mail has no attic to go to") // as long as the mailbox

	// Up to where both sides were compared.
	declare(j, &j.Scanned, "scanned/", Mark, OfMailbox, "the last scan of a folder")
	declare(j, &j.Uploading, "uploading/", Mark, OfMailbox, "the agreement after which we began to put mail there")
	declare(j, &j.Tags.notes, "tags", Mark, Alone, "the notmuch database whose tags the server was told")
	declare(j, &j.TagNames.notes, "tags/names", Mark, Alone, "the notmuch database whose tags the files have")
	declare(j, &j.TagStamp.notes, "tags/stamp", Mark, Alone, "the stamp of that database")
	declare(j, &j.Unseen, "tags/unseen/", Mark, OfMailbox, "mail that was not yet seen in that database")
	declare(j, &j.LastRun.notes, "last run", Mark, Alone, "how the last run went")
	declare(j, &j.Secret.notes, "stub secret", Always, Alone, "the secret by which stubs are signed")
	return j
}

func declare[T any](j *Journal, n *Notes[T], key string, life Life, form Form, what string) {
	k := Kind{Key: key, What: what, Form: form, Life: life}
	if life == Intent {
		k.Order = len(j.kinds) + 1 // they come first
	}
	n.kind, n.ledger = k, j.ledger
	j.kinds = append(j.kinds, k)
}

// About a message: what follows in the key of a note of the form OfMessage.
func About(m ledger.Message) string {
	return fmt.Sprintf("%s/%d/%d", m.Mailbox, m.UIDValidity, m.UID)
}

// AboutFile is about a file in a mailbox's folder, of the form OfMailboxFile.
func AboutFile(mailbox, key string) string { return mailbox + "/" + key }

// AboutGone is about a mailbox that the server has no more, and not about one of the same name that
// comes after it.
func AboutGone(k ledger.Mailbox) string { return AboutWord(k.UIDValidity, k.Name) }

// AboutWord is about a word of a mailbox, of the form OfWord.
func AboutWord(word any, mailbox string) string { return fmt.Sprintf("%v/%s", word, mailbox) }
