package mail

// News is what a server tells unasked: something changed.
type News struct {
	// Mailbox is where; "" if that is not told, and it may be anywhere.
	Mailbox string
	// Status is how that mailbox is now; zero if it is not told. Of a change of flags it may have no
	// more than the UIDVALIDITY and the mod-sequence of that change.
	Status Status
	// Gone: messages left it, or may have. They may be in another mailbox now.
	Gone bool
	// Over: the server has too much to tell, and tells no more until it is asked again
	// (RFC 5465 5.8). Anything may have changed.
	Over bool
}
