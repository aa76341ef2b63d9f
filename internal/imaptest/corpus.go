package imaptest

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"mime"
	"mime/quotedprintable"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// typicalBody is the median size of a text, in characters; with a header
	// as real servers write it the median mail has about 4 kB.
	typicalBody = 1600
	// typicalFile and largestFile are sizes of attachments in octets, before
	// base64 makes them a third larger: a mail of 1 MB is about the largest.
	typicalFile = 30 << 10
	largestFile = 740 << 10
	// openThreads is how many conversations go on at a time.
	openThreads = 40
	// longestReferences is where mailers begin to cut References.
	longestReferences = 12
)

// Corpus yields n mails as they are found in a real mailbox, oldest first, each
// with its date and in CRLF lines. Sizes have a median of about 4 kB and a tail
// to about 1 MB. There are threads (In-Reply-To, References), mailing lists,
// HTML alternatives, attachments, texts in UTF-8, ISO-8859-1 and KOI8-R, headers
// with raw 8-bit characters (which RFC 5322 forbids and people send) and, once
// in some hundred, a mail without a Message-ID. No other Message-ID comes twice,
// not even with another seed.
//
// The same seed and n yield the same mails; the first k of n are those of k.
// The slice is the caller's.
func Corpus(seed uint64, n int) iter.Seq2[time.Time, []byte] {
	return func(yield func(time.Time, []byte) bool) {
		c := newCorpus(seed)
		for range n {
			c.count++
			c.date = c.date.Add(time.Duration(1+c.r.IntN(3600)) * time.Second)
			if !yield(c.date, c.mail()) {
				return
			}
		}
	}
}

// corpus is one run through the mails.
type corpus struct {
	r       *rand.Rand
	common  *rand.Zipf
	seed    uint64
	count   int
	date    time.Time
	threads []*thread
}

// thread is a conversation that is still going on.
type thread struct {
	subject string
	ids     []string
	lang    *language
	list    string // "" between people
}

func newCorpus(seed uint64) *corpus {
	r := rand.New(rand.NewPCG(seed, 0x6e6f746d756368))
	return &corpus{
		r: r, seed: seed, date: time.Date(2021, 3, 1, 8, 0, 0, 0, time.UTC),
		common: rand.NewZipf(r, 1.15, 6, 40_000),
	}
}

// language is what a mail is written in.
type language struct {
	words     []string // the most frequent first
	syllables []string // what the rarer words are made of
	people    []string
	encodings []encoding
}

// encoding is a charset with the Content-Transfer-Encoding that it goes with.
type encoding struct{ charset, transfer string }

// languages gives them anew: there is no package state.
func languages() []*language {
	english := &language{
		words:     strings.Fields("the to of and a in is that it for you on with this be have are not as at we but if or can will from by patch there they do so would what your an one all was more about when which out up some them then than"),
		syllables: strings.Fields("ver con tion pre ment ing ser ta lo mi ker nel mail box in der able ful out sta re ge li no pa ro sen du quo"),
		people:    []string{"Alice Walker", "Bob Carter", "Carol Jones", "Dan O'Neil", "Erin Smith", "Frank Miller"},
		encodings: []encoding{{"us-ascii", "7bit"}, {"us-ascii", "7bit"}, {"utf-8", "7bit"}, {"utf-8", "quoted-printable"}},
	}
	german := &language{
		words:     strings.Fields("der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er hat dass sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber vor zur bis mehr durch grüße können"),
		syllables: strings.Fields("ver ge be schaft ung lich keit tür über stra ße rech nung ter min haus än de wo chen en de mä rz fra gen"),
		people:    []string{"Jörg Müller", "Käthe Groß", "Anna Schäfer", "Björn Weiß", "Uwe Lange"},
		encodings: []encoding{{"utf-8", "quoted-printable"}, {"utf-8", "8bit"}, {"iso-8859-1", "quoted-printable"}, {"iso-8859-1", "8bit"}},
	}
	russian := &language{
		words:     strings.Fields("и в не на я быть он с что а по это она этот к но они мы весь который из у который то за свой весь год от так о для ты же все тот мочь вы человек такой его сказать только или ещё бы себя один как уже до время если"),
		syllables: strings.Fields("пре до ста ние про ра бо та со об ще пись мо сер вер поч та ко ман да ве че ру лю ди"),
		people:    []string{"Иван Петров", "Мария Соколова", "Олег Кузнецов", "Анна Орлова"},
		encodings: []encoding{{"utf-8", "base64"}, {"koi8-r", "base64"}, {"koi8-r", "8bit"}, {"utf-8", "quoted-printable"}},
	}
	return []*language{english, english, english, english, english, english, english, german, german, russian}
}

