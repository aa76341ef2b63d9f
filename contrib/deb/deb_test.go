// Package deb_test makes a Debian package of this tree, and looks at it.
package deb_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// run gives what a program prints.
func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s%s", program, args, err, out, errs.String())
	}
	return strings.TrimSpace(string(out))
}

// build makes the package of a tree and gives its path.
func build(t *testing.T, tree string) string {
	t.Helper()
	lines := strings.Split(run(t, filepath.Join(tree, "contrib/deb/build"), t.TempDir()), "\n")
	return lines[len(lines)-1]
}

func TestThePackage(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a short run starts no other programs")
	}
	tree, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	// A tree elsewhere, as somebody else has it.
	other := filepath.Join(t.TempDir(), "tree")
	run(t, "cp", "-a", tree, other)
	first, second := build(t, tree), build(t, other)
	run(t, "cmp", first, second)
	if name, same := filepath.Base(first), filepath.Base(second); name != same {
		t.Errorf("the same commit is called %s and %s", name, same)
	}
	run(t, "lintian", "--allow-root", "--fail-on", "error", first)

	root := t.TempDir()
	run(t, "dpkg-deb", "--extract", first, root)
	commit := run(t, "git", "-C", tree, "rev-parse", "--short=12", "HEAD")
	if version := run(t, filepath.Join(root, "usr/bin/notmuch-imap"), "version"); !strings.Contains(version, commit) {
		t.Errorf("%q does not tell the commit %s", version, commit)
	}
	for _, name := range []string{
		"lib/systemd/user/notmuch-imap-watch.service",
		"share/bash-completion/completions/notmuch-imap",
		"share/doc/notmuch-imap/copyright",
		"share/doc/notmuch-imap/examples/notmuch-imap.muttrc",
		"share/fish/vendor_completions.d/notmuch-imap.fish",
		"share/man/man1/notmuch-imap.1.gz",
		"share/man/man5/notmuch-imap.conf.5.gz",
		"share/zsh/vendor-completions/_notmuch-imap",
	} {
		if fi, err := os.Stat(filepath.Join(root, "usr", name)); err != nil || fi.Size() == 0 {
			t.Errorf("%s: %v, or empty", name, err)
		}
	}
	if depends := run(t, "dpkg-deb", "--field", first, "Depends"); !strings.Contains(depends, "libnotmuch5") {
		t.Errorf("it depends on %q", depends)
	}
	if licences, err := os.ReadFile(filepath.Join(root, "usr/share/doc/notmuch-imap/copyright")); err != nil || !bytes.Contains(licences, []byte("github.com/emersion/go-imap/v2")) {
		t.Errorf("the licences of the modules are not there: %v", err)
	}
}
