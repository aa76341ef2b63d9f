package plan

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
)

// Evidence is what is known of the messages beside what the server lists of them.
type Evidence struct {
	// Told has the keys of files by the UIDs that the server said it gave them
	// (APPENDUID, COPYUID).
	Told map[imap.UID]string
	// Sent are the keys of files that were put on the server, which did not say what UIDs it gave
	// them. They are those of no messages before Since.
	Sent  map[string]bool
	Since imap.UID
	// Text has the digests of messages whose text was fetched; zero if it did not come.
	Text map[imap.UID]mail.Digest
	// Stays has the keys of originals that are still where they were on the server, or
	// were in the same mailbox: what has the same header is a copy, or another mail.
	Stays map[string]bool
	// Exact wants what a copy on the server has: Message-ID, size and date, or none; of mail without
	// Message-ID its text.
	Exact bool
	// Drafts: the mailbox is for drafts. Their writers change the text and keep the
	// Message-ID, so that only the text tells one version from another.
	Drafts bool
	// Doubtful wants the text of every message.
	Doubtful bool
}

// wary tells whether headers do not decide that a message is a file.
func (e Evidence) wary(m mail.Message, h Untracked) bool {
	_, letters := maildir.ParseName(h.Name)
	return e.Doubtful || e.Exact && m.MessageID == "" || e.Drafts || DraftsName(h.Mailbox) || HasFlag(m.Flags, `\Draft`) || HasFlag(h.Flags, `\Draft`) || strings.Contains(letters, "D")
}

// DraftsName tells whether a mailbox is for drafts by its name.
func DraftsName(mailbox string) bool { return strings.HasSuffix(strings.ToLower(mailbox), "drafts") }

// ForDrafts tells whether a mailbox is for drafts (RFC 6154).
func ForDrafts(m mail.Mailbox) bool {
	return DraftsName(m.Name) || slices.ContainsFunc(m.Attrs, func(a string) bool { return strings.EqualFold(a, `\Drafts`) })
}

// Pair finds those of the server's messages that are files of ours, or rows, as Judge says. What
// is surest comes first.
//
// Where more than one message or file fits, the text decides. ask are the messages whose
// text is wanted for that: when it is in Evidence.Text, Pair is called again. Where that
// decides nothing, they are nobody's.
func Pair(server []mail.Message, here []Untracked, e Evidence) (pairs map[imap.UID]Untracked, ask []imap.UID) {
	p := &pairing{Evidence: e, here: here, files: make([]Traits, len(here)), used: make([]bool, len(here)), unsure: make([]bool, len(here)), out: make(map[imap.UID]Untracked)}
	byKey, byID, bySize := make(map[string][]int), make(map[string][]int), make(map[int64][]int)
	for i, h := range here {
		id := mail.NotmuchID(h.ID)
		p.files[i] = h.Traits()
		byKey[h.Key] = append(byKey[h.Key], i)
		byID[id] = append(byID[id], i)
		bySize[h.Size] = append(bySize[h.Size], i)
		if h.Added > 0 {
			bySize[h.Size-h.Added] = append(bySize[h.Size-h.Added], i)
		}
	}
	for _, m := range server {
		if m.UID != 0 {
			p.server = append(p.server, m)
		}
	}
	slices.SortFunc(p.server, func(a, b mail.Message) int { return cmp.Compare(a.UID, b.UID) })
	p.server = slices.CompactFunc(p.server, func(a, b mail.Message) bool { return a.UID == b.UID })
	for _, m := range p.server {
		p.there = append(p.there, e.of(m))
	}
	p.toldOf = make(map[string]imap.UID, len(e.Told))
	for _, u := range slices.Sorted(maps.Keys(e.Told)) {
		p.toldOf[e.Told[u]] = u
	}
	p.doubtful = make([]bool, len(p.server))
	sameID := func(m mail.Message) []int { return byID[m.MessageID] }
	sameSize := func(m mail.Message) []int { return bySize[m.Size] }
	// What the server told stands, unless others fit, too: there are servers that mix the
	// numbers up.
	p.try(func(m mail.Message) []int {
		if k, ok := e.Told[m.UID]; ok {
			return append(slices.Clone(byKey[k]), sameID(m)...)
		}
		return sameID(m)
	}, func(i, k int, w Weight) bool {
		return p.told(i, k) || w.Size == Equal && w.Date == Equal || p.contradicted(i, k) && here[k].ID != "" && (w.Size >= Near || w.Date == Equal)
	})
	p.try(sameSize, func(_, _ int, w Weight) bool { return w.Date == Equal && (w.Nameless || w.ID == Missing && !e.Exact) })
	if e.Exact {
		p.try(sameID, func(_, _ int, w Weight) bool { return w.ID == Equal && w.Exact() })
	} else {
		// Of mail without Message-ID that another program fetched nothing else tells.
		p.byText = true
		p.try(sameSize, func(_, k int, w Weight) bool { return w.Nameless && !here[k].Digest.IsZero() })
		p.byText = false
		p.try(sameID, func(_, _ int, w Weight) bool { return w.ID == Equal && w.Size == Equal })
		// A twin is another message's file as well as this one's: it wants sure evidence.
		p.try(sameID, func(_, k int, w Weight) bool {
			return w.ID == Equal && !here[k].Twin && (w.Size >= Near || w.Date == Equal)
		})
		// A mail that was just sent, saved here by Mutt and there by the server with
		// headers of its own.
		p.try(sameID, func(_, k int, w Weight) bool { return w.ID == Equal && !here[k].Twin && w.Date >= Near })
		// A second copy that another program has sent, with a header field and at a date of its
		// own.
		p.byText = true
		p.try(sameID, func(_, k int, w Weight) bool { return w.ID == Equal && here[k].Twin && !here[k].Digest.IsZero() })
	}
	return p.out, p.ask
}

