package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/oauth"
	"github.com/notmuch-imap/notmuch-imap/internal/provider"
	"github.com/notmuch-imap/notmuch-imap/internal/remote"
)

func (p *program) setupAccountCommand() *cli.Command {
	return &cli.Command{
		Name:      "account",
		Usage:     "make an account of a mail address",
		ArgsUsage: "ADDRESS",
		Description: `Finds the server of the address and says where each value comes from, asks for the password and where to keep it (where
a provider takes none, for a client of OAuth, and signs in with the help of a browser), signs in, proposes tags for the server's mailboxes, shows the lines for the configuration, adds them, and runs check. What is in the
configuration already stays as it is; after Ctrl-C or a failure nothing is left behind. Each answer can be an option instead.`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "name", Usage: "call the account `NAME`"},
			&cli.StringFlag{Name: "host", Usage: "the server is `HOST`"},
			&cli.IntFlag{Name: "port", Usage: "it listens on `PORT`"},
			&cli.StringFlag{Name: "tls", Usage: "`KIND` is implicit or starttls"},
			&cli.StringFlag{Name: "tls-pin", Usage: "trust the certificate with this `FINGERPRINT` (sha256:...)"},
			&cli.StringFlag{Name: "tls-ca-file", Usage: "trust the authorities in this PEM `FILE`, too"},
			&cli.StringFlag{Name: "user", Usage: "sign in as `USER`"},
			&cli.StringFlag{Name: "store", Usage: "keep the password in `PLACE`: keyring, pass or file; or the token of OAuth: keyring or file"},
			&cli.BoolFlag{Name: "password-stdin", Usage: "read the password for --store from standard input"},
			&cli.StringFlag{Name: "password-command", Usage: "`COMMAND` prints the password; no shell, words at blanks"},
			&cli.StringFlag{Name: "password-file", Usage: "the first line of `FILE` is the password"},
			&cli.StringFlag{Name: "client-id", Usage: "sign in by OAuth, as the client with this `ID`"},
			&cli.StringFlag{Name: "client-secret", Usage: "the client's `SECRET`, where the provider gives one"},
			&cli.StringFlag{Name: "oauth", Usage: "the `PROVIDER` of OAuth: microsoft, google or fastmail; it is known of most hosts"},
			&cli.StringFlag{Name: "tenant", Usage: "the `TENANT` of Microsoft that is signed in to"},
			&cli.StringFlag{Name: "auth-url", Usage: "another provider's `URL` of sign-ins, ..."},
			&cli.StringFlag{Name: "token-url", Usage: "... its `URL` of tokens, ..."},
			&cli.StringFlag{Name: "device-url", Usage: "... its `URL` of device codes, if it has one, ..."},
			&cli.StringSliceFlag{Name: "scope", Usage: "... and the `SCOPE` of mail; may be given several times"},
			&cli.StringFlag{Name: "mail-root", Usage: "where notmuch is not set up yet: keep mail below `DIR`"},
			&cli.BoolFlag{Name: "no-tags", Usage: "propose no tags"},
			&cli.BoolFlag{Name: "print", Usage: "print the lines, and neither sign in nor change anything"},
			&cli.BoolFlag{Name: "yes", Usage: "take every proposal, and ask nothing"},
		}, browserFlags()...),
		Action: p.setupAccount,
	}
}

// setup is an account on its way into the configuration.
type setup struct {
	*program
	c       *cli.Context
	person  *person
	file    string // the configuration
	address provider.Address
	sources map[string]string // where a value comes from
	account entry
	preset  provider.Preset
	found   provider.Server // what is known of the server; empty if that was changed
	secret  string          // as typed or read; "" if the account has a way to it
	browser string          // where it is, as the command line says
	token   *oauth.Token
	keptIn  string // where the token is to be kept
	session *remote.Session
	changed bool // the account is in the configuration
}

