package takeover

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// MbsyncConfig is a configuration of mbsync.
type MbsyncConfig struct {
	file, home string
	delimiter  string // FieldDelimiter
	global     mbsyncSection
	accounts   map[string]mbsyncSection
	stores     map[string]*mbsyncStore
	channels   []*mbsyncChannel
}

// mbsyncSection has values by lower-case keyword.
type mbsyncSection map[string][]string

func (s mbsyncSection) get(key string) string {
	if len(s[key]) == 0 {
		return ""
	}
	return s[key][0]
}

// inGroup is the key, which is no keyword, by which the section of a group is known.
const inGroup = " group"

type mbsyncStore struct {
	mbsyncSection
	name    string
	maildir bool
}

type mbsyncChannel struct {
	mbsyncSection
	name            string
	far, near       *mbsyncStore // nil if there is no such store
	farBox, nearBox string
	patterns        bool
}

// ReadMbsyncConfig reads an .mbsyncrc. home is what ~ stands for.
func ReadMbsyncConfig(file, home string) (*MbsyncConfig, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	c := &MbsyncConfig{file: file, home: home, delimiter: ":", global: mbsyncSection{}, accounts: make(map[string]mbsyncSection), stores: make(map[string]*mbsyncStore)}
	section := c.global
	in := bufio.NewScanner(f)
	in.Buffer(nil, maxConfig)
	for n := 1; in.Scan(); n++ {
		line := in.Text()
		if n == 1 {
			line = strings.TrimPrefix(line, "\ufeff") // as some editors begin a file
		}
		words, err := mbsyncWords(line)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s:%d: %w", file, n, err)
		case strings.TrimSpace(line) == "":
			section = c.global
			continue
		case len(words) == 0:
			continue
		}
		key, args := strings.ToLower(words[0]), words[1:]
		name := strings.Join(args[:min(len(args), 1)], "")
		switch key {
		case "imapaccount":
			section = mbsyncSection{}
			c.accounts[name] = section
		case "imapstore", "maildirstore":
			s := &mbsyncStore{mbsyncSection: mbsyncSection{}, name: name, maildir: key == "maildirstore"}
			section, c.stores[name] = s.mbsyncSection, s
		case "channel":
			if _, group := section[inGroup]; group {
				continue // it is one of the group's
			}
			ch := &mbsyncChannel{mbsyncSection: mbsyncSection{}, name: name}
			section, c.channels = ch.mbsyncSection, append(c.channels, ch)
		case "group":
			section = mbsyncSection{inGroup: {name}}
		default:
			if key == "pattern" {
				key = "patterns"
			}
			section[key] = append(section[key], args...)
		}
	}
	if err := in.Err(); err != nil {
		return nil, err
	}
	c.delimiter = cmp.Or(c.global.get("fielddelimiter"), c.delimiter)
	for _, ch := range c.channels {
		ch.patterns = len(ch.mbsyncSection["patterns"]) > 0
		ch.far, ch.farBox = c.end(ch.mbsyncSection, "far", "master")
		ch.near, ch.nearBox = c.end(ch.mbsyncSection, "near", "slave")
	}
	if len(c.stores)+len(c.channels) == 0 {
		return nil, fmt.Errorf("%s: it has neither stores nor channels, as an .mbsyncrc has", file)
	}
	return c, nil
}

// end gives a channel's store and mailbox, as `:store:mailbox` has them.
func (c *MbsyncConfig) end(s mbsyncSection, keys ...string) (*mbsyncStore, string) {
	for _, k := range keys {
		if store, box, ok := strings.Cut(strings.TrimPrefix(s.get(k), ":"), ":"); ok {
			return c.stores[store], box
		}
	}
	return nil, ""
}

