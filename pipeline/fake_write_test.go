package pipeline

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

func (s *session) Exchange(ctx context.Context, command string) (ex *mail.Exchange, err error) {
	if err := ctx.Err(); err != nil {
		return &mail.Exchange{}, err
	}
	defer s.ask("%s", command)()
	if s.left {
		s.dead, s.name = true, ""
		return &mail.Exchange{}, &mail.Fault{Kind: mail.KindCut}
	}
	ex = &mail.Exchange{Command: command, Status: "OK", Lines: []mail.Line{{Client: true, Text: command}}}
	verb, args := command, ""
	for _, v := range []string{"UID FETCH", "UID STORE", "UID EXPUNGE", "UID MOVE", "UID COPY", "EXPUNGE", "CREATE", "DELETE", "SUBSCRIBE", "UNSUBSCRIBE"} {
		if strings.HasPrefix(command, v) {
			verb, args = v, strings.TrimSpace(command[len(v):])
			break
		}
	}
	if uid := s.server.unwilling[verb]; uid != 0 {
		if set, _, _ := strings.Cut(args, " "); slices.Contains(parseUIDs(set), uid) {
			ex.Status, ex.Text = "NO", "not this one"
			return ex, nil
		}
	}
	if err := s.server.refuses[verb]; err != nil {
		if err.Kind == mail.KindCut {
			s.dead, s.name = true, ""
			return ex, err
		}
		ex.Status, ex.Code, ex.Text = "NO", err.Code, err.Text
		return ex, nil
	}
	if verb != "UID FETCH" && verb != "NAMESPACE" {
		elsewhere := []string{"CREATE", "DELETE", "SUBSCRIBE", "UNSUBSCRIBE", "UID COPY"} // not of the mailbox that is selected
		if b := s.server.boxes[s.name]; !slices.Contains(elsewhere, verb) && b != nil && b.readOnly {
			ex.Status, ex.Code, ex.Text = "NO", "READ-ONLY", "not here"
			return ex, nil
		}
		defer func() {
			if s.server.unheard {
				s.dead, s.name = true, ""
				err = &mail.Fault{Kind: mail.KindCut, Op: verb}
			}
		}()
		if s.server.effect != nil {
			defer s.server.effect(verb)
		}
		if s.server.writes++; s.server.writes == s.server.cutAt {
			if s.server.lingers && (verb == "UID COPY" || verb == "UID MOVE") {
				s.server.lingersAt(verb, s.server.boxes[s.name], args)
				s.dead, s.name = true, ""
				return ex, &mail.Fault{Kind: mail.KindCut, Op: verb}
			}
			defer func() { s.dead, s.name = true, "" }()
			defer func() { err = &mail.Fault{Kind: mail.KindCut, Op: verb} }()
		}
	}
	b := s.server.boxes[s.name]
	switch verb {
	case "UID STORE":
		set, rest, _ := strings.Cut(args, " ")
		for _, uid := range parseUIDs(set) {
			if m := b.msgs[uid]; m != nil {
				flag := strings.Trim(rest[strings.IndexByte(rest, '('):], "()")
				if s.server.forgets != nil && s.server.forgets(uid, flag) {
					continue
				}
				m.flags = slices.DeleteFunc(slices.Clone(m.flags), func(f string) bool { return strings.EqualFold(f, flag) })
				if rest[0] == '+' {
					m.flags = append(m.flags, flag)
				}
				if s.server.stuck {
					continue
				}
				b.modseq++
				m.modseq = b.modseq
			}
		}
	case "EXPUNGE", "UID EXPUNGE":
		if verb == "UID EXPUNGE" && !s.Has("UIDPLUS") {
			ex.Status = "BAD"
			break
		}
		for _, uid := range b.uids() {
			if slices.Contains(b.msgs[uid].flags, `\Deleted`) && (args == "" || slices.Contains(parseUIDs(args), uid)) {
				b.expunge(uid)
			}
		}
	case "UID MOVE", "UID COPY":
		set, name, _ := strings.Cut(args, " ")
		to := s.server.boxes[strings.Trim(name, `"`)]
		if to == nil {
			ex.Status, ex.Code = "NO", "TRYCREATE"
			break
		}
		if to.readOnly {
			ex.Status, ex.Code, ex.Text = "NO", "NOPERM", "not there"
			break
		}
		var from, dest []string
		var validity, told uint64
		for _, uid := range parseUIDs(set) {
			m := b.msgs[uid]
			if m == nil {
				continue
			}
			validity, told = to.validity, uint64(to.next)
			if s.server.lies != nil {
				s.server.lies(&validity, &told)
			}
			from, dest = append(from, fmt.Sprint(uid)), append(dest, fmt.Sprint(told))
			copied := to.msgs[to.add(m.raw, slices.Clone(m.flags)...)]
			copied.date = m.date
			if verb == "UID MOVE" {
				b.expunge(uid)
			}
		}
		if !s.server.mute && len(from) > 0 {
			ex.Untagged = []string{fmt.Sprintf("OK [COPYUID %d %s %s] done", validity, strings.Join(from, ","), strings.Join(dest, ","))}
		}
	case "CREATE":
		s.server.create(ex, strings.Trim(args, `"`))
	case "DELETE":
		name := strings.Trim(args, `"`)
		if s.server.boxes[name] == nil {
			ex.Status, ex.Code = "NO", "NONEXISTENT"
			break
		}
		s.server.drop(name)
	case "SUBSCRIBE", "UNSUBSCRIBE":
		if s.server.subscribed == nil {
			s.server.subscribed = map[string]bool{}
		}
		s.server.subscribed[strings.Trim(args, `"`)] = verb == "SUBSCRIBE"
	case "NAMESPACE":
		ex.Untagged = []string{fmt.Sprintf(`NAMESPACE (("%s" "%c")) NIL NIL`, s.server.prefix, s.server.separator())}
	case "UID FETCH":
		return s.exchangeFetch(ctx, ex, args)
	default:
		ex.Status = "BAD"
	}
	return ex, nil
}