func (p *program) setupAccount(c *cli.Context) error {
	if c.NArg() != 1 {
		return &usageError{"setup account wants one mail address", c.Command.HelpName}
	}
	address, err := provider.ParseAddress(c.Args().First())
	if err != nil {
		return &usageError{err.Error(), c.Command.HelpName}
	}
	for _, long := range []string{"name", "host", "tls", "user"} {
		if c.IsSet(long) && c.String(long) == "" {
			return &usageError{fmt.Sprintf("--%s is given without a value", long), c.Command.HelpName}
		}
	}
	for _, f := range c.Command.Flags {
		if long := f.Names()[0]; !utf8.ValidString(c.String(long)) {
			return &usageError{fmt.Sprintf("--%s is not UTF-8", long), c.Command.HelpName}
		}
	}
	if port := c.Int("port"); c.IsSet("port") && (port < 1 || port > 65535) {
		return &usageError{fmt.Sprintf("--port %d is not between 1 and 65535", port), c.Command.HelpName}
	}
	s := &setup{program: p, c: c, address: address, sources: make(map[string]string)}
	if s.browser, err = browserGiven(c); err != nil {
		return err
	}
	if s.file, err = config.Find(c.String("config"), p.getenv); err != nil {
		return err
	}
	if c.Bool("print") {
		s.person = &person{yes: true, command: c.Command.HelpName}
	} else {
		s.person = newPerson(c.Bool("yes"), c.Command.HelpName)
	}
	defer s.person.close()
	defer s.hangUp()
	err = s.run(c.Context)
	if err != nil && c.Err() != nil && !s.changed {
		return errUnchanged
	}
	return err
}

// errUnchanged is how what was interrupted ends before it has changed anything.
var errUnchanged = errors.New("nothing was changed")

// run asks and tries everything before it changes anything.
func (s *setup) run(ctx context.Context) error {
	if err := s.name(); err != nil {
		return err
	}
	if err := s.server(ctx); err != nil {
		return err
	}
	if err := s.alone(s.same); err != nil {
		return err
	}
	if s.c.Bool("print") {
		if err := s.wayGiven(); err != nil {
			return err
		}
		if s.account.keptNowhere() {
			place := inFile
			if config.HasKeyring(ctx) {
				place = inKeyring
			}
			if err := s.keepIn(place); err != nil {
				return err
			}
		}
		if s.account.OAuth != nil {
			if err := s.client(ctx); err != nil {
				return err
			}
		}
		if _, err := s.draft(); err != nil {
			return err
		}
		_, err := io.WriteString(s.stdout, s.account.text())
		return err
	}
	notmuch, err := s.notmuch(ctx)
	if err != nil {
		return err
	}
	if err := s.password(ctx); err != nil {
		return err
	}
	if err := s.unexposed(); err != nil {
		return err
	}
	if err := s.signIn(ctx); err != nil {
		return err
	}
	if err := s.mailboxes(ctx); err != nil {
		return err
	}
	return s.write(ctx, notmuch)
}

// accounts are those of the configuration, which need not be there yet.
func (s *setup) accounts() ([]config.Account, error) { return accountsIn(s.file, s.getenv) }

// accountsIn are those of a configuration, which need not be there yet.
func accountsIn(file string, getenv func(string) string) ([]config.Account, error) {
	conf, err := config.Load(file, getenv)
	if wrong, _ := errors.AsType[config.Errors](err); errors.Is(err, os.ErrNotExist) || len(wrong) == 1 && errors.Is(err, config.ErrNoAccount) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return conf.Accounts, nil
}

func taken(accounts []config.Account, name string) bool {
	return slices.ContainsFunc(accounts, func(a config.Account) bool { return strings.EqualFold(a.Name, name) })
}

// name finds a name that no account has.
func (s *setup) name() error {
	accounts, err := s.accounts()
	if err != nil {
		return err // what is wrong there comes first
	}
	s.account.Name = s.c.String("name")
	if s.account.Name != "" {
		if taken(accounts, s.account.Name) {
			return &usageError{fmt.Sprintf("the configuration has an account %q already; give another --name", s.account.Name), s.person.command}
		}
		return nil
	}
	first, _, _ := strings.Cut(s.address.Domain, ".")
	s.account.Name = first
	for n := 2; taken(accounts, s.account.Name); n++ {
		s.account.Name = first + strconv.Itoa(n)
	}
	return s.alone(func(a *config.Account) bool { return strings.EqualFold(a.User, s.address.String()) })
}