// mbsyncWords splits a line: words, or strings in quotes, in which a backslash escapes.
func mbsyncWords(line string) (words []string, err error) {
	var word strings.Builder
	in, quoted := false, false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quoted && c == '\\' && i+1 < len(line):
			i++
			word.WriteByte(line[i])
		case c == '"':
			quoted, in = !quoted, true
		case !quoted && (c == ' ' || c == '\t' || c == '\r'):
			if in {
				words, in = append(words, word.String()), false
				word.Reset()
			}
		case !quoted && !in && c == '#':
			return words, nil
		default:
			in = true
			word.WriteByte(c)
		}
	}
	if quoted {
		return nil, errors.New("a quote has no end")
	}
	if in {
		words = append(words, word.String())
	}
	return words, nil
}

// path gives a local path of a store, "" if it has none; a slash at its end stays.
func (c *MbsyncConfig) path(s string) string { return absolute(s, c.home, c.home+"/x") }

func (c *MbsyncConfig) inbox(near *mbsyncStore) string {
	return strings.TrimRight(c.path(cmp.Or(near.get("inbox"), "~/Maildir")), "/")
}

// mbsyncGroup is what the channels between two stores have together.
type mbsyncGroup struct {
	far, near *mbsyncStore
	channels  []*mbsyncChannel
	root      string // absolute path of the directory that its Maildirs are in
}

// groups gives the channels between servers and Maildirs.
func (c *MbsyncConfig) groups() (out []*mbsyncGroup) {
	for _, ch := range c.channels {
		if ch.far == nil || ch.near == nil || ch.far.maildir || !ch.near.maildir {
			continue
		}
		i := slices.IndexFunc(out, func(g *mbsyncGroup) bool { return g.far == ch.far && g.near == ch.near })
		if i < 0 {
			i = len(out)
			out = append(out, &mbsyncGroup{far: ch.far, near: ch.near})
		}
		out[i].channels = append(out[i].channels, ch)
	}
	for _, g := range out {
		path := c.path(g.near.get("path"))
		if path == "" {
			g.root = c.inbox(g.near)
			continue
		}
		// Several servers may have a directory each below one Path.
		within, first, inbox := "", true, false
		for _, ch := range g.channels {
			if near, single := ch.nearName(cmp.Or(ch.farBox, "INBOX")); single && !ch.patterns && near == "INBOX" {
				inbox = true // it is where Inbox says
				continue
			}
			dir := ch.nearBox[:strings.LastIndexByte(ch.nearBox, '/')+1]
			for !first && !strings.HasPrefix(dir, within) {
				within = within[:strings.LastIndexByte(strings.TrimSuffix(within, "/"), '/')+1]
			}
			if first {
				within, first = dir, false
			}
		}
		g.root = filepath.Dir(path + within + "x")
		alone := !slices.ContainsFunc(out, func(o *mbsyncGroup) bool { return o != g && o.near == g.near })
		for inbox && alone && within != "" && !isBelow(g.root, c.inbox(g.near)) {
			within = within[:strings.LastIndexByte(strings.TrimSuffix(within, "/"), '/')+1]
			g.root = filepath.Dir(path + within + "x")
		}
	}
	return out
}

