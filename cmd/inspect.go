package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/remote"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
)

func (p *program) inspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "ask the server what is wrong with a message",
		ArgsUsage: targetArgs,
		Description: `The session that one would else have to hold by hand: the mailbox is opened for reading only, the message is looked
up among its neighbours, then each of its items is asked for alone. It ends with what to do, and changes nothing.

` + targetHelp,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "report", Usage: "print a short text for the server's administrator instead"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line for each message"},
		},
		Action: func(c *cli.Context) error {
			if c.Bool("report") && c.Bool("json") {
				return &usageError{"--report and --json exclude each other", c.Command.HelpName}
			}
			all, err := p.choose(c, false)
			if err != nil {
				return err
			}
			show := showInspection
			switch {
			case c.Bool("report"):
				show = showReport
			case c.Bool("json"):
				show = func(i *inspection) string { return jsonLine(i.object()) + "\n" }
			}
			keys, words := p.newSecrets(nil), p.wordsOutput(false)
			var ends []error
			first := true
			for i := range all {
				for _, t := range all[i].targets {
					in, err := p.inspect(c.Context, &all[i].account, t, keys, words)
					if err != nil {
						if c.Err() != nil {
							return err
						}
						words.account(all[i].account.Name, fmt.Sprintf("%s: %v", label(all[i].account.Name, t), err))
						if errors.Is(err, probe.ErrUIDValidity) {
							ends = append(ends, errPartly) // later is no better
						} else if isRefused(err) {
							ends = append(ends, errRefused)
						} else {
							ends = append(ends, errLater)
						}
						continue
					}
					text := show(in)
					if !first && !c.Bool("json") {
						text = "\n" + strings.Repeat("-", width) + "\n\n" + text
					}
					first = false
					if !c.Bool("json") {
						text = fold(text, columns(p.stdout), hang)
					}
					if _, err := io.WriteString(p.stdout, text); err != nil {
						return err
					}
					ends = append(ends, nil)
				}
			}
			return worst(ends)
		},
	}
}

// inspection is what is told of one.
type inspection struct {
	*probe.Inspection
	account config.Account
	lines   []said
}

// said is a line of the conversation.
type said struct {
	mail.Line
	signIn bool // said before the session began
}

// inspect holds the manual session about one message.
func (p *program) inspect(ctx context.Context, a *config.Account, t pipeline.Target, keys *secrets, words *output) (*inspection, error) {
	o, err := remoteOptions(a, keys)
	if err != nil {
		return nil, err
	}
	o.Names = &remote.Names{}
	o.Alert = func(s string) { words.alert(a.Name, s) }
	in := &inspection{account: *a}
	dialing := false
	o.Record = func(l mail.Line) {
		if len(in.lines) < maxInspectLines {
			in.lines = append(in.lines, said{l, dialing})
		}
	}
	in.Inspection, err = probe.Inspect(ctx, probe.InspectOptions{
		Target: t, Timeout: min(a.Timeout, inspectPatience), Now: time.Now,
		Dial: func(ctx context.Context) (probe.Session, error) {
			dialing = true
			s, err := keys.dial(ctx, a, o)
			dialing = false
			if err != nil {
				return probe.Session{}, err
			}
			return probe.Session{Speaker: s, Searcher: s, Greeting: s.Greeting()}, nil
		},
	})
	return in, err
}

const (
	maxInspectLines = 3000
	inspectPatience = 20 * time.Second // for one item: a person waits
)

