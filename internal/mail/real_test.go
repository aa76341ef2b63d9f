//go:build linux

package mail_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// What notmuch may say beside an id.
const (
	refused = "refused"      // it takes the file for no mail
	hashed  = "hash of file" // it finds no id, and makes one of the file
)

// judged is a mail, and what is read of its Message-ID.
type judged struct {
	name    string
	mail    string // "": testdata/mail/name.eml
	dovecot string // the answer to BODY[HEADER.FIELDS (MESSAGE-ID)], without the CRLFs at its end
	notmuch string // the id, or refused, or hashed
	// ours is what we read of the file, with LF and with CRLF, and of Dovecot's
	// answer; and of notmuch's id, if it has one of the header.
	ours string
	why  string // where the two disagree
}

func withID(value string) string {
	return "From: a@example.org\r\nSubject: s\r\nMessage-ID: " + value + "\r\n\r\nbody\r\n"
}

func below(lines string) string {
	return lines + "From: a@example.org\r\nSubject: s\r\nMessage-ID: <a@x>\r\n\r\nbody\r\n"
}

func between(lines string) string {
	return "From: a@example.org\r\nSubject: s\r\n" + lines + "Message-ID: <a@x>\r\n\r\nbody\r\n"
}

func table() []judged {
	id := func(value string) string { return "Message-ID: " + value }
	const found = "Message-ID: <a@x>"
	a := func(n int) string { return strings.Repeat("a", n) }
	return []judged{
		{"badline-blank", "", "", refused, "", "the header ends before it has begun; a server that tells no id is not contradicted"},
		{"badline-bom", "", "Message-ID: <bom@example.org>", "bom@example.org", "bom@example.org", ""},
		{"badline-from", "", "Message-ID: <fromline@example.org>", "fromline@example.org", "fromline@example.org", ""},
		{"badline-fromtwice", "", "Message-ID: <fromtwice@example.org>", refused, "fromtwice@example.org", "notmuch looks at the body, too, and takes the file for an mbox of several mails; the header is sound"},
		{"badline-gtfrom", "", "Message-ID: <gtfrom@example.org>", "gtfrom@example.org", "gtfrom@example.org", ""},
		{"badline-nofold", "", "Message-ID: <nofold@example.org>", "nofold@example.org", "nofold@example.org", ""},
		{"badline-stamp", "", "Message-ID: <stamp@example.org>", "stamp@example.org", "stamp@example.org", ""},
		{"id-bare", "", "Message-ID: bare@example.org", "bare@example.org", "bare@example.org", ""},
		{"id-blank", "", "Message-ID: <with blank@x y>", "withblank@xy", "withblank@xy", ""},
		{"id-comment", "", "Message-ID: (c) <comment@example.org>", "comment@example.org", "comment@example.org", ""},
		{"id-empty", "", "Message-ID: <>", "<>", "<>", ""},
		{"id-folded", "", "Message-ID: <folded\r\n inside@example.org>", "foldedinside@example.org", "foldedinside@example.org", ""},
		{"id-long", "", "Message-ID: <" + strings.Repeat("l", 260) + "@example.org>", "notmuch-sha1-be5005f4299d5c133f3b265a60739e9d9f1cbd72", "notmuch-sha1-be5005f4299d5c133f3b265a60739e9d9f1cbd72", ""},
		{"id-none", "", "", hashed, "", ""},
		{"id-nul", "", "Message-ID: <nul\x80inside@example.org>", "nul", "nul", "Dovecot keeps 0x80 in place of NUL, at which C ends"},
		{"id-quoted", "", "Message-ID: <\"quoted blank\"@example.org>", "\"quotedblank\"@example.org", "\"quotedblank\"@example.org", ""},
		{"id-two", "", "Message-ID: <one@example.org> <two@example.org>", "one@example.org", "one@example.org", ""},
		{"line-2000", "", "Message-ID: <longline@example.org>", "longline@example.org", "longline@example.org", ""},

		// Lines that are no fields.
		{"two empty lines", below("\r\n\r\n"), "", refused, "", "as with one"},
		{"a line of blanks first", below(" \r\n"), found, refused, "a@x", "notmuch takes a file that begins so for no mail; the server has it as any other"},
		{"a line of blanks", between(" \r\n"), found, "a@x", "a@x", ""},
		{"a line of blanks, then an empty one", between(" \r\n\r\n"), "", hashed, "", ""},
		{"a stamp first", below("no colon here\r\n"), found, refused, "a@x", "as with blanks first"},
		{"a stamp with a colon first", below("see http://x now\r\n"), found, refused, "a@x", "as with blanks first"},
		{"a stamp of two lines", between("stamp\r\n folded\r\n"), found, "a@x", "a@x", ""},
		{"a stamp behind", strings.Replace(below(""), "\r\n\r\n", "\r\nno colon here\r\n\r\n", 1), found, "a@x", "a@x", ""},
		{"an mbox line between", between("From me 10:00\r\n"), found, "a@x", "a@x", ""},
		{"two mbox lines", below("From me 10:00\r\n>From me 10:00\r\n"), found, "a@x", "a@x", ""},
		{"an mbox line with an id", below("From Message-ID: <b@x>\r\n"), found, "a@x", "a@x", ""},
		{"a folded mbox line", below("From me\r\n x: y\r\n"), found, refused, "a@x", "as with blanks first"},
		{"a name of blanks", between("X Y: z\r\n"), found, "a@x", "a@x", ""},
		{"no name", between(": z\r\n"), found, "a@x", "a@x", ""},
		{"a line of NUL", between("\x00\r\n"), found, "a@x", "a@x", ""},
		{"NUL in a value", between("X-Nul: a\x00b\r\n"), found, "a@x", "a@x", ""},
		{"a BOM before an empty line", below("\xef\xbb\xbf\r\n"), found, refused, "a@x", "as with blanks first"},
		{"a BOM before the id", "\xef\xbb\xbfMessage-ID: <a@x>\r\nSubject: s\r\nFrom: a@x\r\n\r\n", "", hashed, "", ""},
		{"indented", " Message-ID: <a@x>\r\nSubject: s\r\nFrom: a@x\r\n\r\n", "", refused, "", ""},

		// Long ones.
		{"a long line", between("X: " + a(100_000) + "\r\n"), found, "a@x", "a@x", ""},
		{"a long line with blanks", between("X: " + strings.Repeat("a ", 50_000) + "\r\n"), found, "a@x", "a@x", ""},
		{"a long header", between(strings.Repeat("X-A: b\r\n", 20_000)), found, "a@x", "a@x", ""},
		{"a long field", between("X-A: b\r\n" + strings.Repeat(" "+a(70)+"\r\n", 2_000)), found, "a@x", "a@x", ""},
		{"a long name", between(a(10_000) + ": v\r\n"), found, refused, "a@x", "as with blanks first"},
		{"a long stamp", between(a(20_000) + "\r\n"), found, refused, "a@x", "as with blanks first"},

		// Line ends.
		{"LF", strings.ReplaceAll(below(""), "\r\n", "\n"), found, "a@x", "a@x", ""},
		{"mixed", "From: a@x\nSubject: s\r\nMessage-ID: <a@x>\n\r\nbody\r\n", found, "a@x", "a@x", ""},
		{"CR CRLF", "From: a@x\r\r\nMessage-ID: <a@x>\r\r\n\r\r\nbody\r\r\n", found, "a@x", "a@x", ""},
		{"CR", "From: a@x\rMessage-ID: <a@x>\r\rbody\r", "", hashed, "", ""},
		{"CR before the name", between("\r"), "", hashed, "", ""},
		{"no line end", "From: a@x\r\nMessage-ID: <a@x>", found, "a@x", "a@x", ""},
		{"no empty line", "From: a@x\r\nMessage-ID: <a@x>\r\n", found, "a@x", "a@x", ""},

		// Fields of the name, or nearly.
		{"two fields", between("Message-ID: <first@x>\r\n"), "Message-ID: <first@x>\r\n" + found, "first@x", "first@x", ""},
		{"two fields, the first empty", between("Message-ID:\r\n"), "Message-ID:\r\n" + found, hashed, "", ""},
		{"in lower case", strings.Replace(below(""), "Message-ID: ", "message-id:", 1), "message-id:<a@x>", "a@x", "a@x", ""},
		{"blanks before the colon", strings.Replace(below(""), "-ID:", "-ID \t:", 1), "Message-ID \t: <a@x>", "a@x", "a@x", ""},
		{"a colon on the next line", strings.Replace(below(""), "-ID:", "-ID\r\n :", 1), "", hashed, "", ""},
		{"NUL in the name", strings.Replace(below(""), "Mess", "Mess\x00", 1), "", hashed, "", ""},
		{"another name", strings.Replace(below(""), "Mess", "Resent-Mess", 1), "", hashed, "", ""},
		{"in the body", strings.Replace(below(""), "Mess", "\r\nMess", 1), "", hashed, "", ""},

		// Values.
		{"nothing", withID(""), "Message-ID: ", hashed, "", ""},
		{"blanks", withID(" \t "), id(" \t "), hashed, "", ""},
		{"one character", withID("<a>"), id("<a>"), "<a>", "<a>", ""},
		{"two characters", withID("<ab>"), id("<ab>"), "ab", "ab", ""},
		{"an open bracket", withID("<"), id("<"), "<", "<", ""},
		{"a blank in brackets", withID("< >"), id("< >"), "< >", "< >", ""},
		{"not closed", withID("<a@x b"), id("<a@x b"), "a@xb", "a@xb", ""},
		{"nested", withID("<<a@x>>"), id("<<a@x>>"), "<a@x", "<a@x", ""},
		{"a quoted bracket", withID("<\"a>b\"@x>"), id("<\"a>b\"@x>"), "\"a", "\"a", ""},
		{"blanks inside", withID("< a@x >"), id("< a@x >"), "a@x", "a@x", ""},
		{"several blanks inside", withID("<a     b\tc@x>"), id("<a     b\tc@x>"), "a  bc@x", "a  bc@x", ""},
		{"folded before", withID("\r\n\t<a@x>"), id("\r\n\t<a@x>"), "a@x", "a@x", ""},
		{"folded with blanks", withID("<a\r\n \t  b@x>"), id("<a\r\n \t  b@x>"), "a\t b@x", "a\t b@x", ""},
		{"a comment inside", withID("<(c)a@x>"), id("<(c)a@x>"), "a@x", "a@x", ""},
		{"comments", withID("(a (b\\)) c) <a@x> (d)"), id("(a (b\\)) c) <a@x> (d)"), "a@x", "a@x", ""},
		{"an open comment", withID("(c <a@x>"), id("(c <a@x>"), "(c <a@x>", "(c <a@x>", ""},
		{"text before", withID("text <a@x>"), id("text <a@x>"), "a@x", "a@x", ""},
		{"bare with blanks", withID("a \tb@x c"), id("a \tb@x c"), "a \tb@x c", "a \tb@x c", ""},
		{"bare and folded", withID("a\r\n  b@x"), id("a\r\n  b@x"), "a  b@x", "a  b@x", ""},
		{"bare with a comment", withID("(c) a@x"), id("(c) a@x"), "(c) a@x", "(c) a@x", ""},
		{"CR inside", withID("<a\rb@x>"), id("<a\rb@x>"), "ab@x", "ab@x", ""},
		{"controls", withID("<a\x01\x7f\x0b@x>"), id("<a\x01\x7f\x0b@x>"), "a\x01\x7f\x0b@x", "a\x01\x7f\x0b@x", ""},
		{"of a query's letters", withID("<a%b\"c'd*@x>"), id("<a%b\"c'd*@x>"), "a%b\"c'd*@x", "a%b\"c'd*@x", ""},
		{"NUL first", withID("\x00<a@x>"), id("\x80<a@x>"), hashed, "", "as in id-nul"},
		{"ISO 8859-1", withID("<caf\xe9@x>"), id("<caf\xe9@x>"), "café@x", "café@x", ""},
		{"UTF-8", withID("<café@x>"), id("<café@x>"), "café@x", "café@x", ""},
		{"both", withID("<\xe9é@x>"), id("<\xe9é@x>"), "éÃ©@x", "éÃ©@x", ""},
		{"0x80, which may have been NUL", withID("<a\x80b@x>"), id("<a\x80b@x>"), "a\u0080b@x", "a", ""},
		{"an encoded word", withID("<=?utf-8?q?caf=C3=A9?=@x>"), id("<=?utf-8?q?caf=C3=A9?=@x>"), "café@x", "café@x", ""},
		{"encoded words", withID("<=?utf-8?B?YWJj?= =?iso-8859-1?q?d_=E9?=@x>"), id("<=?utf-8?B?YWJj?= =?iso-8859-1?q?d_=E9?=@x>"), "abcdé@x", "abcdé@x", ""},
		{"a word encoded twice", withID("=?utf-8?q?=3D=3Futf-8=3Fq=3F=3Ca=40x=3E=3F=3D?="), id("=?utf-8?q?=3D=3Futf-8=3Fq=3F=3Ca=40x=3E=3F=3D?="), "a@x", "a@x", ""},
		{"an open encoded word", withID("<=?utf-8?q?a@x>"), id("<=?utf-8?q?a@x>"), "=?utf-8?q?a@x", "=?utf-8?q?a@x", ""},
		{"189 bytes", withID("<" + a(187) + "@x>"), id("<" + a(187) + "@x>"), a(187) + "@x", a(187) + "@x", ""},
		{"190 bytes", withID("<" + a(188) + "@x>"), id("<" + a(188) + "@x>"), "notmuch-sha1-11c9e3e6a211c883a44bbfac83e7e925b3d49792", "notmuch-sha1-11c9e3e6a211c883a44bbfac83e7e925b3d49792", ""},
		{"190 bytes of UTF-8", withID("<" + strings.Repeat("é", 94) + "@x>"), id("<" + strings.Repeat("é", 94) + "@x>"), "notmuch-sha1-5f35fe23c181e4b083e3fb8566ad052de13bfde1", "notmuch-sha1-5f35fe23c181e4b083e3fb8566ad052de13bfde1", ""},
		{"50,000 bytes", withID("<" + a(50_000) + "@x>"), id("<" + a(50_000) + "@x>"), "notmuch-sha1-ea9d0924c2720948e860915d092ff6bc10e59200", "notmuch-sha1-ea9d0924c2720948e860915d092ff6bc10e59200", ""},
	}
}

