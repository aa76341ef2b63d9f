package maildir

import "testing"

func TestMaildirPPNamesFoldersAndTheyComeBack(t *testing.T) {
	t.Parallel()
	for mailbox, folder := range map[string]string{
		"INBOX": ".", "inbox": ".", "INBOX/sub": ".INBOX.sub", "Archivé/2024": ".Archiv&AOk-.2024", "R&D": ".R&-D", "a.b/c": ".a%2Eb.c", "100%": ".100%25", "a//b": ".a.%.b", "cur": ".%63ur", "Inbox2": ".Inbox2",
	} {
		got, err := MaildirPP.Folder(mailbox, '/')
		if err != nil || got != folder {
			t.Errorf("%q is in %q, %v, want %q", mailbox, got, err, folder)
		}
		if back, err := MaildirPP.Mailbox(folder, '/'); err != nil || back != mailbox && mailbox != "inbox" {
			t.Errorf("%q is of %q, %v, want %q", folder, back, err, mailbox)
		}
	}
	for _, folder := range []string{"a", "a/b", ".a/b", ".", ".a&b"} {
		if name, err := MaildirPP.Mailbox(folder, '/'); err == nil && folder != "." {
			t.Errorf("%q is of %q", folder, name)
		}
	}
	if _, err := MaildirPP.Folder(string(make([]byte, 300)), '/'); err == nil {
		t.Error("a name that is too long")
	}
	if got, err := Nested.Folder("a/b", '/'); err != nil || got != "a/b" {
		t.Error(got, err)
	}
}
