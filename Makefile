# Pushrod. `make help` says what there is to make.
# Explicit lists, no tricks: a new source file is one word in one list.

VERSION  := 0.1.0
SOVERSION := 0
PREFIX   ?= /usr/local
DESTDIR  ?=
BUILD    ?= build
CC       ?= gcc
SANITIZE ?=

PACKAGES := libzmq libczmq libevent_core libevent_extra libevent_pthreads lmdb jansson
CFLAGS   ?= -O2 -g
WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Werror -Wstrict-prototypes -Wmissing-prototypes
ALL_CFLAGS := -std=gnu11 $(WARNINGS) $(CFLAGS) $(SANITIZE) -fPIC -fvisibility=hidden -pthread -MMD -MP \
	-I. -Iinclude -DPUSHROD_VERSION='"$(VERSION)"' $(shell pkg-config --cflags $(PACKAGES))
ALL_LDFLAGS := $(LDFLAGS) $(SANITIZE) -pthread
LIBS     := $(shell pkg-config --libs $(PACKAGES)) -lmsgpackc -linih -lm -ldl

COMMON := err slice buf heap map body name clock log params
PROTO  := codec messages frame
CORE   :=
STORE  :=
NET    :=
SERVER :=
SESSION :=
WORKER :=
CLIENT :=
COMMAND :=

# ---- from here on nothing changes when a file is added ----
