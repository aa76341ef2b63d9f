package index

// #cgo LDFLAGS: -ldl
// #define _GNU_SOURCE
// #include <dlfcn.h>
// #include <stdatomic.h>
// #include <stdio.h>
// #include <stdlib.h>
// #include <sys/statvfs.h>
// #include <unistd.h>
//
// static atomic_int breakStatus = 1;
// static _Atomic(char *) breakPath;
//
// static void break_off(void)
// {
// 	struct statvfs fs;
// 	const char *path = breakPath;
// 	int full = statvfs(path, &fs) == 0 && fs.f_bavail < (1 << 20) / fs.f_frsize;
// 	dprintf(2, "%snotmuch-imap: the notmuch database in %s cannot be written: %s. What was not done is done by the next run\n",
// 		isatty(2) ? "\r\033[K" : "", path,
// 		full ? "the disk is full; make space" : "libnotmuch broke off; see that its disk has space and is sound");
// 	_exit(breakStatus);
// }
//
// static void break_off_plainly(char *path)
// {
// 	char *none = NULL;
// 	void (*set_terminate)(void (*)(void)) = (void (*)(void (*)(void))) dlsym(RTLD_DEFAULT, "_ZSt13set_terminatePFvvE");
// 	if (!atomic_compare_exchange_strong(&breakPath, &none, path))
// 		free(path); // a process has one database
// 	else if (set_terminate)
// 		set_terminate(break_off);
// }
//
// static void break_status(int status) { breakStatus = status; }
import "C"

// BreakOff sets the exit status of this process, 1 else, where libnotmuch breaks it off: it
// lets some of Xapian's C++ exceptions through, such as that of a full disk in
// notmuch_message_thaw. Nothing can catch them here, so the process says in a line what
// happened and ends, as by a kill: the write lock is free then, and what was not
// committed is taken back.
func BreakOff(status int) { C.break_status(C.int(status)) }

// breakOffPlainly lets this process end as BreakOff says, in place of a core dump and all
// of Go's stacks. The handler is set by its C++ name, std::set_terminate: libnotmuch has
// the C++ library loaded, and linking to it would need a C++ compiler.
func breakOffPlainly(path string) { C.break_off_plainly(C.CString(path)) }
