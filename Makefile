# `make demo` and `make test` do all the set-up on a fresh Debian with Go and git.

SUDO := $(shell [ "$$(id -u)" -eq 0 ] || echo sudo)
BUILD_DEBS := gcc libc6-dev libnotmuch-dev notmuch
TEST_DEBS := $(BUILD_DEBS) xapian-tools dovecot-imapd mutt neomutt notmuch-mutt isync offlineimap3 tmux less mandoc systemd strace zsh fish dpkg-dev lintian
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.12.2
FUZZ := 200000x
SEED :=
# The race detector ignores memory outside Go's heap, which is all that SQLite's C,
# as Go, works in. To instrument it finds nothing, and takes most of the time.
RACE := -race -gcflags=modernc.org/sqlite/lib=-race=false -gcflags=modernc.org/libc/...=-race=false
# vet has its own line, and no test needs what debuggers read, which takes half of the linking.
TEST := go test -vet=off -ldflags=-w -parallel 4
# To keep a result for the next time, go test has each file noted that a test looks at, and looks at all
# of them once more: of the long tests these are millions, which takes it ten minutes.
# To collect garbage later than Go does by itself takes a tenth less, and twice the memory.
ALL := -count=1 -timeout 60m -exec 'env GOGC=400'
# Of cmd these have goroutines of its own: a watch, accounts side by side, sign-in, what is shown meanwhile,
# signals. Its other tests start the program for each command, ten times as slow with the race detector, to
# have the other packages at work, whose own tests are all run with it. The scripts have each command. So
# each test of cmd is run once, these with the race detector, and the others without.
SIDE_BY_SIDE := Watch|Manager|Reload|HangUp|Accounts|Machines|Fleet|Together|Login|SignsIn|Secret|Interrupt|Progress|Meter|Spare|Scripts
# What a short run leaves something out of.
LONG := share\.(Spares|Sweep|Pace)\(|testing\.Short\(
PREFIX := /usr/local
PROGRAM := notmuch-imap
ZSH := site-functions

# install-debs PACKAGES: installs what is missing, asks nothing, does nothing if
# all is there.
define install-debs
@dpkg-query -W -f '$${Status}\n' $(1) 2>/dev/null | grep -c '^install ok installed$$' | grep -qx $(words $(1)) || { \
	echo 'installing: $(1)'; \
	$(SUDO) apt-get update -q && \
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(1); }
endef

.PHONY: build demo test quick lint fuzz bench install install-files deb clean deps-build deps-deb deps-test

build: deps-build
	go build -trimpath -buildvcs=auto -o notmuch-imap ./cmd/notmuch-imap

demo: build
	./notmuch-imap demo

# Each case of each test is run, and all packages but cmd, and of that what has goroutines, with the race
# detector, which takes five times as long. Of the long tests it has a share (-short; internal/share has how
# large), since the goroutines, and what they share, are the same in each case: these packages are run without
# it, too. The tests of cmd wait for other programs, so more of them go beside each other.
test: deps-test
	go vet ./...
	test -z "$$(gofmt -l .)"
	mandoc -T lint -W warning docs/notmuch-imap.1 docs/notmuch-imap.conf.5
	$(MAKE) lint
	$(MAKE) fuzz FUZZ=10000x SEED=1
	$(TEST) $(ALL) $$(grep -rlE '$(LONG)' --include='*_test.go' . | xargs dirname | sort -u | grep -vx ./cmd)
	$(TEST) $(ALL) -parallel 8 -skip '$(SIDE_BY_SIDE)' ./cmd
	$(TEST) $(ALL) $(RACE) -short $$(go list ./... | grep -v '/cmd$$')
	$(TEST) $(ALL) $(RACE) -parallel 8 -run '$(SIDE_BY_SIDE)' ./cmd

# The answer within a minute, for work on the code: without the race detector, of the long
# tables a case in twenty, no sweep that disturbs a run behind each of its effects, and of cmd
# no test that starts another program. The linter's govet has every check of go vet.
quick: deps-test
	test -z "$$(gofmt -l .)"
	$(MAKE) lint
	$(TEST) -short ./...

# Each fuzz target for a number of inputs: with a time, Go calls an input that is under way when
# it is over a failure ("context deadline exceeded"). A finding is kept below testdata/fuzz.
# Without a SEED the inputs are new ones each time, beginning with what earlier runs found worth
# keeping. With one they are the same each time, of the same code: what a change is judged by must
# not fail for an input that has nothing to do with it.
fuzz: deps-build
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	grep -ro --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sed 's|/[^/]*:func | |' | sort | \
	$(if $(SEED),GODEBUG=fuzzseed=$(SEED)) xargs -P $$(nproc) -L 1 sh -c 'go test -vet=off -parallel 1 -run "^$$" \
		-fuzz "^$$1\$$" -fuzztime $(FUZZ) -fuzzminimizetime 10x "$$0" $(if $(SEED),-args -test.fuzzcachedir='"$$dir"'/"$$1")'

# The cache is the tree's own: the shared one answers for equal files with the
# path of another clone, gone by now, and then no nolint comment counts. So a linter
# that another clone runs meanwhile is no reason to fail. A fifth of its time went into
# collecting garbage.
lint:
	GOGC=400 GOLANGCI_LINT_CACHE=$(CURDIR)/.lint-cache go run $(GOLANGCI) run --allow-parallel-runners

bench: build
	contrib/bench/run

install: build install-files

# What belongs to an installed program, wherever that was built.
install-files:
	install -D -m 755 $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/notmuch-imap
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man1 docs/notmuch-imap.1
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man5 docs/notmuch-imap.conf.5
	install -D -m 644 contrib/completion/notmuch-imap.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/notmuch-imap
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/zsh/$(ZSH) contrib/completion/_notmuch-imap
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d contrib/completion/notmuch-imap.fish

# A package for the Debian that this runs on.
deb: deps-deb
	contrib/deb/build

clean:
	rm -rf notmuch-imap .lint-cache

deps-deb:
	$(call install-debs,$(BUILD_DEBS) dpkg-dev)

deps-build:
	$(call install-debs,$(BUILD_DEBS))

deps-test:
	$(call install-debs,$(TEST_DEBS))