func parseUIDs(set string) (uids []imap.UID) {
	for part := range strings.SplitSeq(set, ",") {
		var a, b imap.UID
		if n, _ := fmt.Sscanf(part, "%d:%d", &a, &b); n == 1 {
			b = a
		}
		for u := a; u <= b; u++ {
			uids = append(uids, u)
		}
	}
	return uids
}

func (s *session) exchangeFetch(ctx context.Context, ex *mail.Exchange, args string) (*mail.Exchange, error) {
	var uid imap.UID
	if _, err := fmt.Sscanf(args, "%d", &uid); err != nil {
		return nil, err
	}
	item := strings.TrimSuffix(args[strings.IndexByte(args, '(')+1:], ")")
	if fields, ok := strings.CutPrefix(item, "UID BODY.PEEK[HEADER.FIELDS"); ok {
		for _, u := range parseUIDs(args[:strings.IndexByte(args, ' ')]) {
			m := s.server.boxes[s.name].msgs[u]
			if m == nil || m.fault != nil {
				continue
			}
			head, _, _ := strings.Cut(m.raw, "\r\n\r\n")
			ex.Fetched = append(ex.Fetched, mail.Fetched{Message: mail.Message{UID: u}, Items: map[string]mail.Value{"BODY[HEADER.FIELDS" + fields: {Text: []byte(head + "\r\n\r\n")}}})
		}
		return ex, nil
	}
	m := s.server.boxes[s.name].msgs[uid]
	if m == nil || m.fault == nil {
		return ex, nil
	}
	has := func(name, text string) {
		ex.Fetched = []mail.Fetched{{Message: mail.Message{UID: uid}, Items: map[string]mail.Value{name: {Text: []byte(text[:min(len(text), 1<<20)]), Size: int64(len(text))}}}}
	}
	if item == "FLAGS" && !m.fault.death {
		has(item, strings.Join(m.flags, " "))
		ex.Fetched[0].Flags = m.flags
	}
	if text, ok := m.fault.items[item]; ok {
		if m.fault.sets && strings.HasPrefix(item, "BODY[") && !slices.Contains(m.flags, `\Seen`) {
			m.flags = append(m.flags, `\Seen`)
		}
		has(strings.Replace(item, ".PEEK", "", 1), text)
		s.left = m.fault.leaves && item == "BODY[]"
	}
	if slices.Contains(m.fault.silent, item) {
		<-ctx.Done()
		s.dead, s.name = true, ""
		return &mail.Exchange{}, ctx.Err()
	}
	if m.fault.death {
		s.dead, s.name = true, ""
		return ex, &mail.Fault{Kind: mail.KindCut}
	}
	return ex, nil
}

func (s *session) Select(ctx context.Context, name string) (*mail.Selected, error) {
	if s.server.noSelect {
		return nil, &mail.Fault{Kind: mail.KindNo, Op: "SELECT", Text: "in use"}
	}
	if b := s.server.boxes[name]; b != nil && b.refuseSelect != nil {
		defer s.ask("SELECT %s", name)()
		return nil, b.refuseSelect
	}
	sel, err := s.Examine(ctx, name, nil)
	if err == nil {
		sel.PermanentFlags, sel.ReadOnly = s.server.permanent, s.server.boxes[name].readOnly
	}
	return sel, err
}

func (s *session) Append(ctx context.Context, name string, uploads []mail.Upload, stored func(int, mail.Appended), then *mail.Known) ([]mail.Appended, error) {
	out, err := s.append(name, uploads, stored)
	if err == nil && then != nil && s.Has("QRESYNC") {
		if sel, err := s.Examine(ctx, name, then); err == nil && sel.Resynced {
			s.ahead, s.aheadOf = sel, name
		}
	}
	return out, err
}