// alone refuses to make a second account of the same mail by mistake: all of it would be
// here twice. With a name of its own it is meant.
func (s *setup) alone(same func(*config.Account) bool) error {
	accounts, err := s.accounts()
	if err != nil || s.c.String("name") != "" {
		return err
	}
	for i := range accounts {
		if a := &accounts[i]; same(a) {
			return &usageError{fmt.Sprintf("%s is there already, as account %q of %s: %s says how it is, and %s fetches its mail; nothing was changed. A second account of it, with all mail once more, wants --name",
				a.User, a.Name, s.file, s.typed(s.file, "check "+a.Name), s.typed(s.file, "sync "+a.Name)), s.person.command}
		}
	}
	return nil
}

// valid says which answer the configuration would not take, as long as there is nothing
// of the account but the command line and what was found.
func (s *setup) valid() error {
	if s.account.TLS == string(config.TLSNone) {
		return s.asOptions(config.Errors{{Key: "account.tls", Text: `"none" sends password and mail where others can read them: this makes no such account`}})
	}
	probe := s.account
	if o, err := s.clientGiven(); err == nil && o != nil && o.ClientID != "" && (o.Provider != "" || o.TokenURL != "" && len(o.Scopes) > 0) {
		probe.OAuth = o
	}
	if probe.keptNowhere() {
		probe.Keyring = true
	}
	_, err := config.NewDraft(s.file, probe.text(), s.getenv)
	return s.asOptions(err)
}

// asOptions tells what is wrong with the account's lines by the options that it came from,
// since the lines are in no file yet.
func (s *setup) asOptions(err error) error {
	wrong, _ := errors.AsType[config.Errors](err)
	var texts []string
	for _, e := range wrong {
		if e.Line > 0 || e.File != "" {
			return err // it stands in the file
		}
		text := strings.ReplaceAll(e.Text, `, "none"`, "") // this makes no such account
		key := e.Key[strings.LastIndex(e.Key, ".")+1:]
		option := strings.ReplaceAll(key, "_", "-")
		switch {
		case key == "scopes":
			option = "scope"
		case key == "provider":
			option = "oauth"
		case key == "folder": // it is called as the account
			option, text = "name", strings.TrimPrefix(text, "is needed: ")
		case e.Key == "account."+key && key != "tls" || strings.HasSuffix(key, `"`):
			option = "name"
		}
		switch {
		case s.c.IsSet(option):
			text = "--" + option + ": " + text
		case option == "name":
			text = "give --name: " + text
		default:
			text = e.Key + ": " + text
		}
		texts = append(texts, text)
	}
	if len(texts) == 0 {
		return err
	}
	return &usageError{strings.Join(texts, "; "), s.person.command}
}

// server finds the server, shows what was found, and lets it be changed.
func (s *setup) server(ctx context.Context) error {
	var found provider.Server
	if s.c.String("host") == "" {
		s.person.tell("looking for the server of " + plain(s.address.Domain) + " ...\n")
		all, err := provider.Finder{}.Find(ctx, s.address)
		if err != nil {
			return err
		}
		if len(all) > 0 {
			found = all[0]
		}
	} else {
		found = provider.Server{Host: s.c.String("host"), TLS: "implicit", Source: "the command line"}
		found.Preset, _ = provider.ByHost(found.Host)
	}
	known := found.Host != ""
	if !known {
		found = provider.Server{Host: "imap." + s.address.Domain, TLS: "implicit", Source: "a guess"}
		if !s.person.there() {
			return &usageError{"nothing is known of the server of " + s.address.Domain + "; give --host, and --port and --tls if they are unusual", s.person.command}
		}
	}
	s.preset, s.found = found.Preset, found
	s.account.Host, s.account.TLS, s.account.Port, s.account.User = found.Host, found.TLS, found.Port, found.UserName(s.address)
	for _, k := range []string{"host", "port", "tls", "user"} {
		s.sources[k] = found.Source
	}
	if s.c.String("host") != "" {
		s.sources["port"], s.sources["tls"], s.sources["user"] = "the usual one", "the usual one", "the address"
	}
	s.account.Connections = found.Preset.Connections
	s.options()
	if s.account.Port == 0 {
		s.account.Port = usualPort(s.account.TLS)
	}
	if err := s.valid(); err != nil {
		return err
	}
	if s.c.Bool("print") {
		return nil
	}
	s.show()
	right := known
	if known {
		var err error
		if right, err = s.person.agrees(ctx, "is that right?", true); err != nil {
			return err
		}
	}
	if !right {
		return s.edit(ctx)
	}
	return nil
}

