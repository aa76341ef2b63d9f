package probe

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// Session is a connection over which one message is inspected.
type Session struct {
	Speaker
	Searcher
	Greeting string // what the server said first
}

// InspectOptions is one manual session.
type InspectOptions struct {
	mail.Target
	Dial    func(context.Context) (Session, error)
	Timeout time.Duration // for each item; 0 means a minute
	Now     func() time.Time
}

// Inspection is what a manual session found out about one message. Nothing was
// changed on the server.
type Inspection struct {
	mail.Target
	Time     time.Time
	Greeting string
	Messages uint32 // in the mailbox
	Listed   bool
	Seq      uint32 // of the message; 0 if it was not told
	// Neighbours are the messages around it, by sequence number, itself among
	// them.
	Neighbours []mail.Message
	// Control is a neighbour that was asked for in the same session, and
	// ControlCame tells whether it came. 0: there is none.
	Control     imap.UID
	ControlCame bool
	Message     mail.Message // what was told of flags, date and size
	Probes      []Probe
	Method      string // by which the whole mail came; "" if it did not
	Seen        string // what happened to \Seen, in words; "": it is as it was
	Stopped     string // why the session ended early; "" if it did not
	Exchange    bool   // the server is Exchange, so far as it shows
	Verdict     Verdict
}

// Verdict is what a person wants to know.
type Verdict struct {
	Finding string `json:"finding"` // what the server does
	Cause   string `json:"cause"`   // whose fault it is, and how that was found
	Advice  string `json:"advice"`  // what to do
}

// Inspect speaks with the server about one message as a person would do it by
// hand, in EXAMINE, one command at a time. The error is that there was no
// session about this message at all.
func Inspect(ctx context.Context, o InspectOptions) (*Inspection, error) {
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	m := &manual[Session]{Target: o.Target, dial: o.Dial}
	defer m.close()
	s, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	in := &Inspection{Target: m.Target, Time: o.Now(), Greeting: s.Greeting, Messages: m.selected.Messages}
	if in.Listed, err = listed(ctx, s, o.UID); err != nil {
		return nil, err
	}
	if !in.Listed {
		in.Verdict = in.verdict(nil)
		return in, nil
	}
	if err := in.around(ctx, m); err != nil {
		return nil, err
	}
	f := &stub.Salvaged{UID: o.UID}
	sal := &Salvager{
		Salvaged: f, UIDValidity: m.UIDValidity, All: true, Each: o.Timeout,
		Enter: func(ctx context.Context) (Speaker, error) { return m.enter(ctx) },
		Open:  func() (mail.Spool, error) { return void{}, nil },
		Done:  func(string, mail.Message, mail.Spool) error { return nil },
	}
	if err := sal.Run(ctx, true); err != nil {
		return nil, err
	}
	in.Probes, in.Method, in.Seen, in.Message = sal.Probes, sal.Method, sal.Seen, f.Told
	if sal.has(itemWhole) {
		in.Method = itemWhole // the plain road, though others were open before it
	}
	if sal.Lost != nil {
		in.Stopped = sal.Lost.Error()
	}
	in.Verdict = in.verdict(sal)
	return in, nil
}

// listed asks whether the mailbox has the UID.
func listed(ctx context.Context, s Searcher, uid imap.UID) (bool, error) {
	set, err := s.Search(ctx, mail.UIDSet([]imap.UID{uid}))
	if err != nil {
		return false, err
	}
	return set.Contains(uid), nil
}

// around finds the sequence number and the neighbours. A server that does not
// tell them costs nothing but that.
func (in *Inspection) around(ctx context.Context, m *manual[Session]) error {
	s, err := m.enter(ctx)
	if err != nil {
		return err
	}
	ex, err := s.Exchange(ctx, fmt.Sprintf("UID FETCH %d (UID)", in.UID))
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	if i := slices.IndexFunc(ex.Fetched, func(f mail.Fetched) bool { return f.UID == in.UID }); i >= 0 {
		in.Seq = ex.Fetched[i].Seq
	}
	if s, err = m.enter(ctx); err != nil {
		return err
	}
	if in.Seq == 0 {
		if ex, err = s.Exchange(ctx, fmt.Sprintf("SEARCH UID %d", in.UID)); err != nil {
			return ctx.Err()
		}
		if ns := searched(ex); len(ns) == 1 {
			in.Seq = ns[0]
		}
	}
	if in.Seq == 0 {
		return nil
	}
	from, to := max(in.Seq, 3)-2, max(min(in.Seq+2, in.Messages), in.Seq)
	if ex, err = s.Exchange(ctx, fmt.Sprintf("FETCH %d:%d (UID)", from, to)); err != nil {
		return ctx.Err()
	}
	for _, f := range ex.Fetched {
		if f.UID != 0 && f.Seq >= from && f.Seq <= to {
			in.Neighbours = append(in.Neighbours, mail.Message{Seq: f.Seq, UID: f.UID})
		}
	}
	// One of them is asked for, so that the server's answer for this message
	// can be held against its answer for another.
	for _, seq := range []uint32{in.Seq + 1, in.Seq - 1} {
		i := slices.IndexFunc(in.Neighbours, func(n mail.Message) bool { return n.Seq == seq })
		if i < 0 {
			continue
		}
		in.Control = in.Neighbours[i].UID
		ex, err = s.Exchange(ctx, fmt.Sprintf("UID FETCH %d (BODY.PEEK[]<0.1>)", in.Control))
		v, there := itemOf(ex, in.Control, itemWhole)
		in.ControlCame = err == nil && there && v.Size > 0
		break
	}
	return ctx.Err()
}