func (s *session) append(name string, uploads []mail.Upload, stored func(int, mail.Appended)) ([]mail.Appended, error) {
	defer s.ask("APPEND %s %d", name, len(uploads))()
	out := make([]mail.Appended, len(uploads))
	b := s.server.boxes[name]
	tell := func(i int) {
		s.server.mu.Unlock() // who hears of it may look at the server
		stored(i, out[i])
		s.server.mu.Lock()
	}
	together := len(uploads) > 1 && !uploads[0].Alone && s.Has("MULTIAPPEND")
	if together {
		unwanted := slices.IndexFunc(uploads, func(u mail.Upload) bool { return s.server.unwanted(u) })
		for i := range out {
			if unwanted >= 0 {
				out[i] = mail.Appended{Err: &mail.Fault{Kind: mail.KindNo, Op: "APPEND", Code: "TOOBIG", Text: "too big"}, Together: true}
			}
		}
		if unwanted >= 0 {
			for _, u := range uploads[:unwanted] {
				if raw, err := os.ReadFile(u.Path); err == nil && s.server.partly {
					uid := b.add(strings.ReplaceAll(strings.ReplaceAll(string(raw), "\r\n", "\n"), "\n", "\r\n"), u.Flags...)
					b.msgs[uid].date = u.InternalDate
				}
			}
			return out, nil
		}
	}
	for i, u := range uploads {
		raw, err := os.ReadFile(u.Path)
		if err != nil {
			out[i].Err = err
			continue
		}
		f := s.server.refuses["APPEND"]
		if b.readOnly {
			f = &mail.Fault{Kind: mail.KindNo, Code: "NOPERM", Text: "not here"}
		}
		if f != nil {
			out[i].Err = f
			continue
		}
		if s.server.unwanted(u) {
			out[i].Err = &mail.Fault{Kind: mail.KindNo, Op: "APPEND", Code: "TOOBIG", Text: "too big"}
			continue
		}
		wire := strings.ReplaceAll(strings.ReplaceAll(string(raw), "\r\n", "\n"), "\n", "\r\n")
		if int64(len(wire)) != u.Size {
			return out, fmt.Errorf("%s has %d bytes, announced were %d", u.Path, len(wire), u.Size)
		}
		if s.server.dedup {
			s.server.writes++
			out[i] = mail.Appended{UIDValidity: b.validity, UID: 1}
			tell(i)
			continue
		}
		uid := b.add(wire+s.server.footer, u.Flags...)
		b.msgs[uid].date = u.InternalDate
		if s.server.footer != "" {
			b.msgs[uid].date = b.msgs[uid].date.Add(time.Hour)
		}
		if s.server.effect != nil {
			s.server.effect("APPEND")
		}
		if s.server.writes++; s.server.writes == s.server.cutAt || s.server.unheard {
			s.dead, s.name = true, ""
			err := &mail.Fault{Kind: mail.KindCut, Op: "APPEND"}
			for j := i; j < len(out); j++ {
				out[j].Err = err
				if raw, e := os.ReadFile(uploads[j].Path); s.server.lingers && j > i && e == nil {
					s.server.late = append(s.server.late, func() {
						s.server.mu.Lock()
						defer s.server.mu.Unlock()
						b.msgs[b.add(strings.ReplaceAll(string(raw), "\n", "\r\n"), uploads[j].Flags...)].date = uploads[j].InternalDate
					})
				}
			}
			return out, err
		}
		if !s.server.mute {
			validity, told := b.validity, uint64(uid)
			if s.server.lies != nil {
				s.server.lies(&validity, &told)
			}
			out[i] = mail.Appended{UIDValidity: validity, UID: imap.UID(told)}
		}
		tell(i)
	}
	return out, nil
}

// lingersAt has the server take later what a mailbox holds now into another one, message by message.
func (s *server) lingersAt(verb string, b *serverBox, args string) {
	set, name, _ := strings.Cut(args, " ")
	to := s.boxes[strings.Trim(name, `"`)]
	for _, uid := range parseUIDs(set) {
		m := b.msgs[uid]
		if m == nil {
			continue
		}
		s.late = append(s.late, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			to.msgs[to.add(m.raw, slices.Clone(m.flags)...)].date = m.date
			if verb == "UID MOVE" && b.msgs[uid] != nil {
				b.expunge(uid)
			}
		})
	}
}

// catchUp has the server do so many of the things that it lingers at.
func (s *server) catchUp(n int) {
	for ; n > 0; n-- {
		s.mu.Lock()
		do := func() {}
		if len(s.late) > 0 {
			do, s.late = s.late[0], s.late[1:]
		}
		s.mu.Unlock()
		do()
	}
}

// unwanted tells whether the server refuses a mail.
func (s *server) unwanted(u mail.Upload) bool {
	raw, err := os.ReadFile(u.Path)
	return err == nil && s.picky != "" && strings.Contains(string(raw), s.picky)
}

func (s *session) Deleted(context.Context) (out imap.UIDSet, err error) {
	defer s.ask("SEARCH DELETED")()
	if s.server.blind != nil {
		return s.server.blind, nil
	}
	s.each(mail.EveryUID(), func(u imap.UID, m *serverMail) bool {
		if slices.Contains(m.flags, `\Deleted`) {
			out.AddNum(u)
		}
		return true
	})
	return out, nil
}
