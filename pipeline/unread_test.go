package pipeline

import "testing"

// Mail that is deleted here and marked unread by another client meanwhile is kept, as
// one with any other change of its flags is: who marks it unread wants it. That it
// was read there is no reason to keep it.
func TestMailDeletedHereAndMarkedUnreadThereIsKept(t *testing.T) {
	t.Parallel()
	for wire, caps := range wires() {
		for _, deletions := range []Deletions{DeletionsTrash, DeletionsExpunge} {
			t.Run(wire+" "+string(deletions), func(t *testing.T) {
				t.Parallel()
				s, h := newServer(caps...), newHome(t)
				use := func(o *Options) { o.Deletions = deletions }
				in := s.box("INBOX")
				s.box("Trash").add(plainMail(9))
				in.add(plainMail(1), `\Seen`)
				in.add(plainMail(2))
				in.add(plainMail(3))
				h.sync(s, use)
				uids := in.uids()
				h.remove("INBOX", uids[0])
				h.remove("INBOX", uids[1])
				in.flag(uids[0])
				in.flag(uids[1], `\Seen`)
				h.sync(s, use)
				h.sync(s, use)
				if in.msgs[uids[0]] == nil || in.msgs[uids[1]] != nil {
					t.Errorf("unread: %v, read: %v", in.msgs[uids[0]] != nil, in.msgs[uids[1]] != nil)
				}
				h.check(s)
			})
		}
	}
}