// options are what the command line says.
func (s *setup) options() {
	set := func(name string, to *string) {
		if v := s.c.String(name); v != "" {
			*to, s.sources[strings.ReplaceAll(name, "-", "_")] = v, "the command line"
		}
	}
	set("tls", &s.account.TLS)
	set("user", &s.account.User)
	set("tls-pin", &s.account.Pin)
	set("tls-ca-file", &s.account.CAFile)
	if file := s.account.CAFile; file != "" && !strings.HasPrefix(file, "~/") {
		// What is typed is beside where it is typed; in the configuration it would be beside that.
		if abs, err := filepath.Abs(file); err == nil {
			s.account.CAFile = abs
		}
	}
	if s.c.IsSet("port") {
		s.account.Port, s.sources["port"] = s.c.Int("port"), "the command line"
	} else if s.c.IsSet("tls") {
		s.account.Port = usualPort(s.account.TLS)
	}
}

func usualPort(tls string) int { return map[bool]int{true: 993, false: 143}[tls == "implicit"] }

func (s *setup) show() {
	switch {
	case s.preset.Name != "":
		s.say("%s is mail of %s.", s.address, s.preset.Name)
	case s.sources["host"] == "a guess":
		s.say("Nothing is known of the server of %s. Perhaps it is:", s.address.Domain)
	}
	for _, l := range []struct{ key, value string }{
		{"host", s.account.Host}, {"port", strconv.Itoa(s.account.Port)}, {"tls", s.account.TLS}, {"user", s.account.User},
	} {
		from := s.sources[l.key]
		if site, ok := strings.CutPrefix(from, "https://"); ok {
			site, _, _ = strings.Cut(site, "/")
			from = "https://" + site // all of it is too long for a line
		}
		s.say("  %-5s %-32s (%s)", l.key, l.value, from)
	}
	if s.preset.Note != "" {
		prose(s.stdout, s.preset.Note)
	}
	if s.preset.AppPassword != "" {
		s.say("  app password: %s", s.preset.AppPassword)
	}
	if s.preset.Help != "" {
		s.say("  its help:     %s", s.preset.Help)
	}
	if f := s.found; s.preset.Name == "" && f.OAuth {
		text := "besides a password it takes"
		if f.NoPassword {
			text = "it takes no password, but"
		}
		s.say("  %s OAuth 2.0 (%s)", text, plain(f.Source))
		if f.AuthURL != "" {
			s.say("  at %s", plain(f.AuthURL))
		}
	}
}

// edit asks for each value of the server.
func (s *setup) edit(ctx context.Context) error {
	before := s.account
	a := &s.account
	again := func(format string, args ...any) error {
		s.say(format, args...)
		s.account = before // what cannot be is not proposed again
		return s.edit(ctx)
	}
	for _, q := range []struct {
		question string
		value    *string
	}{{"host", &a.Host}, {"tls, implicit or starttls", &a.TLS}, {"user", &a.User}} {
		var err error
		if *q.value, err = s.person.line(ctx, q.question, *q.value, "--"+q.question); err != nil {
			return err
		}
	}
	if a.TLS != before.TLS {
		a.Port = usualPort(a.TLS)
	}
	port, err := s.person.line(ctx, "port", strconv.Itoa(a.Port), "--port")
	if err != nil {
		return err
	}
	if a.Port, err = strconv.Atoi(port); err != nil {
		return again("%q is no port", port)
	}
	// What cannot be is told now, in the configuration's own words.
	if err := s.valid(); err != nil {
		return again("%v", err)
	}
	for _, k := range []string{"host", "port", "tls", "user"} {
		s.sources[k] = "you"
	}
	if s.preset, _ = provider.ByHost(a.Host); a.Host != s.found.Host {
		s.found = provider.Server{}
	}
	return nil
}

