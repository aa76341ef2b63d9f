package maildir

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestMailboxNamesBecomeSafeFoldersAndComeBack(t *testing.T) {
	for _, c := range []struct {
		mailbox string
		delim   rune
		folder  string
	}{
		{"INBOX", '/', "INBOX"},
		{"Archive/2024", '/', "Archive/2024"},
		{"Archive.2024", '.', "Archive/2024"},
		{"INBOX.Sent", '.', "INBOX/Sent"},
		{"Archive.2024", '/', "Archive.2024"},
		{"a/b", '.', "a%2Fb"},
		{"a/b", 0, "a%2Fb"},
		{`a\b`, '/', "a%5Cb"},
		{"cur", '/', "%63ur"},
		{"Work/new", '/', "Work/%6Eew"},
		{"Work/tmp", '/', "Work/%74mp"},
		{"New", '/', "New"},
		{"Work/New", '/', "Work/%4Eew"},
		{"current", '/', "current"},
		{"..", '/', "%2E%2E"},
		{"../../etc", '/', "%2E%2E/%2E%2E/etc"},
		{"../../etc", 0, "%2E.%2F..%2Fetc"},
		{".notmuch", '/', "%2Enotmuch"},
		{".", '/', "%2E"},
		{"/etc", '/', "%/etc"},
		{"a//b", '/', "a/%/b"},
		{"a/", '/', "a/%"},
		{"%", '/', "%25"},
		{"100%41", '/', "100%2541"},
		{"a\x00b", '/', "a%00b"},
		{"a\nb\x7f", '/', "a%0Ab%7F"},
		{"a\u0085b", '/', "a%C2%85b"},
		{"caf\xe9", '/', "caf%E9"},
		{"Entwürfe/日本語", '/', "Entwürfe/日本語"},
		{" a ", '/', "%20a%20"},
		{"Ltd.", '/', "Ltd%2E"},
		{"C:", '/', "C%3A"},
		{"[Gmail]/All Mail", '/', "[Gmail]/All Mail"},
	} {
		folder, err := Folder(c.mailbox, c.delim)
		if err != nil || folder != c.folder {
			t.Errorf("Folder(%q, %q) = %q, %v; want %q", c.mailbox, c.delim, folder, err, c.folder)
			continue
		}
		if back, err := Mailbox(folder, c.delim); err != nil || back != c.mailbox {
			t.Errorf("Mailbox(%q, %q) = %q, %v; want %q", folder, c.delim, back, err, c.mailbox)
		}
	}
}

func TestInboxIsOneFolderInAnyCase(t *testing.T) {
	for _, name := range []string{"INBOX", "inbox", "Inbox"} {
		if got, err := Folder(name, '/'); got != "INBOX" || err != nil {
			t.Errorf("Folder(%q) = %q, %v", name, got, err)
		}
		if got, err := Folder(name+"/x", '/'); got != "INBOX/x" || err != nil {
			t.Errorf("Folder(%q) = %q, %v", name+"/x", got, err)
		}
	}
	if got, _ := Folder("a/inbox", '/'); got != "a/inbox" {
		t.Errorf("below the top, inbox is a name as any other, not %q", got)
	}
}

func TestNamesThatFitNoFileSystemAreErrors(t *testing.T) {
	for _, name := range []string{"", strings.Repeat("a", 201), strings.Repeat("\x01", 67), strings.Repeat("abcdefghi/", 20) + "a"} {
		if got, err := Folder(name, '/'); err == nil {
			t.Errorf("Folder of %d bytes gave %q", len(name), got)
		}
	}
	if _, err := Folder(strings.Repeat("a", 200), '/'); err != nil {
		t.Error(err)
	}
}

func TestPathsThatAreNoFolderOfOursAreErrors(t *testing.T) {
	for _, c := range []struct {
		folder string
		delim  rune
	}{{"a%2", '/'}, {"a%zz", '/'}, {"a%2f", '/'}, {"a/b", 0}, {"a%2Fb", '/'}, {"a.b", '.'}, {"", '/'}, {"a//b", '/'}, {"/a", '/'}} {
		if got, err := Mailbox(c.folder, c.delim); err == nil {
			t.Errorf("Mailbox(%q, %q) = %q", c.folder, c.delim, got)
		}
	}
}