// mail makes the next one.
func (c *corpus) mail() []byte {
	t, reply := c.thread()
	e := pick(c.r, t.lang.encodings)
	// A name or subject in raw bytes is in the charset of the text.
	word := func(s string) string { return headerWord(e, s) }
	if c.r.IntN(50) == 0 {
		word = func(s string) string { return string(encode(e.charset, s)) }
	}
	name := pick(c.r, t.lang.people)
	address := fmt.Sprintf("user%d@example.%s", c.r.IntN(400), pick(c.r, []string{"org", "com", "net"}))

	var b bytes.Buffer
	c.trace(&b)
	fmt.Fprintf(&b, "From: %s <%s>\r\n", word(name), address)
	if t.list != "" {
		fmt.Fprintf(&b, "To: %s@lists.example.org\r\nCc: %s <me@example.org>\r\n", t.list, word(pick(c.r, t.lang.people)))
	} else {
		b.WriteString("To: me@example.org\r\n")
	}
	subject := t.subject
	if reply {
		subject = "Re: " + subject
	}
	if t.list != "" {
		subject = strings.Replace("["+t.list+"] "+subject, "] Re: ", "] ", 1)
	}
	fmt.Fprintf(&b, "Subject: %s\r\nDate: %s\r\n", word(subject), c.date.Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	if len(t.ids) > 0 {
		last := t.ids[len(t.ids)-1]
		refs := t.ids[max(0, len(t.ids)-longestReferences):]
		fmt.Fprintf(&b, "In-Reply-To: %s\r\nReferences: %s\r\n", last, strings.Join(refs, "\r\n "))
	}
	if c.r.IntN(300) != 0 {
		id := fmt.Sprintf("<%s.%x.%d@mail%d.example.org>", c.date.Format("20060102150405"), c.seed, c.count, c.r.IntN(20))
		fmt.Fprintf(&b, "Message-ID: %s\r\n", id)
		t.ids = append(t.ids, id)
	}
	if t.list != "" {
		fmt.Fprintf(&b, "List-Id: The %[1]s list <%[1]s.lists.example.org>\r\n"+
			"List-Unsubscribe: <https://lists.example.org/options/%[1]s>,\r\n <mailto:%[1]s-request@lists.example.org?subject=unsubscribe>\r\n"+
			"List-Post: <mailto:%[1]s@lists.example.org>\r\nErrors-To: %[1]s-bounces@lists.example.org\r\nPrecedence: list\r\n", t.list)
	}
	b.WriteString("MIME-Version: 1.0\r\n")
	c.body(&b, t, e)
	return b.Bytes()
}

// thread gives the conversation that the next mail belongs to, and whether that
// has a mail already.
func (c *corpus) thread() (t *thread, reply bool) {
	if len(c.threads) > 0 && c.r.IntN(100) < 55 {
		t = pick(c.r, c.threads)
		return t, len(t.ids) > 0
	}
	t = &thread{lang: pick(c.r, languages())}
	t.subject = strings.TrimSuffix(c.sentence(t.lang, 2+c.r.IntN(6)), ".")
	if c.r.IntN(100) < 35 {
		t.list = fmt.Sprintf("%s-devel", pick(c.r, []string{"kernel", "mail", "index", "editor", "music"}))
	}
	if len(c.threads) < openThreads {
		c.threads = append(c.threads, t)
	} else {
		c.threads[c.r.IntN(openThreads)] = t
	}
	return t, false
}

// trace writes what servers put on top of a mail.
func (c *corpus) trace(b *bytes.Buffer) {
	fmt.Fprintf(b, "Return-Path: <bounce-%d@example.org>\r\n", c.count)
	for range 2 + c.r.IntN(3) {
		fmt.Fprintf(b, "Received: from mx%d.example.org (mx%d.example.org [192.0.2.%d])\r\n\tby mail.example.com (Postfix) with ESMTPS id %X\r\n\tfor <me@example.org>; %s\r\n",
			c.r.IntN(9), c.r.IntN(9), c.r.IntN(255), c.r.Uint32(), c.date.Format("Mon, 02 Jan 2006 15:04:05 -0700 (MST)"))
	}
	if c.r.IntN(100) < 70 {
		b.WriteString("DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=mail;\r\n\th=from:to:subject:date:message-id; b=")
		signature := base64.StdEncoding.EncodeToString(c.random(256))
		for len(signature) > 68 {
			b.WriteString(signature[:68] + "\r\n\t ")
			signature = signature[68:]
		}
		b.WriteString(signature + "\r\n")
	}
}

// body writes the Content-Type fields, the empty line and what follows.
func (c *corpus) body(b *bytes.Buffer, t *thread, e encoding) {
	text := c.text(t.lang, c.lognormal(typicalBody, 0.9, 120<<10))
	html := t.list == "" && c.r.IntN(100) < 45
	if c.r.IntN(100) >= 8 {
		c.textPart(b, e, text, html, "alternative")
		return
	}
	boundary := fmt.Sprintf("=_mixed_%d_%x", c.count, c.r.Uint64())
	fmt.Fprintf(b, "Content-Type: multipart/mixed; boundary=\"%s\"\r\n\r\nThis is a message in MIME format.\r\n--%s\r\n", boundary, boundary)
	c.textPart(b, e, text, html, "mixed-alternative")
	for i := range 1 + c.r.IntN(2) {
		kind := pick(c.r, []string{"application/pdf", "image/jpeg", "application/zip", "application/octet-stream"})
		fmt.Fprintf(b, "\r\n--%s\r\nContent-Type: %s; name=\"file%d.bin\"\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=\"file%d.bin\"\r\n\r\n", boundary, kind, i, i)
		writeBase64(b, c.random(c.lognormal(typicalFile, 1.2, largestFile)/(i+1)))
	}
	fmt.Fprintf(b, "\r\n--%s--\r\n", boundary)
}

// textPart writes text as one part, or as plain text and HTML.
func (c *corpus) textPart(b *bytes.Buffer, e encoding, text string, html bool, label string) {
	if !html {
		writeText(b, "plain", e, text)
		return
	}
	boundary := fmt.Sprintf("=_%s_%d_%x", label, c.count, c.r.Uint64())
	fmt.Fprintf(b, "Content-Type: multipart/alternative; boundary=\"%s\"\r\n\r\n--%s\r\n", boundary, boundary)
	writeText(b, "plain", e, text)
	fmt.Fprintf(b, "\r\n--%s\r\n", boundary)
	paragraphs := strings.ReplaceAll(text, "\n\n", "</p>\n<p style=\"margin: 0 0 1em 0; font-family: sans-serif\">")
	writeText(b, "html", e, "<html><head><meta charset=\""+e.charset+"\"></head>\n<body>\n<p>"+paragraphs+"</p>\n</body></html>\n")
	fmt.Fprintf(b, "\r\n--%s--\r\n", boundary)
}

// text makes paragraphs of lines below 78 characters, about size characters in
// all, some of them quoted.
func (c *corpus) text(l *language, size int) string {
	var b strings.Builder
	for b.Len() < size {
		prefix := ""
		if c.r.IntN(4) == 0 {
			prefix = "> "
		}
		for range 1 + c.r.IntN(5) {
			line := prefix
			for _, w := range strings.Fields(c.sentence(l, 6+c.r.IntN(20))) {
				if utf8.RuneCountInString(line)+utf8.RuneCountInString(w) > 72 {
					b.WriteString(strings.TrimSuffix(line, " ") + "\n")
					line = prefix
				}
				line += w + " "
			}
			b.WriteString(strings.TrimSuffix(line, " ") + "\n")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// sentence makes n words with a capital at the beginning.
func (c *corpus) sentence(l *language, n int) string {
	words := make([]string, n)
	for i := range words {
		words[i] = l.word(c.common.Uint64())
	}
	first, size := utf8.DecodeRuneInString(words[0])
	words[0] = string(unicode.ToUpper(first)) + words[0][size:]
	return strings.Join(words, " ") + "."
}

// word gives the word of this rank: an index as large as that of real mail
// needs tens of thousands.
func (l *language) word(rank uint64) string {
	if rank < uint64(len(l.words)) {
		return l.words[rank]
	}
	var b strings.Builder
	for n := uint64(len(l.syllables)); rank > 0; rank /= n {
		b.WriteString(l.syllables[rank%n])
	}
	return b.String()
}

// lognormal gives a size with this median, at most the largest: what files and
// mails are distributed by.
func (c *corpus) lognormal(median, sigma float64, largest int) int {
	return int(min(median*math.Exp(sigma*c.r.NormFloat64()), float64(largest)))
}

func (c *corpus) random(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(c.r.Uint32())
	}
	return b
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// writeText writes one text part, header and all. text has LF lines.
func writeText(b *bytes.Buffer, subtype string, e encoding, text string) {
	fmt.Fprintf(b, "Content-Type: text/%s; charset=%s\r\nContent-Transfer-Encoding: %s\r\n\r\n", subtype, e.charset, e.transfer)
	raw := encode(e.charset, strings.ReplaceAll(text, "\n", "\r\n"))
	switch e.transfer {
	case "base64":
		writeBase64(b, raw)
	case "quoted-printable":
		w := quotedprintable.NewWriter(b)
		_, _ = w.Write(raw) // a bytes.Buffer takes all
		_ = w.Close()
	default:
		b.Write(raw)
	}
}

// writeBase64 writes lines of 76 characters (RFC 2045, 6.8).
func writeBase64(b *bytes.Buffer, raw []byte) {
	for len(raw) > 0 {
		n := min(57, len(raw))
		b.WriteString(base64.StdEncoding.EncodeToString(raw[:n]))
		b.WriteString("\r\n")
		raw = raw[n:]
	}
}

// headerWord writes s as encoded words (RFC 2047), unless it is ASCII.
func headerWord(e encoding, s string) string {
	if e.charset == "us-ascii" || e.transfer == "7bit" {
		return s
	}
	if e.charset == "utf-8" {
		return strings.ReplaceAll(mime.BEncoding.Encode(e.charset, s), "?= =?", "?=\r\n =?")
	}
	return mime.QEncoding.Encode(e.charset, string(encode(e.charset, s)))
}

// koi8r is what KOI8-R has from 0xC0 on (RFC 1489).
const koi8r = "юабцдефгхийклмнопярстужвьызшэщчъЮАБЦДЕФГХИЙКЛМНОПЯРСТУЖВЬЫЗШЭЩЧЪ"

// encode gives s in a charset, with "?" for what it does not have.
func encode(charset, s string) []byte {
	if charset != "koi8-r" && charset != "iso-8859-1" {
		return []byte(s)
	}
	letters := []rune(koi8r)
	position := make(map[rune]byte, len(letters)+2)
	for i, r := range letters {
		position[r] = byte(0xC0 + i)
	}
	position['ё'], position['Ё'] = 0xA3, 0xB3
	out := make([]byte, 0, len(s))
	for _, r := range s {
		switch b, ok := position[r]; {
		case r < utf8.RuneSelf, charset == "iso-8859-1" && r <= 0xFF:
			out = append(out, byte(r))
		case charset == "koi8-r" && ok:
			out = append(out, b)
		default:
			out = append(out, '?')
		}
	}
	return out
}
