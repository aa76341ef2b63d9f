// Command notmuch-imap brings the mail of IMAP accounts into Maildir and
// notmuch, and what is done with it there back to the server. Since notmuch runs
// any notmuch-NAME on the PATH as its own command, one types `notmuch imap sync`.
package main

import (
	"os"

	"github.com/notmuch-imap/notmuch-imap/cmd"
)

func main() { os.Exit(cmd.Main()) }
