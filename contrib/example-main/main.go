// Command example-main is notmuch-imap with a hook of one's own in it: large mail
// gets a tag, whatever the configuration says.
package main

import (
	"context"
	"os"

	"github.com/notmuch-imap/notmuch-imap/cmd"
	"github.com/notmuch-imap/notmuch-imap/hooks"
)

func main() {
	os.Exit(cmd.Main(hooks.Hook{
		Name: "large", Doc: "tags mail of more than 10 MB", Points: []hooks.Point{hooks.PreWrite},
		Run: func(_ context.Context, e *hooks.Event) (v hooks.Verdict, err error) {
			if e.Size > 10_000_000 {
				v.Add = []string{"large"}
			}
			return v, nil
		},
	}))
}