// same tells whether an account has the mail of this one.
func (s *setup) same(a *config.Account) bool {
	return strings.EqualFold(a.Host, s.account.Host) && a.Port == s.account.Port && strings.EqualFold(a.User, s.account.User) && len(a.Tunnel) == 0
}

// draft is the configuration as it would be.
func (s *setup) draft() (*config.Draft, error) {
	d, err := config.NewDraft(s.file, s.account.text(), s.getenv)
	return d, s.asOptions(err)
}

// account as the rest of the program sees it, from the draft.
func (s *setup) configured() (*config.Account, error) {
	d, err := s.draft()
	if err != nil {
		return nil, err
	}
	for i := range d.Config.Accounts {
		if d.Config.Accounts[i].Name == s.account.Name {
			return &d.Config.Accounts[i], nil
		}
	}
	return nil, fmt.Errorf("account %q is not in its own configuration", s.account.Name)
}

// write shows the lines, adds them with all that belongs to them, and checks the
// account.
func (s *setup) write(ctx context.Context, notmuch notmuchSetup) error {
	s.say("\nThese lines go to the end of %s:\n", s.file)
	for line := range strings.Lines(s.account.shown()) {
		s.verbatim("    " + strings.TrimRight(line, "\n"))
	}
	switch go_, err := s.person.agrees(ctx, "add them?", true); {
	case err != nil:
		return err
	case !go_:
		s.say("nothing was changed.")
		return nil
	}
	s.hangUp()
	s.session = nil
	if err := s.add(ctx, notmuch); err != nil {
		return err
	}
	s.say("%s: account %s added", s.file, s.account.Name)
	args := []string{name, "--config", s.file, "check", s.account.Name}
	if err := s.app().RunContext(ctx, args); err != nil {
		return err
	}
	s.say("\nNow: %s", s.typed(s.file, "sync "+s.account.Name))
	return nil
}

// add writes notmuch's configuration where there is none, keeps the secret, and adds
// the lines. What one step has done is undone if a later one fails. Another set-up that
// runs at the same time waits.
func (s *setup) add(ctx context.Context, notmuch notmuchSetup) (err error) {
	var undo []func()
	defer func() {
		if err == nil {
			return
		}
		for _, f := range slices.Backward(undo) {
			f()
		}
		if !strings.Contains(err.Error(), errUnchanged.Error()) {
			err = fmt.Errorf("%w; %w", err, errUnchanged)
		}
	}()
	unlock, err := config.Lock(ctx, s.file)
	if err != nil {
		return err
	}
	defer unlock()
	accounts, err := s.accounts()
	if err != nil {
		return err
	}
	if taken(accounts, s.account.Name) {
		return fmt.Errorf("the configuration has an account %q by now; nothing was changed: begin again", s.account.Name)
	}
	undoNotmuch, err := notmuch.write()
	if err != nil {
		return err
	}
	undo = append(undo, undoNotmuch)
	a, err := s.configured()
	if err != nil {
		return err
	}
	forget, err := s.store(ctx, a)
	if err != nil {
		return err
	}
	undo = append(undo, forget)
	d, err := s.draft()
	if err != nil {
		return err
	}
	if err := d.Append(); err != nil {
		return err
	}
	s.changed = true
	if notmuch.file != "" {
		s.say("%s: written, for mail below %s", notmuch.file, notmuch.root)
	}
	return nil
}