// TestMessageIDsAsDovecotAndNotmuchReadThem asks both real programs.
func TestMessageIDsAsDovecotAndNotmuchReadThem(t *testing.T) {
	t.Parallel()
	rows := table()
	names := make(map[string]bool)
	for i, r := range rows {
		names[r.name] = true
		if r.mail == "" {
			raw, err := os.ReadFile(filepath.Join("testdata/mail", r.name+".eml"))
			if err != nil {
				t.Fatal(err)
			}
			rows[i].mail = string(raw)
		}
	}
	samples, err := filepath.Glob("testdata/mail/*.eml")
	if err != nil || len(samples) == 0 {
		t.Fatal(samples, err)
	}
	for _, s := range samples {
		if name := strings.TrimSuffix(filepath.Base(s), ".eml"); !names[name] {
			t.Errorf("%s is not in the table", name)
		}
	}
	answers := dovecotTells(t, rows)
	ids := notmuchTakes(t, rows)
	for i, r := range rows {
		if got := strings.TrimRight(answers[i], "\r\n"); got != r.dovecot {
			t.Errorf("%s: Dovecot tells %.300q", r.name, got)
		}
		if got := mail.ParseHeader([]byte(answers[i]), "Message-ID").MessageID(); got != r.ours {
			t.Errorf("%s: of Dovecot's answer we read %.300q", r.name, got)
		}
		for kind, raw := range map[string]string{"LF": withLF(r.mail), "CRLF": r.mail} {
			if got := ids[i][kind]; got != r.notmuch && (r.notmuch != hashed || !strings.HasPrefix(got, "notmuch-sha1-")) {
				t.Errorf("%s with %s: notmuch takes %.300q", r.name, kind, got)
			} else if r.notmuch != refused && r.notmuch != hashed && mail.NotmuchID(got) != r.ours {
				t.Errorf("%s: notmuch's id is %.300q to us", r.name, mail.NotmuchID(got))
			}
			if id, err := mail.MadeUpID(strings.NewReader(raw)); err != nil || r.notmuch == hashed && !strings.ContainsAny(raw, "\r\x00") && id != ids[i][kind] {
				t.Errorf("%s: notmuch makes up %s, not %s, %v", r.name, ids[i][kind], id, err)
			}
			h, err := mail.ReadHeader(strings.NewReader(raw), "Message-ID")
			if err != nil || h.MessageID() != r.ours {
				t.Errorf("%s with %s: we read %.300q, %v", r.name, kind, h, err)
			}
		}
		agree := r.notmuch == r.ours || r.notmuch == hashed && r.ours == "" || mail.NotmuchID(r.notmuch) == r.ours
		if !agree && r.dovecot != "" && r.why == "" {
			t.Errorf("%s: the table does not say why", r.name)
		}
	}
}