// On a file system without case each of these would be one directory.
func TestNamesThatDifferOnlyByCaseGetFoldersOfTheirOwn(t *testing.T) {
	names := []string{"%", "%25", "ärger", "Ärger", "ÄRGER", "x/ab", "X/ab", "x/aB", strings.Repeat("q", 100), strings.Repeat("Q", 100)}
	for i := range 16 { // every way to write "name"
		b := []byte("name")
		for j := range b {
			if i>>j&1 == 1 {
				b[j] -= 'a' - 'A'
			}
		}
		names = append(names, string(b))
	}
	used := make(map[string]string)
	for _, name := range names {
		folder, err := Folder(name, '/')
		if err != nil {
			t.Fatal(err)
		}
		got := Unclash(folder, func(f string) bool { _, ok := used[strings.ToLower(f)]; return ok })
		if other, ok := used[strings.ToLower(got)]; ok {
			t.Errorf("%q and %q are both %q", name, other, got)
		}
		used[strings.ToLower(got)] = name
		if back, err := Mailbox(got, '/'); err != nil || back != name {
			t.Errorf("Mailbox(%q) = %q, %v; want %q", got, back, err, name)
		}
		if !utf8.ValidString(got) {
			t.Errorf("%q is not UTF-8", got)
		}
	}
}

func TestUnclashEndsWhereNothingCanDiffer(t *testing.T) {
	for _, folder := range []string{"%", strings.Repeat("%01", 66), "a/%25"} {
		if got := Unclash(folder, func(string) bool { return true }); got != folder {
			t.Errorf("Unclash(%q) = %q", folder, got)
		}
	}
}

func FuzzFolder(f *testing.F) {
	for _, name := range []string{"INBOX", "Archive/2024", "../../etc/passwd", "a.b.c", "cur/new/tmp", "inbox/Tmp", "%2E%2E", "a\x00\xff/\u0085", "/", "%", ". .", "日本語/ü"} {
		f.Add(name, '/')
		f.Add(name, '.')
		f.Add(name, rune(0))
	}
	f.Fuzz(func(t *testing.T, mailbox string, delim rune) {
		if !utf8.ValidRune(delim) || delim == utf8.RuneError {
			return // no server can have told it
		}
		folder, err := Folder(mailbox, delim)
		if err != nil {
			return
		}
		check := func(folder string) {
			if !filepath.IsLocal(folder) || filepath.Clean(folder) != folder || !utf8.ValidString(folder) {
				t.Fatalf("Folder(%q, %q) = %q leaves its place", mailbox, delim, folder)
			}
			for i, p := range strings.Split(folder, "/") {
				bad := p == "cur" || p == "new" || p == "tmp" || i > 0 && (strings.EqualFold(p, "cur") || strings.EqualFold(p, "new") || strings.EqualFold(p, "tmp"))
				if bad || p[0] == '.' || strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f }) || len(p) > 255 {
					t.Fatalf("Folder(%q, %q) = %q", mailbox, delim, folder)
				}
			}
			// The name comes back, INBOX's case apart.
			back, err := Mailbox(folder, delim)
			again, _ := Folder(back, delim)
			first, _ := Folder(mailbox, delim)
			if err != nil || back != mailbox && !strings.EqualFold(back[:min(5, len(back))], "INBOX") || again != first {
				t.Fatalf("%q -> %q -> %q, %v", mailbox, folder, back, err)
			}
		}
		check(folder)
		n := 0
		other := Unclash(folder, func(string) bool { n++; return n <= 3 })
		if other != folder {
			check(other)
			if strings.EqualFold(other, folder) {
				t.Fatalf("Unclash(%q) = %q", folder, other)
			}
		}
	})
}

func TestNotmuchFindsMailInEveryFolder(t *testing.T) {
	root := t.TempDir()
	config := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(config, []byte("[database]\npath="+root+"\n[user]\nname=A\nprimary_email=a@example.org\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	notmuch := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), "notmuch", args...)
		cmd.Env = append(os.Environ(), "NOTMUCH_CONFIG="+config)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("notmuch %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	// The longest paths too, below an account's folder of 30 bytes.
	account := strings.Repeat("a", 30)
	deep := strings.Repeat("d", 99) + "/" + strings.Repeat("e", 100)
	names := []string{"INBOX", "INBOX/cur", "INBOX/Tmp", "tmp", "tmp/tmp", ".notmuch", "..", "../x", ".hidden/y", "a//b", "%", "caf\xe9", "a\nb", "日本語", strings.Repeat("ü", 100), deep}
	var keys Keys
	for i, name := range names {
		folder, err := Folder(name, '/')
		if err != nil {
			t.Fatal(err)
		}
		d := Dir(filepath.Join(root, account, folder))
		put(t, d, keys.New(day()), fmt.Sprintf("Message-ID: <%d@example.org>\r\nFrom: a@example.org\r\nSubject: x\r\n\r\nx\r\n", i), []string{"", "S"}[i%2])
	}
	notmuch("new")
	if got := notmuch("count", "*"); got != fmt.Sprint(len(names)) {
		t.Errorf("notmuch found %s mails, not %d:\n%s", got, len(names), notmuch("search", "--output=files", "*"))
	}
}
