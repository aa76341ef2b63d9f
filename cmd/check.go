package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/index"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/internal/provider"
	"github.com/notmuch-imap/notmuch-imap/internal/remote"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

func (p *program) checkCommand() *cli.Command {
	return &cli.Command{
		Name:      "check",
		Usage:     "verify accounts, and say what each of them costs",
		ArgsUsage: "[ACCOUNT]...",
		Description: `Goes the way of a sync without changing anything: configuration, notmuch, password, connection, sign-in, what
the server can do and what it costs where it cannot, mailboxes and their folders. Each line is ok, warn or fail; status 1 means that one is fail.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line for each finding"},
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "list every mailbox and its folder"},
		},
		Action: p.check,
	}
}

// level says how well a check went.
type level string

const (
	levelOK   level = "ok"
	levelWarn level = "warn"
	levelFail level = "fail"
)

// finding is one line of a check.
type finding struct {
	Level   level  `json:"level"`
	Account string `json:"account,omitempty"`
	Check   string `json:"check"`
	Text    string `json:"text"`
	Do      string `json:"do,omitempty"` // what to do about it
}

// checker collects findings while it shows them.
type checker struct {
	p       *program
	json    bool
	verbose bool
	colour  bool
	failed  bool
	account string
	file    string // the configuration
}

func (c *checker) tell(l level, check, do, format string, args ...any) {
	f := finding{l, c.account, check, inLine(fmt.Sprintf(format, args...)), do}
	c.failed = c.failed || l == levelFail
	if c.json {
		fmt.Fprintln(c.p.stdout, jsonLine(f)) //nolint:errcheck // a closed standard output ends the process by SIGPIPE
		return
	}
	where := f.Check
	if f.Account != "" {
		where = f.Account + ": " + where
	}
	const marks = 6 // columns: the level and a blank
	text := fold(fmt.Sprintf("%-*s%s: %s", marks, f.Level, plain(where), plain(f.Text)), columns(c.p.stdout), marks)
	if code := map[level]string{levelOK: "32", levelWarn: "33", levelFail: "31"}[l]; c.colour {
		text = "\x1b[" + code + "m" + text[:len(f.Level)] + "\x1b[0m" + text[len(f.Level):]
	}
	if f.Do != "" {
		text += "\n" + fold(fmt.Sprintf("%*s-> %s", marks, "", plain(f.Do)), columns(c.p.stdout), len("-> "))
	}
	fmt.Fprintln(c.p.stdout, text) //nolint:errcheck // as above
}

func (c *checker) ok(check, format string, args ...any) { c.tell(levelOK, check, "", format, args...) }

func (c *checker) warn(check, do, format string, args ...any) {
	c.tell(levelWarn, check, do, format, args...)
}

func (c *checker) fail(check, do string, err error) { c.tell(levelFail, check, do, "%v", err) }

func (p *program) check(cc *cli.Context) error {
	ctx := cc.Context
	accounts, err := p.accounts(cc)
	if err != nil {
		return err
	}
	c := &checker{p: p, json: cc.Bool("json"), verbose: cc.Bool("verbose"), colour: p.colour(p.stdout)}
	if file, err := config.Find(cc.String("config"), p.getenv); err == nil {
		c.file = file
		switch exposed := config.Exposed(file); {
		case exposed != nil && slices.ContainsFunc(accounts, func(a config.Account) bool { return a.OAuth != nil && a.OAuth.ClientSecret != "" }):
			c.warn("configuration", "", "it has a client secret, but %v", exposed)
		default:
			c.ok("configuration", "%s", file)
		}
	}
	idx, root := c.notmuch(ctx, accounts)
	if idx != nil && len(accounts) > 0 {
		c.hooks(accounts[0].Hooks, idx, accounts)
	}
	keys := p.newSecrets(nil)
	for i := range accounts {
		c.account = accounts[i].Name
		if idx != nil {
			if entry := idx.Ignores(accounts[i].Folder); entry != "" {
				c.warn("folder", "take it out: notmuch config get new.ignore", "new.ignore has %q: `notmuch new` leaves the account's folder out, with what other programs put there", entry)
			}
		}
		if idx != nil && len(accounts[i].Keywords) > 0 && !accounts[i].ReadOnly {
			c.keywords(ctx, &accounts[i], idx)
		}
		c.local(ctx, &accounts[i], root)
		c.server(ctx, &accounts[i], keys, root)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if c.failed {
		return errTold
	}
	return nil
}

// keywords says which tags stay here, though the configuration sends them to the server.
func (c *checker) keywords(ctx context.Context, a *config.Account, idx *index.Index) {
	tags, err := idx.AllTags(ctx)
	if err != nil {
		return // that the database cannot be read was said
	}
	t := plan.Tags{Keywords: a.Keywords, DeletedTag: a.DeletedTag}
	for _, m := range a.Moves {
		t.OrderTags = append(t.OrderTags, m.With, m.Without)
	}
	for _, tag := range t.Unspeakable(tags) {
		c.warn("keywords", fmt.Sprintf("notmuch tag +NEW -- tag:%s", strconv.Quote(tag)), "the tag %q stays here: a keyword has no blank, no letter beyond ASCII and none of (){%%*\"\\]", tag)
	}
}

// notmuch looks at the database and gives it and the mail root; nil and "" if
// there is none.
func (c *checker) notmuch(ctx context.Context, accounts []config.Account) (*index.Index, string) {
	idx, err := index.Open(ctx, index.Options{Existing: true, Note: func(text string) { c.warn("notmuch", "", "%s", text) }})
	if err != nil {
		c.fail("notmuch", "", err)
		return nil, ""
	}
	had, err := c.p.synchronised(ctx, accounts)
	switch {
	case err != nil:
		c.fail("notmuch", "", err)
	case idx.Missing() && had:
		c.fail("notmuch", "", errDatabaseGone)
	case idx.Missing():
		c.ok("notmuch", "there is no database yet; the first sync makes it")
	default:
		c.ok("notmuch", "the database is %s", idx.DatabasePath())
	}
	root := idx.MailRoot()
	if err := writable(root); err != nil {
		c.fail("mail root", "notmuch config get database.mail_root says where it is", err)
	} else {
		c.ok("mail root", "%s", root)
	}
	c.ok("new.tags", "%s", either(strings.Join(idx.NewTags(), " "), "none"))
	if idx.SyncFlags() {
		c.ok("maildir.synchronize_flags", "true: tags such as unread and flagged go into the names of the files")
	} else {
		c.warn("maildir.synchronize_flags", "notmuch config set maildir.synchronize_flags true",
			"false: what the server says becomes tags and file names, but what you tag stays in notmuch alone")
	}
	hook := filepath.Join(idx.HookDir(), "pre-new")
	switch text, err := os.ReadFile(hook); {
	case err == nil && strings.Contains(string(text), name):
		c.ok("notmuch new", "%s synchronises first", hook)
	default:
		c.ok("notmuch new", "does not synchronise first; for that: %s", c.p.typed(c.file, "setup hooks"))
	}
	return idx, root
}

// writable tells why no mail can be put into a directory.
func writable(dir string) error {
	if st, err := os.Stat(dir); err != nil {
		return err
	} else if !st.IsDir() {
		return fmt.Errorf("%s is no directory", dir)
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("%s cannot be written to: %w", dir, err)
	}
	return nil
}

// local looks at the account's folder and state.
func (c *checker) local(ctx context.Context, a *config.Account, root string) {
	if root != "" {
		folder := filepath.Join(root, filepath.FromSlash(a.Folder))
		switch err := writable(folder); {
		case err == nil:
			c.ok("folder", "%s", folder)
		case errors.Is(err, os.ErrNotExist):
			c.ok("folder", "%s will be made by the first sync", folder)
		default:
			c.fail("folder", "", err)
		}
	}
	dir, err := a.StateDir(c.p.getenv)
	if err != nil {
		c.fail("state", "", err)
		return
	}
	if why := noAttic(a, dir, root); root != "" && why != "" {
		c.warn("attic", "attic_days = 0 says that none is wanted", "what a sync removes here since it is gone on the server is not kept: %s", why)
	}
	l, err := ledger.OpenReadOnly(ctx, dir)
	if errors.Is(err, ledger.ErrNotExist) {
		c.ok("state", "%s: nothing was synchronised yet", dir)
		return
	}
	if err != nil {
		c.fail("state", "", err)
		return
	}
	boxes, err := l.Mailboxes(ctx)
	stubs, err2 := l.InState(ctx, ledger.Stub)
	if err := errors.Join(err, err2, l.Close()); err != nil {
		c.fail("state", "", err)
		return
	}
	text := dir + ": " + mail.Number(len(boxes), "mailbox", "mailboxes")
	if len(stubs) > 0 {
		text += fmt.Sprintf(", %s that could not be fetched (%s stubs)", mail.Number(len(stubs), "message", "messages"), name)
	}
	c.ok("state", "%s", text)
	switch err := ledger.Busy(dir); {
	case errors.Is(err, ledger.ErrBusy):
		c.warn("lock", "", "%v; until it is done a second sync is refused", err)
	case err != nil:
		c.fail("state", "", err)
	}
}

// server signs in and looks around.
func (c *checker) server(ctx context.Context, a *config.Account, keys *secrets, root string) {
	switch {
	case a.OAuth != nil:
		if !c.token(ctx, a, keys) {
			return
		}
	case a.HasPassword() && a.Auth != "external":
		if _, err := keys.password(ctx, a); err != nil {
			c.fail("password", "", err)
			return
		}
		way := "the system's keyring"
		switch {
		case len(a.PasswordCommand) > 0:
			way = "password_command " + a.PasswordCommand[0]
		case a.PasswordFile != "":
			way = a.PasswordFile
		}
		c.ok("password", "had from %s", way)
	}
	o, err := remoteOptions(a, keys)
	if err != nil {
		c.fail("tls", "", err)
		return
	}
	alerts := make(map[string]bool) // there are servers that say it with each answer
	o.Alert = func(text string) {
		if !alerts[text] && len(alerts) < maxAlerts {
			alerts[text] = true
			c.warn("alert", "", "the server says: %s", text)
		}
	}
	begin := time.Now()
	s, err := remote.Dial(ctx, o)
	if err != nil {
		c.fail("sign-in", signInAdvice(a, err), err)
		return
	}
	defer s.Close() //nolint:errcheck // its work is done
	if err := c.p.signedIn(ctx, a); err != nil {
		c.fail("state", "", err)
	}
	c.ok("sign-in", "as %s at %s, in %v", a.User, a.Where(), time.Since(begin).Round(time.Millisecond))
	if a.TLSLegacy {
		c.warn("tls", "ask the server's operator for TLS 1.2, and take tls_legacy out", "tls_legacy: old TLS is allowed, which who listens on the way may be able to read, now or later")
	}
	if a.TLS == config.TLSNone && len(a.Tunnel) == 0 {
		c.warn("tls", `set tls = "implicit" or "starttls" if the server has it`, "none: password and mail go over the network for everybody to read")
	}
	for _, e := range extensions() {
		if s.Has(e.name) || a.ReadOnly && (e.name == "UIDPLUS" || e.name == "MOVE") {
			continue // it is for changes
		}
		why := "no " + e.name
		for _, d := range a.Disable {
			if d == e.name {
				why = e.name + " is switched off by disable_extensions"
			}
		}
		c.tell(e.level, "server", "", "%s: %s", why, e.cost)
	}
	boxes, err := s.List(ctx, mail.Listing{Skip: func(m mail.Mailbox) bool { return !a.Selects(m.Name, m.Delim) }})
	if f, ok := errors.AsType[*mail.Fault](err); ok && f.Mailbox != "" {
		c.fail("mailboxes", "a sync leaves out what does not answer", fmt.Errorf("%s: %w", f.Mailbox, err))
		return
	}
	if err != nil {
		c.fail("mailboxes", "", err)
		return
	}
	preset, _ := provider.ByHost(a.Host)
	c.provider(a, preset, boxes)
	if s.Has("X-GM-EXT-1") {
		c.gmail(a, boxes)
	}
	c.mailboxes(a, boxes, root)
	c.changes(ctx, a, s, boxes)
}

// changes looks whether what is done here can be done on the server, and opens INBOX as
// a sync would.
func (c *checker) changes(ctx context.Context, a *config.Account, s *remote.Session, boxes []mail.Mailbox) {
	if i := slices.IndexFunc(boxes, func(m mail.Mailbox) bool { return m.Name == "INBOX" && m.Status != nil }); i >= 0 && a.Selects("INBOX", boxes[i].Delim) {
		open := func() (*mail.Selected, error) { return s.Examine(ctx, "INBOX", nil) }
		if len(a.Keywords) > 0 && !a.ReadOnly {
			open = func() (*mail.Selected, error) { return s.Select(ctx, "INBOX") } // EXAMINE may tell of no flags to keep
		}
		switch sel, err := open(); {
		case err != nil:
			c.fail("mailbox", "a sync leaves it out, too", fmt.Errorf("INBOX cannot be opened: %w", err))
			return
		case len(a.Keywords) > 0 && !a.ReadOnly && sel.PermanentFlags != nil && !slices.Contains(sel.PermanentFlags, `\*`):
			c.warn("keywords", "take keywords out of the configuration", "the server keeps no keywords in INBOX: tags do not go there")
		}
	}
	if a.ReadOnly || a.Deletions != "trash" {
		return
	}
	there := func(m mail.Mailbox) bool { return m.IsCalled(a.Trash) }
	switch trash := mail.TrashOf(a.Trash, boxes); {
	case a.Trash != "" && !slices.ContainsFunc(boxes, there):
		c.warn("trash", "name one that is there, or leave trash out", "there is no mailbox %q: what is deleted here stays on the server", a.Trash)
	case a.Trash == "" && trash == "":
		c.warn("trash", `trash = "..." names it; or deletions = "expunge" or "keep"`, "no mailbox is the Trash: what is deleted here stays on the server")
	default:
		c.ok("trash", "what is deleted here goes to %s on the server", trash)
	}
}

// extension is a server extension that is used where there is one.
type extension struct {
	name  string
	level level
	cost  string // of not having it
}

func extensions() []extension {
	return []extension{
		{"LIST-STATUS", levelWarn, "every sync asks for the state of each mailbox singly, though all at once"},
		{"CONDSTORE", levelWarn, "every sync reads the flags of every message, since the server does not say which changed"},
		{"QRESYNC", levelOK, "where messages were deleted, a mailbox's whole list of messages is read"},
		{"ESEARCH", levelOK, "lists of messages come in long form"},
		{"UIDPLUS", levelWarn, "a message can be removed from the server only while no other one is marked as deleted there"},
		{"MOVE", levelOK, "a message is moved on the server by copying it and deleting it, in more commands"},
	}
}

// mailboxes shows what is selected, and finds patterns that match nothing.
func (c *checker) mailboxes(a *config.Account, boxes []mail.Mailbox, root string) {
	selected, messages := 0, uint64(0)
	matches := func(pattern string) bool {
		for _, m := range boxes {
			if config.Match(pattern, m.Name, m.Delim) {
				return true
			}
		}
		return false
	}
	type line struct{ box, folder string }
	var lines []line
	for _, m := range boxes {
		if !a.Selects(m.Name, m.Delim) {
			continue
		}
		if m.Err != nil {
			c.warn("mailbox", "it is left out; the others are not affected", "%s: %v", m.Name, m.Err)
			continue
		}
		if m.Status == nil {
			continue // holds mailboxes, no mail
		}
		folder, err := maildir.Layout(a.Layout).Folder(m.Name, m.Delim)
		if err != nil {
			c.warn("mailbox", "rename it on the server, or leave it out with mailboxes", "%s: %v", m.Name, err)
			continue
		}
		selected++
		messages += uint64(m.Status.Messages)
		lines = append(lines, line{fmt.Sprintf("%s (%s)", m.Name, mail.Number(int(m.Status.Messages), "message", "messages")), filepath.Join(root, a.Folder, folder)})
	}
	if selected == 0 {
		c.tell(levelFail, "mailboxes", "see mailboxes in the configuration", "none of the server's %d is selected", len(boxes))
	} else {
		c.ok("mailboxes", "%d of the server's %d, with %s", selected, len(boxes), mail.Number(int(messages), "message", "messages")) //nolint:gosec // it fits
	}
	for i, l := range lines {
		if !c.verbose && !c.json && i == mostMailboxes {
			c.ok("mailbox", "... and %d more; --verbose lists them all", len(lines)-i)
			break
		}
		c.ok("mailbox", "%s -> %s", l.box, l.folder)
	}
	for _, pattern := range a.Mailboxes {
		if bare := strings.TrimPrefix(pattern, "!"); !matches(bare) {
			c.warn("mailboxes", delimiter(pattern, boxes), "the pattern %q matches no mailbox", pattern)
		}
	}
	for _, r := range a.Moves {
		if !matches(r.From) {
			c.warn("moves", delimiter(r.From, boxes), "there is no mailbox %q to move mail from", r.From)
		}
	}
	for _, r := range a.Tags {
		if !matches(r.Pattern) {
			c.warn("tags", delimiter(r.Pattern, boxes), "the pattern %q matches no mailbox", r.Pattern)
		}
	}
}

// mostMailboxes is how many a check lists without --verbose.
const mostMailboxes = 20

// delimiter tells how the server writes its hierarchy, if the pattern may have
// it wrong.
func delimiter(pattern string, boxes []mail.Mailbox) string {
	for _, m := range boxes {
		if m.Delim != 0 && strings.ContainsAny(strings.ReplaceAll(pattern, string(m.Delim), ""), `/.\`) {
			return fmt.Sprintf("the server writes a mailbox in another as A%cB", m.Delim)
		}
	}
	return ""
}

// advice says what to look at when a sign-in fails.
func advice(err error) string {
	f, ok := errors.AsType[*mail.Fault](err)
	if !ok {
		return ""
	}
	if f.Do != "" {
		return f.Do
	}
	switch f.Kind {
	case mail.KindNotConnected:
		return "the usual causes: wrong password, no permission for this mailbox, too many connections"
	case mail.KindThrottled:
		return "wait for that long"
	}
	return ""
}

func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