func withLF(s string) string { return strings.ReplaceAll(s, "\r\n", "\n") }

// dovecotTells gives the answers to BODY[HEADER.FIELDS (MESSAGE-ID)].
func dovecotTells(t *testing.T, rows []judged) []string {
	t.Helper()
	s, err := imaptest.StartDovecot(t.Context(), t.TempDir(), imaptest.DovecotOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	err = s.AppendAll("INBOX", func(yield func(time.Time, []byte) bool) {
		for i, r := range rows {
			if !yield(time.Unix(1_700_000_000+int64(i), 0), []byte(r.mail)) {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	lines, err := s.Command("SELECT INBOX", "FETCH 1:* BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)]")
	if err != nil {
		t.Fatal(err)
	}
	answers := make([]string, len(rows))
	for _, line := range lines {
		var seq, size int
		head, rest, ok := strings.Cut(line, "}\r\n")
		if _, err := fmt.Sscanf(head, "* %d FETCH (BODY[HEADER.FIELDS (MESSAGE-ID)] {%d", &seq, &size); ok && err == nil {
			answers[seq-1] = rest[:size]
		}
	}
	return answers
}

// notmuchTakes gives the ids of the mails with LF and with CRLF in a file.
func notmuchTakes(t *testing.T, rows []judged) []map[string]string {
	t.Helper()
	root := t.TempDir()
	config := filepath.Join(root, "config")
	write := func(path, text string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	notmuch := func(args ...string) []string {
		cmd := exec.CommandContext(t.Context(), "notmuch", args...)
		cmd.Env = append(os.Environ(), "NOTMUCH_CONFIG="+config, "HOME="+root)
		cmd.Env = slices.DeleteFunc(cmd.Env, func(s string) bool {
			return strings.HasPrefix(s, "NOTMUCH_DATABASE=") || strings.HasPrefix(s, "NOTMUCH_PROFILE=") || strings.HasPrefix(s, "MAILDIR=")
		})
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("notmuch %v: %v\n%s", args, err, said.Bytes())
		}
		return strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 })
	}
	write(config, "[database]\npath="+root+"/mail\n[user]\nname=a\nprimary_email=a@example.org\n")
	ids := make([]map[string]string, len(rows))
	for i, r := range rows {
		ids[i] = map[string]string{"LF": refused, "CRLF": refused}
		// A folder for each, since notmuch takes files with one id for one mail.
		write(fmt.Sprintf("%s/mail/%d.LF/cur/a:2,", root, i), withLF(r.mail))
		write(fmt.Sprintf("%s/mail/%d.CRLF/cur/a:2,", root, i), r.mail)
	}
	notmuch("new", "--quiet")
	for _, m := range notmuch("search", "--output=messages", "--format=text0", "*") {
		id := strings.TrimPrefix(m, "id:")
		for _, file := range notmuch("search", "--output=files", "--format=text0", `id:"`+strings.ReplaceAll(id, `"`, `""`)+`"`) {
			var i int
			var kind string
			if _, err := fmt.Sscanf(strings.TrimPrefix(file, root), "/mail/%d.%s", &i, &kind); err != nil {
				t.Fatal(file, err)
			}
			kind, _, _ = strings.Cut(kind, "/")
			ids[i][kind] = id
		}
	}
	return ids
}