// of are the traits of a message, with its text if that was fetched.
func (e Evidence) of(m mail.Message) Traits {
	t := Told(m)
	t.text = e.Text[m.UID]
	return t
}

// pairing is the work of Pair.
type pairing struct {
	Evidence
	server           []mail.Message
	here             []Untracked
	there, files     []Traits            // of server and here
	used             []bool              // of here, it has its message
	doubtful, unsure []bool              // of server and here: more than one fitted, and only the text decides
	toldOf           map[string]imap.UID // Told the other way round
	byText           bool                // what fits is paired by its text alone
	out              map[imap.UID]Untracked
	ask              []imap.UID
}

// told tells whether the server said that a message is a file, and that can be.
func (p *pairing) told(i, k int) bool {
	key, said := p.Told[p.server[i].UID]
	return said && key == p.here[k].Key && Weigh(p.there[i], p.files[k]).Upheld()
}

// contradicted tells whether the server said that a message, or a file, is another one's, or had the
// message before it was given the file.
func (p *pairing) contradicted(i, k int) bool {
	key, said := p.Told[p.server[i].UID]
	u, saidOf := p.toldOf[p.here[k].Key]
	return said && key != p.here[k].Key || saidOf && u != p.server[i].UID || p.Sent[p.here[k].Key] && p.server[i].UID < p.Since
}

// try pairs by one kind of evidence what no surer one has paired.
func (p *pairing) try(candidates func(mail.Message) []int, good func(i, k int, w Weight) bool) {
	fits := make(map[int][]int)   // of here by place in server
	fitted := make(map[int][]int) // the other way round
	for i, m := range p.server {
		if _, done := p.out[m.UID]; done {
			continue
		}
		for _, k := range candidates(m) {
			if !p.used[k] && !slices.Contains(fits[i], k) && good(i, k, Weigh(p.there[i], p.files[k])) {
				fits[i], fitted[k] = append(fits[i], k), append(fitted[k], i)
			}
		}
	}
	seen := make(map[int]bool)
	for i := range p.server {
		if len(fits[i]) == 0 || seen[i] {
			continue
		}
		// All that fit each other, over whatever others.
		there, here := []int{i}, []int(nil)
		seen[i] = true
		has := make(map[int]bool)
		for n := 0; n < len(there); n++ {
			for _, k := range fits[there[n]] {
				if has[k] {
					continue
				}
				has[k] = true
				here = append(here, k)
				for _, j := range fitted[k] {
					if !seen[j] {
						seen[j] = true
						there = append(there, j)
					}
				}
			}
		}
		slices.Sort(there)
		p.decide(there, here, fits)
	}
}

// decide pairs messages and files that fit each other.
func (p *pairing) decide(there, here []int, fits map[int][]int) {
	alike := true // all files are one mail, so that it does not matter which it is
	text, told := p.byText, true
	for _, k := range here {
		alike = alike && (k == here[0] || Weigh(p.files[k], p.files[here[0]]).Text == Equal)
		text = text || p.unsure[k]
	}
	for _, i := range there {
		said := false
		text = text || p.doubtful[i]
		for _, k := range fits[i] {
			is := p.told(i, k)
			said = said || is
			text = text || !is && (p.wary(p.server[i], p.here[k]) && !p.here[k].Digest.IsZero() || p.contradicted(i, k))
		}
		told = told && said
	}
	if !text && alike && (len(there) == 1 || told) {
		p.inOrder(there, fits, p.told)
		p.inOrder(there, fits, func(_, _ int) bool { return true })
		return
	}
	asked := false
	texts := make(map[mail.Digest]bool)
	for _, i := range there {
		d, ok := p.Text[p.server[i].UID]
		if !ok {
			p.ask, asked = append(p.ask, p.server[i].UID), true
		}
		texts[d] = true
	}
	if !asked {
		is := func(i, k int) bool { return Weigh(p.there[i], p.files[k]).Text == Equal }
		p.inOrder(there, fits, is)
		// A server that changes what it is given has no text that is a file's.
		p.inOrder(there, fits, func(i, k int) bool {
			return p.told(i, k) && !slices.ContainsFunc(here, func(k int) bool { return is(i, k) })
		})
		if !text && alike && len(texts) == 1 && !texts[mail.Digest{}] {
			// Copies of one mail, which the server has changed.
			p.inOrder(there, fits, func(_, _ int) bool { return true })
		}
	}
	for _, i := range there {
		p.doubtful[i] = true
	}
	for _, k := range here {
		p.unsure[k] = true
	}
}