// searched reads the numbers of SEARCH responses.
func searched(ex *mail.Exchange) (numbers []uint32) {
	for _, line := range ex.Untagged {
		words := strings.Fields(line)
		if len(words) == 0 || !strings.EqualFold(words[0], "SEARCH") {
			continue
		}
		for _, w := range words[1:] {
			if n, err := strconv.ParseUint(w, 10, 32); err == nil {
				numbers = append(numbers, uint32(n))
			}
		}
	}
	return numbers
}

// verdict says in words what the rungs mean.
func (in *Inspection) verdict(sal *Salvager) Verdict {
	name := fmt.Sprintf("UID %d", in.UID)
	if !in.Listed {
		return Verdict{"The server does not list " + name + " in this mailbox any more.",
			"It was deleted or moved, here or by another program.",
			"Nothing needs to be done: the next sync takes its stub away."}
	}
	if in.Method == itemWhole {
		return Verdict{"The server hands " + name + " over now, as a whole.",
			"What kept it from coming is over.",
			"Ask for it: notmuch imap retry"}
	}
	if in.Method != "" {
		return Verdict{"The server does not hand " + name + " over as a whole, but by another road: " + in.Method + ".",
			in.blame(),
			"Fetch it by that road: notmuch imap retry"}
	}
	if in.Stopped != "" && sal.Substitute == nil && !slices.ContainsFunc(in.Probes, func(r Probe) bool { return r.Item == itemWhole }) {
		return Verdict{"The session ended before " + name + " was asked for as a whole.",
			"Whether anything is wrong with the message cannot be told from that.",
			"Try again later."}
	}
	in.Exchange = stub.IsExchange(in.Greeting) || sal.Substitute != nil
	v := Verdict{Finding: in.finding(sal), Cause: in.blame()}
	switch {
	case sal.Substitute != nil:
		v.Advice = "It is not deleted: look for it in Outlook or Outlook on the web, or ask its sender. The administrator can be told with `notmuch imap inspect --report`."
	default:
		v.Advice = "Look whether the provider's webmail shows it; tell the administrator with `notmuch imap inspect --report`."
	}
	if some := in.some(); some != "" {
		v.Advice += " What did come (" + some + ") is in the stub after the next `notmuch imap retry`."
	}
	v.Advice += " If nobody wants it: `notmuch imap drop` stops asking, `notmuch imap drop --remote` deletes it on the server."
	return v
}

// Cure is what the owner of the mailbox can do to have such mail handed over, and a
// command for it; "" if nothing is known. It helps often, not always.
func (in *Inspection) Cure(user string) (text, command string) {
	if !in.Exchange {
		return "", ""
	}
	return stub.ExchangeCure(user)
}

// finding says what the server does when it is asked for the mail.
func (in *Inspection) finding(sal *Salvager) string {
	if sal.Substitute != nil {
		text := "The server sends a mail of its own instead of this message: Exchange does so when it cannot turn what it has stored into a mail."
		if s := sal.Substitute; s.Subject != "" || s.From != "" {
			text += fmt.Sprintf(" It reveals the real one: %q from %s.", mail.OneLine(s.Subject, 200), mail.OneLine(cmp.Or(s.From, "an unknown sender"), 200))
		}
		return text
	}
	for _, r := range in.Probes {
		if r.Item != itemWhole {
			continue
		}
		switch r.Answer {
		case AnswerNothing:
			return "The server lists this message and says OK, but sends nothing of it. Its index knows the message, its store probably cannot read it."
		case AnswerNil, AnswerEmpty:
			return "The server sends an empty mail for this message. Its index knows the message, its store probably lost the contents."
		case AnswerNo, AnswerBad:
			return fmt.Sprintf("The server lists this message, but refuses to send it: %s.", mail.Quoted(r.Text))
		case AnswerCut:
			return "The server hangs up when it is asked for this message. A program there probably dies of it."
		case AnswerSilent:
			return "The server falls silent when it is asked for this message. A program there probably hangs on it."
		}
	}
	return "The server lists this message, but does not hand it over."
}

// blame says whose fault it is and how that was established.
func (in *Inspection) blame() string {
	switch {
	case in.Control == 0:
		return "The fault is the server's: it lists the message, and was asked for it item by item."
	case in.ControlCame:
		return fmt.Sprintf("The fault is the server's, neither yours nor the network's: in the same session it sent the neighbour UID %d at once.", in.Control)
	}
	return fmt.Sprintf("Its neighbour UID %d did not come either: the server is not well as a whole, so that this need not be about the message. Try again later.", in.Control)
}

// some names what came although the mail did not.
func (in *Inspection) some() string {
	var out []string
	for _, r := range in.Probes {
		if r.Answer == AnswerData && strings.HasPrefix(r.Item, "BODY.PEEK[") && !strings.Contains(r.Item, "FIELDS") {
			out = append(out, strings.TrimPrefix(r.Item, "BODY.PEEK"))
		}
	}
	return strings.Join(out, ", ")
}