// isBelow tells whether a path is in a directory.
func isBelow(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// MbsyncPlace is where mbsync may have a mailbox, and what it remembers of it.
type MbsyncPlace struct {
	Folder string // absolute path
	States []string
}

// Places gives where mbsync has a mailbox of the server of a proposal.
func (c *MbsyncConfig) Places(of *Proposal, mailbox string, delim rune) (out []MbsyncPlace) {
	for _, ch := range c.channelsOf(of) {
		for _, far := range farNames(ch.far, mailbox, delim) {
			near, ok := ch.nearName(far)
			if !ok {
				continue
			}
			for _, spell := range []func(string) string{func(s string) string { return s }, mail.EncodeName} {
				if folder := c.folder(ch.near, spell(near)); folder != "" {
					out = append(out, MbsyncPlace{folder, c.states(ch, spell(far), spell(near))})
				}
			}
		}
	}
	return out
}

// channelsOf are those of a proposal.
func (c *MbsyncConfig) channelsOf(of *Proposal) (out []*mbsyncChannel) {
	for _, g := range c.groups() {
		if g.name() == of.Name && g.root == of.Root {
			out = append(out, g.channels...)
		}
	}
	return out
}

// nearName gives what a channel calls a mailbox of the far side on the near one.
func (ch *mbsyncChannel) nearName(far string) (string, bool) {
	if ch.patterns {
		rest, ok := strings.CutPrefix(far, ch.farBox)
		return ch.nearBox + rest, ok
	}
	return cmp.Or(ch.nearBox, "INBOX"), far == cmp.Or(ch.farBox, "INBOX") || mail.EncodeName(far) == ch.farBox
}

func (g *mbsyncGroup) name() string { return cmp.Or(g.far.get("account"), g.far.name) }

// farNames are what a mailbox of the server may be called in a store, with slashes.
func farNames(far *mbsyncStore, mailbox string, delim rune) (out []string) {
	slashes := func(s string) string { return strings.Join(Levels(s, delim), "/") }
	if mailbox == "INBOX" {
		out = append(out, "INBOX")
		if as := far.get("mapinbox"); as != "" {
			out = append(out, as)
		}
		return out
	}
	if path := far.get("path"); path != "" {
		if rest, ok := strings.CutPrefix(slashes(mailbox), slashes(path)); ok && rest != "" {
			out = append(out, rest)
		}
		return out
	}
	out = append(out, slashes(mailbox))
	if rest, ok := strings.CutPrefix(mailbox, "INBOX"+string(delim)); ok && delim != 0 {
		out = append(out, slashes(rest)) // the server's own NAMESPACE
	}
	return out
}

// folder is where a store has a mailbox.
func (c *MbsyncConfig) folder(near *mbsyncStore, box string) string {
	if box == "INBOX" {
		return c.inbox(near)
	}
	if as := near.get("mapinbox"); as != "" && box == as {
		return c.inbox(near)
	}
	path := c.path(near.get("path"))
	if flat := near.get("flatten"); flat != "" {
		return path + strings.ReplaceAll(box, "/", flat)
	}
	sub, below := strings.CutPrefix(box, "INBOX/")
	switch style := strings.ToLower(near.get("subfolders")); {
	case style == "maildir++" && below:
		return c.inbox(near) + "/.." + strings.ReplaceAll(sub, "/", ".")
	case style == "maildir++":
		return c.inbox(near) + "/." + strings.ReplaceAll(box, "/", ".")
	case style == "legacy" && below:
		return c.inbox(near) + "/." + strings.ReplaceAll(sub, "/", "/.")
	case style == "legacy":
		return path + strings.ReplaceAll(box, "/", "/.")
	case below:
		return c.inbox(near) + "/" + sub
	case path == "":
		return ""
	}
	return path + box
}

// states are the files that may be the state of a channel's mailbox, beside that in the folder.
func (c *MbsyncConfig) states(ch *mbsyncChannel, far, near string) (out []string) {
	clean := func(s string) string { return strings.ReplaceAll(s, "/", "!") }
	if flat := ch.near.get("flatten"); flat != "" {
		near = strings.ReplaceAll(near, "/", flat)
	}
	prefixes, own := c.statePrefixes(ch)
	for _, p := range prefixes {
		if own {
			out = append(out, p+clean(near))
		} else {
			out = append(out, p+clean(far)+c.statesBetween(ch)+clean(near))
		}
	}
	return out
}

// StatesAt gives the states that are called by a folder, by its absolute path: it has that name
// still when the mailbox was renamed on the server, or deleted.
func (c *MbsyncConfig) StatesAt(of *Proposal, folder string) (out []string) {
	is := func(near *mbsyncStore, box string) bool {
		dir := c.folder(near, box)
		return dir != "" && SameDirectory(dir, folder)
	}
	for _, ch := range c.channelsOf(of) {
		prefixes, own := c.statePrefixes(ch)
		for _, p := range prefixes {
			for file, name := range stateFiles(p) {
				_, near, ok := strings.Cut(name, c.statesBetween(ch))
				if own {
					near, ok = name, true
				}
				if ok && (is(ch.near, strings.ReplaceAll(near, "!", "/")) || is(ch.near, near)) {
					out = append(out, file)
				}
			}
		}
	}
	return out
}

// statePrefixes are how the paths of a channel's states may begin; own ones have the name of the
// near mailbox behind that alone.
func (c *MbsyncConfig) statePrefixes(ch *mbsyncChannel) (out []string, own bool) {
	of := func(prefix string) (prefixes []string) {
		prefix = expandHome(prefix, c.home)
		if filepath.IsAbs(prefix) {
			return []string{prefix}
		}
		// From where mbsync was run, or from where its configuration is.
		return []string{c.home + "/" + prefix, filepath.Dir(c.file) + "/" + prefix}
	}
	switch own := ch.get("syncstate"); own {
	case "":
	case "*":
		return nil, true
	default:
		return of(own), true
	}
	prefixes := []string{"~/.local/state/isync/", "~/.mbsync/"}
	switch global := c.global.get("syncstate"); global {
	case "*":
		return nil, false
	case "":
	default:
		prefixes = []string{global}
	}
	for _, prefix := range prefixes {
		for _, p := range of(prefix) {
			out = append(out, p+c.delimiter+ch.far.name+c.delimiter)
		}
	}
	return out, false
}

// statesBetween is what stands between the two mailboxes in the name of a state.
func (c *MbsyncConfig) statesBetween(ch *mbsyncChannel) string {
	return "_" + c.delimiter + ch.near.name + c.delimiter
}

// Proposals gives the accounts: one for each server's store and the directory that its mail is
// in.
func (c *MbsyncConfig) Proposals() (out []Proposal) {
	for _, g := range c.groups() {
		out = append(out, c.proposal(g))
	}
	return out
}

func (c *MbsyncConfig) proposal(g *mbsyncGroup) Proposal {
	far, near := g.far, g.near
	p := Proposal{Name: g.name(), Root: g.root}
	account := mbsyncSection{}
	for _, from := range []mbsyncSection{c.accounts[far.get("account")], far.mbsyncSection} {
		for k, v := range from {
			account[k] = v
		}
	}
	c.server(&p, account)
	c.store(&p, far, near)
	// Of our patterns the last match wins: what one channel leaves out another one may have.
	patterned := func(ch *mbsyncChannel) int { return map[bool]int{true: 0, false: 1}[ch.patterns] }
	for _, ch := range slices.SortedStableFunc(slices.Values(g.channels), func(x, y *mbsyncChannel) int { return patterned(x) - patterned(y) }) {
		c.channel(&p, ch, far)
	}
	if pulls := slices.DeleteFunc(slices.Clone(g.channels), func(ch *mbsyncChannel) bool { return !pullsOnly(c.of(ch, "sync")) }); p.ReadOnly {
		if len(pulls) < len(g.channels) {
			p.leave("Sync %s of channel %s alone: read_only is of the whole account, so that nothing of its other channels goes to the server either; without it, what is changed in this one goes there, too",
				strings.Join(c.of(pulls[0], "sync"), " "), pulls[0].name)
		} else if sync := c.of(pulls[0], "sync"); len(sync) > 1 {
			p.leave("Sync %s of channel %s: all changes on the server come here, and none of here go there (read_only)", strings.Join(sync, " "), pulls[0].name)
		}
	}
	all := slices.Clone(p.Mailboxes)
	p.Mailboxes = slices.DeleteFunc(p.Mailboxes, func(m string) bool {
		rest, not := strings.CutPrefix(m, "!")
		return not && slices.Contains(all, rest)
	})
	return p
}

// server carries an account's connection over.
func (c *MbsyncConfig) server(p *Proposal, a mbsyncSection) {
	p.TLS = map[string]string{"imaps": "implicit", "none": "none", "starttls": "starttls"}[strings.ToLower(cmp.Or(a.get("tlstype"), a.get("ssltype")))]
	p.Host = a.get("host")
	if host, ok := strings.CutPrefix(p.Host, "imaps:"); ok {
		p.Host, p.TLS = host, "implicit"
	}
	p.Host = strings.TrimPrefix(p.Host, "imap:")
	if strings.EqualFold(a.get("useimaps"), "yes") {
		p.TLS = "implicit"
	}
	p.Port, _ = strconv.Atoi(a.get("port")) // 0 is the usual one
	if tunnel := a.get("tunnel"); tunnel != "" {
		p.Tunnel, p.TLS, p.Port = []string{"sh", "-c", tunnel}, cmp.Or(p.TLS, "none"), 0
	}
	p.TLS = cmp.Or(p.TLS, "starttls")
	p.User = a.get("user")
	if p.User == "" {
		p.leave("user: mbsync asks a program (UserCmd) or a person for it: write it here")
	}
	switch command := strings.TrimPrefix(a.get("passcmd"), "+"); {
	case command != "":
		p.Password = []string{"sh", "-c", command}
	case a.get("pass") != "":
		p.leave("Pass: a password does not belong in this file; keep it with your keyring (keyring = true), or in a file that you alone can read (password_file)")
	case strings.EqualFold(a.get("usekeychain"), "yes"):
		p.leave("UseKeychain: mbsync's entry is not read; keyring = true has one of its own")
	}
	p.CAFile, p.Cert, p.Key = c.path(a.get("certificatefile")), c.path(a.get("clientcertificate")), c.path(a.get("clientkey"))
	if p.TLS == "none" {
		p.CAFile, p.Cert, p.Key = "", "", ""
	}
	p.Timeout, _ = strconv.Atoi(a.get("timeout")) // 0 is the usual one
	if mechs := a["authmechs"]; len(mechs) == 1 && mechs[0] != "*" {
		p.Auth = strings.ToLower(mechs[0])
	} else if len(mechs) > 1 {
		p.leave("AuthMechs %s: the best one that the server offers is taken", strings.Join(mechs, " "))
	}
	for _, k := range []struct{ key, word, why string }{
		{"tlsversions", "TLSVersions", "TLS 1.2 and newer; tls_legacy = true allows older ones"},
		{"sslversions", "SSLVersions", "TLS 1.2 and newer; tls_legacy = true allows older ones"},
		{"cipherstring", "CipherString", "the usual ciphers are taken"},
		{"systemcertificates", "SystemCertificates", "the system's certificates count, too; tls_pin takes one certificate alone"},
		{"pipelinedepth", "PipelineDepth", "connections says how much is done at once"},
		{"disableextension", "DisableExtension", "disable_extensions does the same, by the names of RFCs"},
		{"disableextensions", "DisableExtensions", "disable_extensions does the same, by the names of RFCs"},
	} {
		if v := a[k.key]; len(v) > 0 {
			p.leave("%s %s: %s", k.word, strings.Join(v, " "), k.why)
		}
	}
}

// store carries over what stands in the stores.
func (c *MbsyncConfig) store(p *Proposal, far, near *mbsyncStore) {
	p.MaildirPP = strings.EqualFold(near.get("subfolders"), "maildir++")
	if !isBelow(p.Root, c.inbox(near)) {
		p.leave("Inbox %s: it is not below %s; move it there (and set mbsync's Inbox so), or INBOX is fetched anew", c.inbox(near), p.Root)
	}
	switch flat := near.get("flatten"); {
	case flat != "":
		p.leave("Flatten %s: folders that are there keep their names; new ones are nested", flat)
	case strings.EqualFold(near.get("subfolders"), "legacy"):
		p.leave("SubFolders Legacy: folders that are there keep their names; new ones are nested")
	}
	if d := cmp.Or(near.get("infodelimiter"), c.delimiter); d != ":" {
		p.leave("InfoDelimiter %s: flags behind it are not read; files are named with a colon", d)
	}
	if strings.EqualFold(near.get("altmap"), "yes") {
		p.leave("AltMap: which file is which message its database says; the first sync pairs by what the mail is")
	}
	if trash := far.get("trash"); trash != "" {
		p.Trash = far.get("path") + trash
	}
	if strings.EqualFold(far.get("subscribedonly"), "yes") {
		p.leave("SubscribedOnly: mailboxes names those that come; all do that it names")
	}
}

// of gives what a channel has of a keyword, or else what all have.
func (c *MbsyncConfig) of(ch *mbsyncChannel, key string) []string {
	if v := ch.mbsyncSection[key]; len(v) > 0 {
		return v
	}
	return c.global[key]
}

// pullsOnly tells whether a Sync sends the server nothing: a direction is of all kinds of changes
// that are named, or stands before one (PullNew).
func pullsOnly(sync []string) bool {
	pulls := func(word string) bool { return strings.HasPrefix(strings.ToLower(word), "pull") }
	pushes := func(word string) bool {
		return strings.HasPrefix(strings.ToLower(word), "push") || strings.EqualFold(word, "all")
	}
	return slices.ContainsFunc(sync, pulls) && !slices.ContainsFunc(sync, pushes)
}

func isAll(sync []string) bool {
	return len(sync) == 0 || strings.EqualFold(strings.Join(sync, " "), "all")
}

// channel carries over what a channel says.
func (c *MbsyncConfig) channel(p *Proposal, ch *mbsyncChannel, far *mbsyncStore) {
	prefix := far.get("path") + ch.farBox
	add := func(pattern string) {
		if !slices.Contains(p.Mailboxes, pattern) {
			p.Mailboxes = append(p.Mailboxes, pattern)
		}
	}
	if !ch.patterns {
		if ch.farBox == "" {
			prefix = "INBOX"
		}
		add(mail.LocalName(prefix))
	}
	for _, pattern := range ch.mbsyncSection["patterns"] {
		rest, not := strings.CutPrefix(pattern, "!")
		if !strings.EqualFold(rest, "INBOX") {
			rest = prefix + rest
		}
		if pattern = mail.LocalName(rest); not {
			pattern = "!" + pattern
		}
		add(pattern)
		// INBOX is beside what a store's Path is about.
		if as, err := path.Match(strings.ReplaceAll(strings.TrimPrefix(rest, prefix), "%", "*"), "INBOX"); err == nil && as && !not && prefix != "" && ch.farBox == "" &&
			!slices.ContainsFunc(ch.mbsyncSection["patterns"], func(p string) bool { return strings.EqualFold(p, "!INBOX") }) {
			add("INBOX")
		}
	}
	of := func(key string) []string { return c.of(ch, key) }
	if sync := of("sync"); pullsOnly(sync) {
		p.ReadOnly = true
	} else if !isAll(sync) {
		p.leave("Sync %s of channel %s: both directions of all changes are synchronised; read_only = true changes nothing on the server", strings.Join(sync, " "), ch.name)
	}
	switch strings.ToLower(strings.Join(of("expunge"), " ")) {
	case "both", "far", "master":
		if p.Deletions == "keep" {
			p.leave("Expunge of channel %s: another channel of the account has none, and deletions is of all", ch.name)
		}
		if p.Trash == "" {
			p.Deletions = cmp.Or(p.Deletions, "expunge")
		}
	default:
		if p.Deletions == "expunge" {
			p.leave("Expunge None of channel %s: another channel of the account has Expunge, and deletions is of all", ch.name)
		}
		p.Deletions = "keep"
	}
	if v := of("create"); !strings.EqualFold(strings.Join(v, " "), "both") {
		p.leave("Create %s of channel %s: mailboxes and folders that are new are made on the other side", cmp.Or(strings.Join(v, " "), "None"), ch.name)
	}
	if v := of("remove"); len(v) > 0 && !strings.EqualFold(v[0], "none") {
		p.leave("Remove %s of channel %s: nothing removes a folder or a mailbox but `folder delete`", strings.Join(v, " "), ch.name)
	}
	if v := of("maxmessages"); len(v) > 0 && v[0] != "0" {
		p.leave("MaxMessages %s of channel %s: all messages of a mailbox come, those that it had expired, too, unless they are taken over as left on the server", v[0], ch.name)
	}
	for _, v := range [][]string{ch.mbsyncSection["maxsize"], ch.far.mbsyncSection["maxsize"], ch.near.mbsyncSection["maxsize"]} {
		if len(v) > 0 && v[0] != "0" {
			p.leave("MaxSize %s: large mail comes, too; the built-in hook `limit` keeps it away", v[0])
		}
	}
}
