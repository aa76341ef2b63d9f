package hooks

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/mail"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Book is an address book that mail is read into.
type Book struct {
	Mailboxes Mailboxes
	File      string
	Alias     bool     // lines of Mutt's alias command; else address, name and day, by tabs
	Most      int      // addresses; those that were not met for the longest time go first
	Own       []string // mail from these tells whom the user writes to
}

// Addresses writes the senders of new mail, and whom the user writes to, into a
// file when an account's run is over. Nobody but the user can read it.
func Addresses(name string, b Book) Hook {
	c := &collector{Book: b, met: make(map[string]person), alias: regexp.MustCompile(`^alias (\S+) (?:"([^"]*)" )?<(\S+)> # ([0-9-]*)$`)}
	return Hook{
		Name: name, Doc: "writes the addresses of new mail to " + b.File, Points: []Point{PostIndex, PostSync},
		Run: b.Mailboxes.only(c.run),
		Close: func() error {
			_ = c.write() // what post-sync could not write was told then
			return nil
		},
	}
}

// person is one line of the book.
type person struct {
	address, name string
	day           string // when it was met last, as 2026-11-25
}

// collector is used by one goroutine at a time.
type collector struct {
	Book
	met   map[string]person // by address in lower case; not written yet
	alias *regexp.Regexp    // a line of that kind
}

func (c *collector) run(_ context.Context, e *Event) (Verdict, error) {
	if e.Point == PostSync {
		return Verdict{}, c.write()
	}
	h, err := headerOf(e.File)
	if err != nil {
		return Verdict{}, err
	}
	day := cmp.Or(e.Received, e.Date) // the sender's clock may be wrong
	fields := []string{"From"}
	if isOwn(e.From, c.Own) {
		fields = []string{"To", "Cc"}
	}
	for _, name := range fields {
		for _, field := range h[name] {
			for _, a := range addresses(field) {
				c.meet(a, day[:min(len(day), len(time.DateOnly))])
			}
		}
	}
	return Verdict{}, nil
}

// robots are senders to whom nobody writes.
func robots() *regexp.Regexp {
	return regexp.MustCompile(`(?i)^(.*no-?_?reply.*|.*do-?_?not-?_?reply.*|mailer-daemon|postmaster|bounces?[-+].*|.*-bounces?)@`)
}

func (c *collector) meet(a *mail.Address, day string) {
	key := strings.ToLower(a.Address)
	if !c.safe(a.Address) || robots().MatchString(key) || slices.ContainsFunc(c.Own, func(o string) bool { return strings.EqualFold(o, a.Address) }) {
		return
	}
	name := bound(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return ' '
		}
		return r
	}, a.Name), 100)
	c.met[key] = newer(c.met[key], person{a.Address, name, day})
}

// safe tells whether an address can stand in the file. Mutt runs what stands
// between backticks in a file that it sources, and expands more than that.
func (c *collector) safe(address string) bool {
	return plainAddress(address) && (!c.Alias || !strings.ContainsFunc(address, func(r rune) bool {
		return r > '~' || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("@._+=-", r)
	}))
}

// newer gives what is known of one address: the latest name that it had.
func newer(a, b person) person {
	if a.day > b.day {
		a, b = b, a
	}
	if b.name == "" || strings.EqualFold(b.name, b.address) {
		b.name = a.name
	}
	return b
}

// write merges what was met into the file.
func (c *collector) write() error {
	if len(c.met) == 0 {
		return nil
	}
	people, err := c.read()
	if err != nil {
		return err
	}
	for key, p := range c.met {
		people[key] = newer(people[key], p)
	}
	list := make([]person, 0, len(people))
	for _, p := range people {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b person) int { return cmp.Or(cmp.Compare(b.day, a.day), cmp.Compare(a.address, b.address)) })
	var text bytes.Buffer
	for _, p := range list[:min(len(list), c.Most)] {
		text.WriteString(c.line(p))
	}
	if err := replace(c.File, text.Bytes()); err != nil {
		return err
	}
	clear(c.met)
	return nil
}

// line is how a person stands in the file.
func (c *collector) line(p person) string {
	if !c.Alias {
		return p.address + "\t" + p.name + "\t" + p.day + "\n"
	}
	quoted := ""
	if p.name != "" {
		quoted = `"` + strings.NewReplacer(`\`, "", `"`, "'", "`", "'", "$", "").Replace(p.name) + `" `
	}
	return "alias " + p.address + " " + quoted + "<" + p.address + "> # " + p.day + "\n"
}

// parse is line the other way.
func (c *collector) parse(line string) (p person, ok bool) {
	if !c.Alias {
		parts := strings.Split(line, "\t")
		if len(parts) != 3 {
			return p, false
		}
		p = person{parts[0], parts[1], parts[2]}
		return p, c.safe(p.address)
	}
	m := c.alias.FindStringSubmatch(line)
	if m == nil {
		return p, false
	}
	p = person{m[3], m[2], m[4]}
	return p, m[1] == m[3] && c.safe(p.address)
}

// read gives what the file has. One that holds anything else is somebody's, and
// not to be overwritten.
func (c *collector) read() (map[string]person, error) {
	people := make(map[string]person)
	text, err := os.ReadFile(c.File)
	if errors.Is(err, fs.ErrNotExist) {
		return people, nil
	}
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		p, ok := c.parse(lines.Text())
		if !ok {
			return nil, fmt.Errorf("%s: line %d is not one of ours; nothing is written there, choose another file", c.File, n)
		}
		people[strings.ToLower(p.address)] = p
	}
	return people, lines.Err()
}

// replace writes a file as a whole, or leaves the one that is there.
func replace(file string, text []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	part, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(part.Name())
		}
	}()
	_, err = part.Write(text)
	if err = errors.Join(err, part.Sync(), part.Close()); err != nil {
		return err
	}
	return os.Rename(part.Name(), file)
}