// object is the inspection as --json has it.
func (i *inspection) object() any {
	type neighbour struct {
		Seq uint32 `json:"seq"`
		UID uint32 `json:"uid"`
	}
	type line struct {
		Time time.Time `json:"time"`
		From string    `json:"from"` // C or S
		Text string    `json:"text"`
	}
	out := struct {
		Account     string        `json:"account"`
		Mailbox     string        `json:"mailbox"`
		UIDValidity uint64        `json:"uidvalidity"`
		UID         uint32        `json:"uid"`
		Time        time.Time     `json:"time"`
		Server      string        `json:"server"`
		Greeting    string        `json:"greeting"`
		Messages    uint32        `json:"messages"`
		Listed      bool          `json:"listed"`
		Seq         uint32        `json:"seq,omitempty"`
		Neighbours  []neighbour   `json:"neighbours,omitempty"`
		Control     uint32        `json:"control,omitempty"`
		ControlCame bool          `json:"control_came"`
		Road        string        `json:"road,omitempty"`
		Seen        string        `json:"seen,omitempty"`
		Stopped     string        `json:"stopped,omitempty"`
		Verdict     probe.Verdict `json:"verdict"`
		Rungs       []probe.Probe `json:"rungs,omitempty"`
		Transcript  []line        `json:"transcript"`
	}{
		Account: i.account.Name, Mailbox: i.Mailbox, UIDValidity: i.UIDValidity, UID: uint32(i.UID), Time: i.Time, Server: i.server(),
		Greeting: i.Greeting, Messages: i.Messages, Listed: i.Listed, Seq: i.Seq, Control: uint32(i.Control), ControlCame: i.ControlCame, Road: i.Method, Seen: i.Seen, Stopped: i.Stopped,
		Verdict: i.Verdict, Rungs: i.Probes, Transcript: []line{},
	}
	for _, n := range i.Neighbours {
		out.Neighbours = append(out.Neighbours, neighbour{n.Seq, uint32(n.UID)})
	}
	for _, l := range i.lines {
		out.Transcript = append(out.Transcript, line{l.At, who(l), l.Text})
	}
	return out
}

func who(l said) string {
	if l.Client {
		return "C"
	}
	return "S"
}

func (i *inspection) server() string { return i.account.Where() }

// showInspection is what a person reads in a pager of 80 columns.
func showInspection(i *inspection) string {
	var b strings.Builder
	para := func(text string) {
		for _, l := range wrap(plain(text), width) {
			b.WriteString(l + "\n")
		}
		b.WriteByte('\n')
	}
	row := func(name, value string) {
		if value == "" {
			return
		}
		for n, l := range wrap(plain(value), width-16) {
			if n > 0 {
				name = ""
			}
			fmt.Fprintf(&b, "  %-12s  %s\n", name, l)
		}
	}
	fmt.Fprintf(&b, "%s\n\n", label(i.account.Name, i.Target))
	para(i.Verdict.Finding)
	para(i.Verdict.Cause)
	para(i.Verdict.Advice)
	if text, command := i.Cure(i.account.User); text != "" {
		para(text)
		fmt.Fprintf(&b, "  %s\n\n", strings.ReplaceAll(command, "\n", "\n  "))
		para("It often helps. Then: notmuch imap retry")
	}
	row("server", i.server())
	row("greeting", i.Greeting)
	row("mailbox", fmt.Sprintf("%s, %s, UIDVALIDITY %d", i.Mailbox, mail.Number(int(i.Messages), "message", "messages"), i.UIDValidity))
	if i.Seq > 0 {
		row("message", fmt.Sprintf("UID %d, now number %d. Its number changes whenever a message before it goes; its UID stays, so that only the UID is used here.", i.UID, i.Seq))
	}
	if len(i.Neighbours) > 0 {
		b.WriteString("\n  number      UID\n")
		for _, n := range i.Neighbours {
			note := ""
			switch {
			case n.UID == i.UID:
				note = "   <- this one"
			case n.UID == i.Control && i.ControlCame:
				note = "   asked for in this session, came"
			case n.UID == i.Control:
				note = "   asked for in this session, did not come"
			}
			fmt.Fprintf(&b, "  %6d %8d%s\n", n.Seq, n.UID, note)
		}
	}
	if len(i.Probes) > 0 {
		b.WriteString("\nAsked for alone, one after the other\n\n")
		writeProbes(&b, i.Probes)
		b.WriteByte('\n')
		switch {
		case i.Seen != "":
			para(strings.ToUpper(i.Seen[:1]) + i.Seen[1:] + ".")
		default:
			para(`The flags are as they were: looking has not marked the message as read.`)
		}
	}
	if i.Stopped != "" {
		para("The session ended early: " + i.Stopped)
	}
	b.WriteString("The conversation (C: this program, S: the server)\n\n")
	for _, l := range i.lines {
		fmt.Fprintf(&b, "  %s %s: %s\n", l.At.Local().Format("15:04:05"), who(l), plain(l.Text))
	}
	return b.String()
}