// inOrder pairs each message with the first file that fits it and is good.
func (p *pairing) inOrder(there []int, fits map[int][]int, good func(i, k int) bool) {
	for _, i := range there {
		u := p.server[i].UID
		if _, done := p.out[u]; done {
			continue
		}
		for _, k := range fits[i] {
			if !p.used[k] && good(i, k) {
				p.used[k], p.out[u] = true, p.here[k]
				break
			}
		}
	}
}

// Copies finds those of the server's messages that are copies of messages which are
// here: each in every respect as the server has it, or as it said itself (e.Told, by
// Key). A row may be the original of several. Where there are several originals, or
// several messages that may be one, be it that which the row is of, or there is no Message-ID,
// the text decides, as Pair says: notmuch names such a mail by the bytes of its file, which has
// more of them than the server's where another program fetched it.
func Copies(server []mail.Message, rows []ledger.Message, e Evidence) (copies map[imap.UID]ledger.Message, ask []imap.UID) {
	type class struct {
		id   string
		size int64
		date int64
	}
	of := func(id string, size int64, date time.Time) class { return class{id, size, date.Unix()} }
	byID, several := make(map[string][]ledger.Message), make(map[class]int)
	byKey := make(map[string]ledger.Message, len(rows))
	for _, r := range rows {
		byKey[r.Key] = r
		if r.ID == "" {
			continue
		}
		byID[mail.NotmuchID(r.ID)] = append(byID[mail.NotmuchID(r.ID)], r)
		if RealID(r.ID) == "" {
			byID[""] = append(byID[""], r)
		}
	}
	for _, m := range server {
		several[of(m.MessageID, m.Size, m.InternalDate)]++
	}
	copies = make(map[imap.UID]ledger.Message)
	for _, m := range server {
		told := e.of(m)
		key, hinted := e.Told[m.UID]
		row, said := byKey[key]
		said = hinted && said && Weigh(told, Agreed(&row)).Upheld()
		var fits, may []ledger.Message
		if said {
			fits = append(fits, row)
		}
		for _, r := range byID[m.MessageID] {
			switch w := Weigh(told, Agreed(&r)); {
			case said && r.Key == row.Key:
			case w.Exact() && w.Date == Equal:
				fits = append(fits, r)
			case w.Exact(): // one of the two dates was not told
				may = append(may, r)
			}
		}
		if len(fits) == 0 {
			fits, may = may, nil // nothing contradicts, and what went elsewhere is not here twice
		}
		if len(fits) == 0 {
			continue
		}
		best := fits[0]
		sure := said || m.MessageID != "" && several[of(m.MessageID, m.Size, m.InternalDate)] == 1 && !e.Stays[best.Key] && !hinted
		for _, r := range slices.Concat(fits, may) {
			same := r.Key == best.Key
			sure = sure && (same || Weigh(Agreed(&r), Agreed(&best)).Text == Equal) && (said && same || r.Digest.IsZero() || !e.wary(m, Untracked{Message: r}))
		}
		_, known := e.Text[m.UID]
		switch {
		case sure:
			copies[m.UID] = best
		case !known:
			ask = append(ask, m.UID)
		default:
			fits = append(fits, may...)
			if i := slices.IndexFunc(fits, func(r ledger.Message) bool { return Weigh(told, Agreed(&r)).Text == Equal }); i >= 0 {
				copies[m.UID] = fits[i]
			}
		}
	}
	return copies, ask
}

// Unsure gives those messages that have the Message-ID of one of the files, where none is
// another's: they are different mails, or one that was changed on the way.
func Unsure(server []mail.Message, here []Untracked) (uids []imap.UID) {
	ids := make(map[string]int, len(here))
	for _, h := range here {
		ids[mail.NotmuchID(h.ID)]++
	}
	for _, m := range server {
		if m.MessageID != "" && ids[m.MessageID] > 0 {
			ids[m.MessageID]--
			uids = append(uids, m.UID)
		}
	}
	return uids
}
