package index

import (
	"context"
	"strings"
	"time"

	notmuch "github.com/zenhack/go.notmuch"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// stampKey begins the key, in the configuration that the database itself holds, of what an
// account has stamped it with: the stamps, behind the uuid that the database had then.
// `notmuch restore` puts that configuration into any database, and notmuch compact gives a
// database another uuid. To set it changes no message, nor the revision.
const stampKey = "notmuch-imap."

// Stamped gives the revision of the database, and the stamps that it got for an account, when
// its uuid was of; zero if there is no database.
func (x *Index) Stamped(ctx context.Context, account string) (now mail.Revision, of string, stamps []string, err error) {
	err = x.read(ctx, func(db *notmuch.DB) error {
		now.UUID, now.N = revisionOf(handle(db))
		of, stamps = "", nil
		all, err := storedConfig(db, stampKey+account)
		for _, c := range all {
			if words := strings.Fields(c.Value); c.Key == stampKey+account && len(words) > 0 {
				of, stamps = words[0], words[1:]
			}
		}
		return err
	})
	return now, of, stamps, err
}

// Stamp gives the database these stamps for an account, in the place of those that it has. done
// is false if somebody writes to it for longer than is worth waiting, this process or another, or
// there is none.
func (x *Index) Stamp(ctx context.Context, account string, stamps ...string) (done bool, err error) {
	within, cancel := context.WithTimeout(ctx, min(time.Second, x.lockWait))
	defer cancel()
	release, err := x.take(within)
	if err != nil {
		return false, ctx.Err()
	}
	defer release()
	if x.missing {
		return false, nil
	}
	if x.waitForLock(within, x.lockWait, nil) != nil || x.calm(within) != nil {
		return false, ctx.Err()
	}
	return true, x.once(notmuch.DBReadWrite, func(db *notmuch.DB) error {
		uuid, _ := revisionOf(handle(db))
		return storeConfig(db, []property{{stampKey + account, strings.Join(append([]string{uuid}, stamps...), " ")}})
	})
}

// restamp has the configuration of a database that is made of another one, with all its tags, say
// of its own stamps what that one's says of its.
func restamp(config []property, uuid string, made *notmuch.DB) {
	own, _ := revisionOf(handle(made))
	for i, c := range config {
		if stamps, is := strings.CutPrefix(c.Value, uuid+" "); is && strings.HasPrefix(c.Key, stampKey) {
			config[i].Value = own + " " + stamps
		}
	}
}
