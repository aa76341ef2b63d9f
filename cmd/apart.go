package cmd

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/takeover"
)

// apart refuses accounts whose folders below the mail root are one directory, or lie in each
// other, by a symbolic link or a mount: the mail of each would go to the other's server. What the
// names of the folders tell the configuration itself has refused.
func (p *program) apart(root string) error {
	for i, a := range p.configured {
		for _, b := range p.configured[:i] {
			x, y := filepath.Join(root, filepath.FromSlash(a.Folder)), filepath.Join(root, filepath.FromSlash(b.Folder))
			how := ""
			switch realX, realY := resolved(x), resolved(y); {
			case realX == realY || takeover.SameDirectory(x, y):
				how = "are one directory"
			case strings.HasPrefix(realX, realY+"/") || strings.HasPrefix(realY, realX+"/"):
				how = "lie in each other"
			default:
				continue
			}
			return &config.Error{Key: "account." + a.Name + ".folder", Text: fmt.Sprintf("%s and %s, the folder of account.%s, %s, by a symbolic link or a mount: "+
				"the mail of each would go to the other's server; give each account a folder of its own", x, y, b.Name, how)}
		}
	}
	return nil
}

// resolved gives a path without symbolic links, as far as it is there.
func resolved(path string) string {
	if p, err := filepath.EvalSymlinks(path); err == nil {
		return p
	}
	up := filepath.Dir(path)
	if up == path {
		return path
	}
	return filepath.Join(resolved(up), filepath.Base(path))
}
