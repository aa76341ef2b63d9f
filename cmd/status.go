package cmd

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/index"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/watch"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

func (p *program) statusCommand() *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "say how the accounts stand",
		ArgsUsage: "[ACCOUNT]...",
		Description: `When the server was last reached, what waits here to go to it, what the last sync left undone, which messages
failed, and until when a sign-in is valid. The network is not needed, and a sync may be under way. The exit status is 3 if something waits for
a person.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "line", Usage: "one line in all, for a status bar"},
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "list the mailboxes, too"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line for each account"},
		},
		Action: p.status,
	}
}

// accountStatus is what is told of an account.
type accountStatus struct {
	pipeline.Status
	Never      bool      `json:"never_synchronised,omitempty"`
	ValidUntil time.Time `json:"sign_in_until,omitzero"` // of an OAuth token
	Renewable  bool      `json:"sign_in_renewable,omitempty"`
	SignIn     string    `json:"sign_in_fault,omitempty"`
	Database   string    `json:"database_fault,omitempty"`
	Fault      string    `json:"fault,omitempty"` // why nothing else is known
	Watch      *watched  `json:"watch,omitempty"` // nil: none is running
}

// watched is the watch that the account has.
type watched struct {
	Running time.Time `json:"running_since,omitzero"` // zero: it was not heard
	How     string    `json:"how"`                    // "notify", "idle", "poll"; "" while there is no connection
	Since   time.Time `json:"since,omitzero"`         // that is so
	Fault   string    `json:"fault,omitempty"`        // why there is none
	Working time.Time `json:"working_since,omitzero"` // a sync is at work
	// Beside is what goes on beside syncs, or holds them up.
	Beside []watch.Doing `json:"beside,omitempty"`
}

// mute is the fault of a watch that was asked and did not answer.
const mute = "it does not answer"

// text is how the watch stands, for a person. told is that the reason for which it has no
// connection is told elsewhere.
func (w *watched) text(told bool) string {
	if w.Running.IsZero() {
		return "there is one, and " + w.Fault
	}
	text := "running since " + w.Running.Local().Format("2006-01-02 15:04")
	switch {
	case w.How != "":
		return text + ", by " + watchedBy(w.How) + " since " + w.Since.Local().Format("2006-01-02 15:04")
	case w.Fault != "" && told:
		return text + ", not connected since " + minute(w.Since)
	case w.Fault != "":
		return text + ", not connected since " + minute(w.Since) + ": " + w.Fault
	}
	return text + ", connecting"
}

// watchedBy is the word for how an account is watched.
func watchedBy(how string) string {
	return map[string]string{"notify": "NOTIFY", "idle": "IDLE", "poll": "asking now and then"}[how]
}

func (s *accountStatus) waits() bool {
	return s.Waits() || s.SignIn != "" || s.Database != "" || s.unreached()
}

// unreached tells whether the server was never reached, though that was tried.
func (s *accountStatus) unreached() bool {
	return !s.Never && s.Fault == "" && s.Contact.IsZero() && (s.Refusals > 0 || s.failed(undone()...) > 0)
}

func (p *program) status(c *cli.Context) error {
	accounts, err := p.accounts(c)
	if err != nil {
		return err
	}
	if c.Bool("line") && (c.Bool("json") || c.Bool("verbose")) {
		return &usageError{"--line goes neither with --json nor with --verbose", c.Command.HelpName}
	}
	idx, err := index.Open(c.Context, index.Options{Existing: true})
	if err != nil {
		return err
	}
	keys := p.newSecrets(nil)
	all := make([]*accountStatus, len(accounts))
	for i := range accounts {
		a := &accounts[i]
		if all[i], err = p.statusOf(c.Context, a, filepath.Join(idx.MailRoot(), filepath.FromSlash(a.Folder)), keys); err != nil {
			if err := c.Err(); err != nil {
				return err
			}
			// What is wrong with one account says nothing of the others.
			all[i] = &accountStatus{Status: pipeline.Status{Account: a.Name, Mailboxes: []pipeline.MailboxStatus{}}, Fault: inLine(err.Error())}
		}
	}
	if idx.Missing() {
		for _, s := range all {
			if !s.Never && s.Fault == "" {
				s.Database = errDatabaseGone.Error()
			}
		}
	}
	if err := p.addWatch(c, all); err != nil {
		return err
	}
	most := width
	if c := columns(p.stdout); c > 0 {
		most = min(most, c)
	}
	var text strings.Builder
	switch {
	case c.Bool("line"):
		text.WriteString(barLine(all, time.Now()) + "\n")
	default:
		for i, s := range all {
			if c.Bool("json") {
				text.WriteString(jsonLine(s) + "\n")
				continue
			}
			if i > 0 {
				text.WriteString("\n")
			}
			text.WriteString(statusText(s, time.Now(), c.Bool("verbose"), most))
		}
	}
	if _, err := io.WriteString(p.stdout, text.String()); err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(s *accountStatus) bool { return s.Fault != "" }) {
		return errTold
	}
	if slices.ContainsFunc(all, (*accountStatus).waits) {
		return errPartly
	}
	return nil
}

// addWatch asks the watch, if one is running, how it stands.
func (p *program) addWatch(c *cli.Context, all []*accountStatus) error {
	conf, err := config.Find(c.String("config"), p.getenv)
	if err != nil {
		return err
	}
	answer, heard, err := p.askWatch(c.Context, conf, watchQuestion{})
	fault := ""
	switch {
	case heard || err != nil:
	case answer.Mute:
		fault = mute
	case p.watchRuns(conf):
		fault = "it cannot be asked: it does not listen in XDG_RUNTIME_DIR"
		if p.watchSocket(conf) == "" {
			fault = "it cannot be asked: XDG_RUNTIME_DIR is not set"
		}
	}
	if fault != "" {
		for _, s := range all {
			s.Watch = &watched{Fault: fault}
		}
	}
	for _, w := range answer.Accounts {
		for _, s := range all {
			if s.Account == w.Account {
				if w.How != "" && w.Since.After(s.Contact) {
					s.Contact = w.Since
				}
				s.Watch = &watched{Running: answer.Since, How: w.How, Since: w.Since, Fault: w.Fault, Working: w.Working, Beside: w.Beside}
			}
		}
	}
	return err
}

// statusOf looks at one account.
func (p *program) statusOf(ctx context.Context, a *config.Account, root string, keys *secrets) (*accountStatus, error) {
	s := &accountStatus{Status: pipeline.Status{Account: a.Name, Mailboxes: []pipeline.MailboxStatus{}}}
	if a.OAuth != nil {
		source, err := keys.source(a)
		if err != nil {
			return nil, err
		}
		if s.ValidUntil, s.Renewable, err = source.Status(ctx); err != nil {
			s.SignIn = err.Error()
		}
	}
	now, err := inLedger(ctx, p, a, func(ctx context.Context, l *ledger.Ledger) (*pipeline.Status, error) {
		return pipeline.StatusOf(ctx, pipeline.Options{
			Account: pipeline.Account{Name: a.Name, Root: root, Ledger: l, Now: time.Now},
			Policy:  pipeline.Policy{Selects: a.Selects, ReadOnly: a.ReadOnly, Deletions: pipeline.Deletions(a.Deletions)},
		})
	})
	if err != nil {
		return nil, err
	}
	if s.Never = now == nil; !s.Never {
		s.Status = *now
	}
	return s, nil
}

// sums adds an account's mailboxes up. Deletions that are held back go nowhere.
func (s *accountStatus) sums() (sum pipeline.MailboxStatus) {
	for _, m := range s.Mailboxes {
		if slices.ContainsFunc(s.Failed, func(f pipeline.Failed) bool { return f.State == pipeline.FailedHeld && f.Mailbox == m.Mailbox }) {
			m.Gone = 0
		}
		sum.Messages += m.Messages
		sum.Unindexed += m.Unindexed
		sum.Failed += m.Failed
		sum.Skipped += m.Skipped
		sum.New += m.New
		sum.Gone += m.Gone
		sum.Flags += m.Flags
	}
	return sum
}

// waiting says what waits to go to the server; "" if nothing does.
func waiting(m pipeline.MailboxStatus) string {
	var parts []string
	for _, w := range []struct {
		n    int
		what string
	}{{m.New, "new"}, {m.Gone, "gone or marked for deletion"}, {m.Flags, "with other flags"}} {
		if w.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", w.n, w.what))
		}
	}
	return strings.Join(parts, ", ")
}

// statusText is an account for a person, in so many columns at most.
func statusText(s *accountStatus, now time.Time, mailboxes bool, most int) string {
	var b strings.Builder
	row := func(what, text string) {
		for i, l := range wrap(plain(text), max(most-18, 1)) {
			if i > 0 {
				what = ""
			}
			fmt.Fprintf(&b, "  %-14s  %s\n", what, l)
		}
	}
	b.WriteString(s.Account + "\n")
	if s.Fault != "" {
		row("not known", s.Fault)
		return b.String()
	}
	switch {
	case s.Never:
		row("last contact", "never; run: "+name+" sync "+s.Account)
	case s.Contact.IsZero() && !s.unreached():
		row("last contact", "none has ended yet: the first sync is under way, or was interrupted")
	case s.Contact.IsZero():
		row("last contact", "never, though it was tried")
	default:
		row("last contact", ago(s.Contact, now))
		row("last change", ago(s.Change, now))
	}
	if s.Database != "" {
		row("notmuch", s.Database)
	}
	if w := s.Watch; w != nil {
		row("watch", w.text(s.Refusals > 0 || s.failed(pipeline.FailedAccount) > 0))
		if !w.Working.IsZero() {
			row("", "synchronising since "+w.Working.Local().Format("15:04:05"))
		}
		for _, b := range w.Beside {
			row("", b.Text)
		}
	}
	switch {
	case s.SignIn != "":
		row("sign-in", s.SignIn+"; run: "+name+" login "+s.Account)
	case s.ValidUntil.IsZero():
	case s.Renewable:
		row("sign-in", "valid until "+s.ValidUntil.Local().Format("2006-01-02 15:04")+", and renewed by itself")
	default:
		row("sign-in", "valid until "+s.ValidUntil.Local().Format("2006-01-02 15:04"))
	}
	for _, f := range s.Failed {
		if f.State == pipeline.FailedSignIn {
			row("sign-in", fmt.Sprintf("refused, %d in a row; the next try without a terminal is at %s, one by hand: %s check %s; it was: %s",
				f.Attempts, minute(f.NextTry), name, s.Account, f.Reason))
		}
	}
	if !s.NotBefore.IsZero() {
		row("left alone", "until "+minute(s.NotBefore)+", as the server asked")
	}
	sum := s.sums()
	if text := waiting(sum); text != "" {
		if !slices.ContainsFunc(s.Failed, pipeline.Failed.Waits) {
			text += "; the next sync takes it there"
		}
		row("to the server", text)
	}
	for _, what := range failedRows() {
		n := 0
		for _, f := range s.Failed {
			if !slices.Contains(what.states, f.State) {
				continue
			}
			if n++; n > mostRows {
				continue
			}
			text := strings.TrimLeft(strings.TrimPrefix(nameOf("", f), "/")+": "+f.Reason, ": ")
			if !f.Since.IsZero() {
				text = minute(f.Since) + " " + text
			}
			f.Since = time.Time{}
			if how := outlook(s.Account, f, now); how != "" {
				text += "; " + how
			}
			row(what.label, text)
			what.label = ""
		}
		if n > mostRows {
			row("", fmt.Sprintf("and %d more, see: %s stubs --all %s", n-mostRows, name, s.Account))
		}
	}
	if !s.Never {
		text := mail.Number(sum.Messages, "message", "messages") + " in " + mail.Number(len(s.Mailboxes), "mailbox", "mailboxes")
		if sum.Unindexed > 0 {
			text += fmt.Sprintf(", and %d more that notmuch is yet to be told of", sum.Unindexed)
		}
		row("here", text)
	}
	for _, m := range s.Mailboxes {
		if !mailboxes {
			break
		}
		text := fmt.Sprintf("%8d  %s", m.Messages, plain(m.Mailbox))
		if w := waiting(m); w != "" {
			text += " (" + w + ")"
		}
		if m.Failed > 0 {
			text += fmt.Sprintf(" (%d failed)", m.Failed)
		}
		if !m.NotBefore.IsZero() {
			text += " (no answer; left out until " + m.NotBefore.Local().Format("2006-01-02 15:04") + ")"
		}
		b.WriteString(fold(strings.Repeat(" ", 16)+text, most, hang) + "\n")
	}
	return b.String()
}

// mostRows bounds how many of a kind are told; `stubs --all` lists them all.
const mostRows = 5

// failedRow is what failed in some way, under one label.
type failedRow struct {
	label  string
	states []pipeline.FailedState
}

// failedRows are all of them but the sign-in, in the order in which they are told.
func failedRows() []failedRow {
	return []failedRow{
		{"left undone", undone()},
		{"failed", []pipeline.FailedState{pipeline.FailedStub, pipeline.FailedNotMail}},
		{"refused", []pipeline.FailedState{pipeline.FailedUnsent}},
		{"left there", []pipeline.FailedState{pipeline.FailedSkipped, pipeline.FailedDeferred}},
		{"given up", []pipeline.FailedState{pipeline.FailedGivenUp}},
		{"stays here", []pipeline.FailedState{pipeline.FailedUnnamed, pipeline.FailedFolder, pipeline.FailedGone, pipeline.FailedTwin, pipeline.FailedFlag}},
	}
}

// undone are the states of what the last runs left in mailboxes, or in the account.
func undone() []pipeline.FailedState {
	return []pipeline.FailedState{pipeline.FailedUnavailable, pipeline.FailedMailbox, pipeline.FailedRefused, pipeline.FailedHeld, pipeline.FailedAccount}
}

// failed counts what is in one of these states.
func (s *accountStatus) failed(states ...pipeline.FailedState) (n int) {
	for _, f := range s.Failed {
		if slices.Contains(states, f.State) {
			n++
		}
	}
	return n
}

// ago gives a time and how long it is over.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return "not known"
	}
	d := now.Sub(t)
	text := ""
	switch {
	case d < 2*time.Minute:
		text = "just now"
	case d < 2*time.Hour:
		text = fmt.Sprintf("%d minutes ago", int(d.Minutes()))
	case d < 48*time.Hour:
		text = fmt.Sprintf("%d hours ago", int(d.Hours()))
	default:
		text = fmt.Sprintf("%d days ago", int(d.Hours()/24))
	}
	return t.Local().Format("2006-01-02 15:04") + ", " + text
}

// longSync is how long a sync of a watch may take until it is worth saying in one line.
const longSync = time.Minute

// barLine is all accounts in one line.
func barLine(all []*accountStatus, now time.Time) string {
	var parts []string
	for _, s := range all {
		sum := s.sums()
		var what []string
		if s.Fault != "" {
			what = append(what, "cannot be read")
		}
		if s.Never {
			what = append(what, "never synchronised")
		}
		switch {
		case s.unreached():
			what = append(what, "never reached")
		case !s.Never && s.Fault == "" && s.Contact.IsZero():
			what = append(what, "not synchronised yet")
		}
		if s.Database != "" {
			what = append(what, "the notmuch database is gone")
		}
		if s.SignIn != "" {
			what = append(what, "sign in again")
		}
		switch w := s.Watch; {
		case s.Refusals > 0:
			what = append(what, "sign-in refused")
		case w != nil && w.Fault == mute:
			what = append(what, "the watch does not answer")
		case w != nil && w.How == "" && !w.Running.IsZero():
			what = append(what, "not connected")
		}
		if w := s.Watch; w != nil && !w.Working.IsZero() && now.Sub(w.Working) > longSync {
			what = append(what, "synchronising since "+w.Working.Local().Format("15:04"))
		}
		if n := s.failed(undone()...); n > 0 {
			what = append(what, fmt.Sprintf("%d undone", n))
		}
		if sum.Failed > 0 {
			what = append(what, fmt.Sprintf("%d failed", sum.Failed))
		}
		if n := s.failed(pipeline.FailedUnsent); n > 0 {
			what = append(what, fmt.Sprintf("%d refused", n))
		}
		if n := sum.Waiting() - s.failed(pipeline.FailedUnsent); n > 0 {
			what = append(what, fmt.Sprintf("%d to send", n))
		}
		if len(what) > 0 {
			parts = append(parts, s.Account+": "+strings.Join(what, ", "))
		}
	}
	if len(parts) == 0 && slices.ContainsFunc(all, func(s *accountStatus) bool { return s.Watch != nil }) {
		return "mail: ok, watched"
	}
	if len(parts) == 0 {
		return "mail: ok"
	}
	return strings.Join(parts, "; ")
}
