package mail

import "testing"

// The configured Trash is the mailbox that the server has, also where that spells INBOX in
// another way before its delimiter; elsewhere case counts.
func TestTrashOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		configured, want string
		list             []Mailbox
	}{
		{"", "Trash", []Mailbox{{Name: "Trash", Delim: '/'}}},
		{"", "Bin", []Mailbox{{Name: "Trash", Delim: '/'}, {Name: "Bin", Attrs: []string{`\Trash`}}}},
		{"inbox/Trash", "INBOX/Trash", []Mailbox{{Name: "INBOX", Delim: '/'}, {Name: "INBOX/Trash", Delim: '/'}}},
		{"INBOX.Trash", "Inbox.Trash", []Mailbox{{Name: "Inbox.Trash", Delim: '.'}}},
		{"inbox/Trash", "inbox/Trash", []Mailbox{{Name: "INBOX/Trash", Delim: '/'}, {Name: "inbox/Trash", Delim: '/'}}},
		{"inbox/Trash", "inbox/Trash", []Mailbox{{Name: "INBOX/Trash", Delim: '.'}, {Name: "INBOX/Trash"}}},
		{"INBOX/trash", "INBOX/trash", []Mailbox{{Name: "INBOX/Trash", Delim: '/'}}},
		{"trash", "trash", []Mailbox{{Name: "Trash", Delim: '/'}}},
		{"inboxes/Trash", "inboxes/Trash", []Mailbox{{Name: "INBOX/Trash", Delim: '/'}}},
	} {
		if got := TrashOf(c.configured, c.list); got != c.want {
			t.Errorf("%q of %v is %q, want %q", c.configured, c.list, got, c.want)
		}
	}
}