// writeProbes is the table of what was asked for and what came.
func writeProbes(b *strings.Builder, probes []probe.Probe) {
	for _, r := range probes {
		text := string(r.Answer)
		switch r.Answer {
		case probe.AnswerData:
			if r.Size > 0 && r.Text == "" {
				text = fmt.Sprintf("%d bytes", r.Size)
			}
		case probe.AnswerNothing:
			text = "nothing (OK without data)"
		case probe.AnswerCut:
			text = "the connection ended"
		}
		if r.Text != "" {
			if text == string(probe.AnswerData) {
				text = r.Text
			} else {
				text += ": " + r.Text
			}
		}
		for n, l := range wrap(plain(text), width-44) {
			item := r.Item
			if n > 0 {
				item = ""
			}
			fmt.Fprintf(b, "  %-40s  %s\n", item, l)
		}
	}
}

// showReport is the short text for whoever looks after the server.
func showReport(i *inspection) string {
	var b strings.Builder
	fmt.Fprintf(&b, "A message that the IMAP server does not hand over\n\n")
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-14s %s\n", name, plain(value))
		}
	}
	row("Time", i.Time.Format(time.RFC1123Z))
	row("Server", i.server())
	row("Greeting", i.Greeting)
	row("User", i.account.User)
	row("Mailbox", fmt.Sprintf("%s (%s, UIDVALIDITY %d)", i.Mailbox, mail.Number(int(i.Messages), "message", "messages"), i.UIDValidity))
	number := "not told"
	if i.Seq > 0 {
		number = fmt.Sprint(i.Seq)
	}
	row("Message", fmt.Sprintf("UID %d, sequence number %s", i.UID, number))
	if !i.Message.InternalDate.IsZero() {
		row("INTERNALDATE", i.Message.InternalDate.Format(time.RFC1123Z))
	}
	b.WriteByte('\n')
	for _, text := range []string{i.Verdict.Finding, i.control()} {
		for _, l := range wrap(plain(text), 72) {
			b.WriteString(l + "\n")
		}
	}
	if text, command := i.Cure(i.account.User); text != "" {
		b.WriteByte('\n')
		for _, l := range wrap("What often helps with Exchange, for this mailbox (calendar items then come as iCalendar), or for all by Set-ImapSettings with -CalendarItemRetrievalOption and -MessageRetrievalMimeFormat:", 72) {
			b.WriteString(l + "\n")
		}
		fmt.Fprintf(&b, "\n  %s\n", strings.ReplaceAll(command, "\n", "\n  "))
	}
	if len(i.Probes) > 0 {
		b.WriteString("\nEach item asked for alone, with UID FETCH:\n\n")
		writeProbes(&b, i.Probes)
		b.WriteString("\nThe commands and answers:\n\n")
		for _, l := range i.lines {
			if !l.signIn { // which is no business of the report
				fmt.Fprintf(&b, "%s: %s\n", who(l), plain(l.Text))
			}
		}
	}
	return b.String()
}

// control says how another message fared in the same session.
func (i *inspection) control() string {
	switch {
	case i.Control == 0:
		return ""
	case i.ControlCame:
		return fmt.Sprintf("In the same session the message beside it, UID %d, came without trouble.", i.Control)
	}
	return fmt.Sprintf("In the same session the message beside it, UID %d, did not come either.", i.Control)
}
