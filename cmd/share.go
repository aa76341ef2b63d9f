package cmd

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
)

// shareFlags give several runs their accounts, each to one of them.
func shareFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "accounts-from", Usage: "only the accounts that `FILE` names, one in a line; - is standard input"},
		&cli.StringFlag{Name: "shard", Usage: "only the `I/N` share of the accounts, I from 0 to N-1: each is in one of N runs, in the same one whatever others there are"},
	}
}

// share gives those of the accounts that are this run's: those of a list, where there is one,
// and its share of them.
func (p *program) share(c *cli.Context) ([]config.Account, error) {
	wrong := func(format string, args ...any) error {
		return &usageError{fmt.Sprintf(format, args...), c.Command.HelpName}
	}
	mine := func(string) bool { return true }
	if c.IsSet("shard") {
		i, n, ok := shard(c.String("shard"))
		if !ok {
			return nil, wrong("--shard %q is no share: it is I/N, with I from 0 to N-1, so that 0/4, 1/4, 2/4 and 3/4 are all", c.String("shard"))
		}
		mine = func(name string) bool { return shareOf(name, n) == i }
	}
	if !c.IsSet("accounts-from") {
		accounts, err := p.accounts(c)
		return ofThese(accounts, mine), err
	}
	if c.Args().Present() {
		return nil, wrong("accounts are named by --accounts-from or as arguments, not both")
	}
	conf, err := p.load(c)
	if err != nil {
		return nil, err
	}
	text, err := p.list(c.String("accounts-from"))
	if err != nil {
		return nil, wrong("--accounts-from: %v", err)
	}
	var names []string
	for line := range bytes.Lines(text) {
		if name := strings.TrimSpace(string(line)); name != "" && !strings.HasPrefix(name, "#") {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, nil // all accounts are not meant
	}
	accounts, err := conf.Select(names)
	if err != nil {
		return nil, wrong("--accounts-from %s: %v", c.String("accounts-from"), err)
	}
	return ofThese(accounts, mine), nil
}

// maxList bounds a list of accounts, in bytes.
const maxList = 1 << 20

// list reads a list of accounts.
func (p *program) list(file string) ([]byte, error) {
	in := p.stdin
	if file != "-" {
		f, err := os.Open(file) //nolint:gosec // the user names it
		if err != nil {
			return nil, err
		}
		defer f.Close() //nolint:errcheck // it was only read
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxList+1))
	if err == nil && len(text) > maxList {
		err = fmt.Errorf("%s is longer than any list of accounts (1 MB)", file)
	}
	return text, err
}

func ofThese(accounts []config.Account, mine func(name string) bool) []config.Account {
	var out []config.Account
	for _, a := range accounts {
		if mine(a.Name) {
			out = append(out, a)
		}
	}
	return out
}

// shard reads I/N.
func shard(text string) (i, n uint64, ok bool) {
	left, right, _ := strings.Cut(text, "/")
	i, wrongI := strconv.ParseUint(left, 10, 32)
	n, wrongN := strconv.ParseUint(right, 10, 32)
	return i, n, wrongI == nil && wrongN == nil && i < n
}

// shareOf tells in which of n shares an account is. Its name alone decides, so that no account
// changes its run when others come and go.
func shareOf(name string, n uint64) uint64 {
	sum := sha256.Sum256([]byte(name))
	return binary.BigEndian.Uint64(sum[:8]) % n
}
