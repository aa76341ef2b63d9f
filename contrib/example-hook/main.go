// Command example-hook is a hook in Go: it tags mail of mailing lists with the
// list's name. In notmuch-imap's configuration:
//
//	[[hook]]
//	name = "lists"
//	points = ["pre-write"]
//	command = ["/path/to/example-hook"]
//	mode = "stream"
package main

import (
	"context"
	"os"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/hooks"
)

func main() {
	os.Exit(hooks.Serve(hooks.Hook{
		Name: "lists", Doc: "tags mail of a mailing list with the list's name", Points: []hooks.Point{hooks.PreWrite},
		Run: func(_ context.Context, e *hooks.Event) (v hooks.Verdict, err error) {
			if list, _, ok := strings.Cut(e.ListID, "."); ok && list != "" {
				v.Add = []string{"lists/" + list}
			}
			return v, nil
		},
	}))
}
