# `make demo` and `make test` do all the set-up on a fresh Debian with Go and git.

SUDO := $(shell [ "$$(id -u)" -eq 0 ] || echo sudo)
BUILD_DEBS := gcc libc6-dev libnotmuch-dev notmuch
TEST_DEBS := $(BUILD_DEBS) xapian-tools dovecot-imapd mutt neomutt notmuch-mutt isync offlineimap3 tmux less mandoc systemd strace zsh fish dpkg-dev lintian
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.12.2
FUZZ := 20000x
# The race detector ignores memory outside Go's heap, which is all that SQLite's C,
# as Go, works in. To instrument it finds nothing, and takes most of the time.
RACE := -race -gcflags=modernc.org/sqlite/lib=-race=false -gcflags=modernc.org/libc/...=-race=false
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

test: deps-test
	go vet ./...
	test -z "$$(gofmt -l .)"
	mandoc -T lint -W warning docs/notmuch-imap.1 docs/notmuch-imap.conf.5
	$(MAKE) lint fuzz
	go test -parallel 4 -run '^TestKillWhileBothWays$$' ./pipeline
	go test $(RACE) -parallel 4 -timeout 60m ./...

# The answer within a minute, for work on the code: a share of the long tests, and
# of cmd none that start another program.
quick: deps-test
	go vet ./...
	test -z "$$(gofmt -l .)"
	$(MAKE) lint
	go test -short -parallel 4 ./...

# Each fuzz target for a number of inputs: with a time, Go calls an input that is under
# way when it is over a failure ("context deadline exceeded"). A finding is kept below testdata/fuzz.
fuzz: deps-build
	@set -e; for pkg in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		for target in $$(grep -ho '^func Fuzz[A-Za-z0-9_]*' $$pkg/*_test.go | cut -c6-); do \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZ) -fuzzminimizetime 10x $$pkg; \
		done; \
	done

# The cache is the tree's own: the shared one answers for equal files with the
# path of another clone, gone by now, and then no nolint comment counts.
lint:
	GOLANGCI_LINT_CACHE=$(CURDIR)/.lint-cache go run $(GOLANGCI) run

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
