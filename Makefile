# Pushrod. `make help` says what there is to make.
# Explicit lists, no tricks: a new source file is one word in one list.

VERSION  := 0.1.0
SOVERSION := 0
PREFIX   ?= /usr/local
DESTDIR  ?=
BUILD    ?= build
ifeq ($(origin CC),default)
CC       := gcc
endif
SANITIZE ?=

PACKAGES := libzmq libczmq libevent_core lmdb jansson
CFLAGS   ?= -O2 -g
WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Werror -Wstrict-prototypes -Wmissing-prototypes
ALL_CFLAGS := -std=gnu11 $(WARNINGS) $(CFLAGS) $(SANITIZE) -fPIC -fno-semantic-interposition -pthread -MMD -MP \
	-I. -Iinclude -DPUSHROD_VERSION='"$(VERSION)"' $(shell pkg-config --cflags $(PACKAGES))
ALL_LDFLAGS := $(LDFLAGS) $(SANITIZE) -pthread -Wl,--as-needed
LIBS     := $(shell pkg-config --libs $(PACKAGES)) -linih -lm -ldl
TEST_LIBS := -lcmocka -lmsgpackc

# The library, by room: common/X.c, proto/X.c, server/core/X.c, server/store/X.c, server/net/X.c, server/X.c,
# worker/X.c (SESSION: the pure part), client/X.c.
COMMON  := err buf utf8 heap map idindex slab body memory unixsock sockopt name clock log params params_value params_read params_print options program
PROTO   := codec messages frame
CORE    := core out pool ledger task queue service group worker ghost target sched withdraw answers pieces progress leave loss join submit retry finish follow unique timers window stored restart requests lookup rows submitted stats check
STORE   := arena packed tree reply mem_item mem_write mem_read store_mem store_lmdb lmdb_env lmdb_table lmdb_load lmdb_queue lmdb_index lmdb_journal lmdb_apply lmdb_group lmdb_thread lmdb_op lmdb_task lmdb_write lmdb_read lmdb_agenda lmdb_unique lmdb_result lmdb_dead lmdb_purge
NET     := loop conn inbuf conn_output listen host http native_input native_parts native_output watch zap ports crowd monitor socket peers speakers lane lane_pieces join_parse join answer_parse answers plane_open plane
SERVER  := api api_config api_conn api_event api_group api_local api_options api_post api_reload api_run api_start api_stats api_task api_timer api_wait
SESSION := session session_leave session_join session_task session_answer session_log
WORKER  := address api cgroup command coproc environment handlers keeper link link_act link_net link_read notes obituary plugin run run_lead run_coproc run_exec \
	run_function run_life said spawn supervise supervise_fork supervise_guard supervise_told talk
CLIENT  := lib lib_connect lib_stream lib_receive lib_pending lib_follow lib_submit lib_wait lib_request lib_row lib_submitted
# The programs: server/main.c, worker/main.c, and the files of the command in client/.
COMMAND := main command cli options interrupt help complete text json json_fields input why waiter task_options cmd_submit cmd_task cmd_list again cmd_dead cmd_operate cmd_top top_draw cmd_bench cmd_map map_input map_job map_output map_log map_halt map_progress
# examples/X.c -> build/examples/X, and examples/X.c -> build/examples/X.so
EXAMPLES := async_task/async_task async_task/server async_task/worker chat/chat mail/mail
PLUGINS  := plugin/hash
# docs/man/X: manual pages; the line @OPTIONS@ is replaced by what `PROGRAM --print-man` prints
MAN     := pushrod.1 pushrod-server.8 pushrod-worker.8

# tests/: lib/X.c (in every test), unit/test_X.c, sim/X.c (one program), store/test_X.c, fuzz/fuzz_X.c, e2e/X (scripts)
TESTLIB := plane_rig fake_lane session_play run_play core_look
TESTS   := buf heap slab unixsock map name codec messages params params_secret log loop text client client_blocks client_loss client_memory client_request map_input native native_large native_memory inbuf plane plane_pieces plane_join plane_budget plane_signal crowd zmq_facts zmq_strangers session session_tasks session_pieces session_return link run_lead run_exec run_coproc run_function command supervise cgroup server server_conn server_stop server_fork core_task core_worker core_sched core_target core_store core_refused core_late core_slow core_order core_status core_liar core_window core_many core_large core_stats core_submitted core_rejoin core_ghost core_purge core_join core_memory core_memory_lookup store_packed store_tree
SIM     := agenda client disk disk_copy disk_state faults keys liar load main node odd plan result runner server server_out truth
STORE_LIB := store_fault rig
STORE_TESTS := store_equal store_conform store_recover store_full store_away store_replay store_dead store_nth
FUZZ    := worker_plane client_plane config plane native handler http map_input
E2E     := examples server options bad_client strangers liars command payload json map worker own_worker one_slot unix_sockets instructions bench failure_table redelivery large_results python install

# ---- from here on nothing changes when a file is added ----
SEEDS   ?= 200
SECONDS ?= 5
O := $(BUILD)/o
Q := $(if $(V),,@)
common_o := $(COMMON:%=$(O)/common/%.o) $(PROTO:%=$(O)/proto/%.o)
core_o   := $(CORE:%=$(O)/server/core/%.o)
session_o := $(SESSION:%=$(O)/worker/%.o)
library_o := $(common_o) $(core_o) $(STORE:%=$(O)/server/store/%.o) $(NET:%=$(O)/server/net/%.o) $(SERVER:%=$(O)/server/%.o) $(session_o) $(WORKER:%=$(O)/worker/%.o) $(CLIENT:%=$(O)/client/%.o)
archives := $(addprefix $(BUILD)/,libcommon.a libcore.a libsession.a libpushrod.a)
shared   := $(BUILD)/libpushrod.so.$(SOVERSION)
programs := $(addprefix $(BUILD)/,pushrod-server pushrod-worker pushrod)
examples := $(EXAMPLES:%=$(BUILD)/examples/%) $(PLUGINS:%=$(BUILD)/examples/%.so)
man      := $(MAN:%=$(BUILD)/man/%)
unit     := $(TESTS:%=$(BUILD)/tests/test_%) $(STORE_TESTS:%=$(BUILD)/tests/store/test_%)
sim      := $(BUILD)/tests/simulation
fuzzers  := $(FUZZ:%=$(BUILD)/fuzz/fuzz_%)
sources  = $(shell find common proto server client worker tests tools include examples -name '*.[ch]')

.PHONY: all tests test unit check-all sim chaos fuzz fuzzers bench bench-peers serve demo run install uninstall clean format help protocol-doc
.DELETE_ON_ERROR:
.SECONDARY:

all: $(archives) $(shared) $(BUILD)/libpushrod.so $(programs) $(examples) $(man) ## libraries and programs, in $(BUILD); V=1 shows the commands

$(O)/%.o: %.c
	@mkdir -p $(@D)
	@echo "CC   $<"
	$(Q)$(CC) $(ALL_CFLAGS) -c $< -o $@

$(BUILD)/libcommon.a: $(common_o)
$(BUILD)/libcore.a: $(core_o)
$(BUILD)/libsession.a: $(session_o)
$(BUILD)/libpushrod.a: $(library_o) | $(BUILD)/libcore.a $(BUILD)/libsession.a
$(archives): tests/purity Makefile # a file that is new in a list
	@mkdir -p $(@D)
	$(Q)rm -f $@ && ar rcs $@ $(filter %.o,$^)
	$(if $(filter libcore.a libsession.a,$(@F)),$(Q)tests/purity $@)

# Only pushrod_* leaves the shared library; everything else keeps its name for the tests.
$(shared): $(library_o) libpushrod.map
	@echo "LINK $@"
	$(Q)$(CC) -shared -Wl,-soname,$(@F) -Wl,--version-script=libpushrod.map $(ALL_LDFLAGS) $(library_o) $(LIBS) -o $@

$(BUILD)/libpushrod.so: $(shared)
	$(Q)ln -sf $(<F) $@
LINK = $(CC) $(ALL_LDFLAGS) $(filter %.o,$^) $(BUILD)/libpushrod.a
define link
@mkdir -p $(@D); echo "LINK $@"
$(Q)$(LINK) $(1) $(LIBS) -o $@
endef
$(BUILD)/pushrod: $(COMMAND:%=$(O)/client/%.o)
$(BUILD)/protocol-doc: $(O)/tools/protocol-doc.o
$(BUILD)/pushrod $(BUILD)/protocol-doc: $(BUILD)/libpushrod.a
	$(link)

# Plug-ins find the library's functions in the program that loads them.
$(BUILD)/pushrod-server $(BUILD)/pushrod-worker: $(BUILD)/pushrod-%: $(O)/%/main.o $(BUILD)/libpushrod.a
	@echo "LINK $@"
	$(Q)$(CC) $(ALL_LDFLAGS) $< -Wl,--whole-archive $(BUILD)/libpushrod.a -Wl,--no-whole-archive \
		-Wl,--export-dynamic-symbol='pushrod_*' $(LIBS) -o $@

$(BUILD)/%.so: $(O)/%.o
	@mkdir -p $(@D)
	@echo "LINK $@"
	$(Q)$(CC) -shared $(ALL_LDFLAGS) $< -o $@
$(BUILD)/examples/%: $(O)/examples/%.o $(BUILD)/libpushrod.a
	$(link)

$(BUILD)/man/%: docs/man/% $(programs)
	@mkdir -p $(@D)
	@echo "MAN  $@"
	$(Q)$(BUILD)/$(basename $*) --print-man > $@.options
	$(Q)sed -e '/^@OPTIONS@$$/{r $@.options' -e 'd}' -e 's/@VERSION@/$(VERSION)/' $< > $@

# ---- tests ----
testlib := $(TESTLIB:%=$(O)/tests/lib/%.o) $(STORE_LIB:%=$(O)/tests/store/%.o)
$(TESTS:%=$(BUILD)/tests/test_%): $(BUILD)/tests/test_%: $(O)/tests/unit/test_%.o
$(STORE_TESTS:%=$(BUILD)/tests/store/test_%): $(BUILD)/tests/store/test_%: $(O)/tests/store/test_%.o
$(sim): $(SIM:%=$(O)/tests/sim/%.o)
$(BUILD)/tests/test_core_memory $(BUILD)/tests/test_core_memory_lookup $(BUILD)/tests/test_client_memory $(BUILD)/tests/test_native_memory: TEST_LIBS += -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=free,--wrap=slab_take,--wrap=slab_give # fails them
$(BUILD)/tests/test_run_exec: TEST_LIBS += -Wl,--wrap=realloc,--wrap=fork # likewise
$(unit) $(sim): $(testlib) $(BUILD)/libpushrod.a
	$(call link,$(TEST_LIBS))

# The fuzzers have a build of the library of their own, with clang; without clang they are skipped.
fuzzers:
	@if [ -n '$(FUZZ)' ] && command -v clang >/dev/null; then $(MAKE) BUILD=$(BUILD)/fuzz CC=clang \
		SANITIZE='-fsanitize=fuzzer-no-link,address,undefined' $(FUZZ:%=$(BUILD)/fuzz/fuzz_%); fi
$(BUILD)/fuzz_%: $(O)/tests/fuzz/fuzz_%.o $(BUILD)/libpushrod.a
	$(call link,-fsanitize=fuzzer)

export BUILD CC VERSION
tests: all $(unit) $(sim) $(BUILD)/tests/lib/faults.so $(BUILD)/protocol-doc
test: tests fuzzers ## unit, simulation, store, end-to-end, a short fuzz; the last line counts
	SEEDS=$(SEEDS) FUZZ_SECONDS=$(SECONDS) tests/run $(unit) $(sim) tests/protocol-doc $(fuzzers) $(E2E:%=tests/e2e/%)
unit: $(unit) $(BUILD)/protocol-doc ## only the unit and store tests
	tests/run $(unit) tests/protocol-doc
check-all: ## make test under gcc, clang, the sanitizers and valgrind
	tests/check-all
sim: $(sim) ## the simulation; SEEDS=1000 for more, SEED=n replays one
	SEEDS=$(SEEDS) $(sim)
fuzz: fuzzers ## the fuzzers; SECONDS=600 for each of them
	FUZZ_SECONDS=$(SECONDS) TEST_LIMIT=$$(( $(SECONDS) + 60 )) tests/run $(fuzzers)
protocol-doc: $(BUILD)/protocol-doc ## rewrite the tables of proto/PROTOCOL.md
	tests/protocol-doc --write
chaos: all $(BUILD)/tests/lib/faults.so ## kill, stop and cut what runs, and count what is lost
	@tests/chaos/run
bench: all ## our own figures, and the peers beside them; BENCH=full for all of it
	@bench/run
bench-peers: ## install the peers, from Debian's packages
	@bench/peers
serve: all ## a server and four workers, until you stop them
	@deploy/serve
run: all ## the same, and a real job: hash every file of the source tree
	@deploy/run-hash-job
demo: all ## a tour on one screen
	@tests/demo

# ---- install ----
DEST := $(DESTDIR)$(PREFIX)
# ldconfig: programs find the library at once; only root may say so, and only root needs it.
install: all ## PREFIX=/usr/local DESTDIR=
	install -d $(addprefix $(DEST)/,bin lib/pkgconfig include/pushrod share/man/man1 share/man/man8)
	install -m 755 $(programs) $(DEST)/bin
	install -m 644 $(BUILD)/libpushrod.a $(DEST)/lib
	install -m 755 $(shared) $(DEST)/lib
	ln -sf $(notdir $(shared)) $(DEST)/lib/libpushrod.so
	install -m 644 include/pushrod/*.h $(DEST)/include/pushrod
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' -e 's|@LIBS@|$(LIBS)|' \
		deploy/pushrod.pc.in > $(DEST)/lib/pkgconfig/pushrod.pc
	install -m 644 $(filter %.1,$(man)) $(DEST)/share/man/man1
	install -m 644 $(filter %.8,$(man)) $(DEST)/share/man/man8
	deploy/completion/install $(DEST)
	$(if $(DESTDIR),,@ldconfig 2>/dev/null || true)
uninstall: ## the same
	rm -f $(addprefix $(DEST)/bin/,pushrod pushrod-server pushrod-worker) $(DEST)/lib/libpushrod.* \
		$(DEST)/lib/pkgconfig/pushrod.pc $(DEST)/share/man/man1/pushrod.1 $(DEST)/share/man/man8/pushrod-*.8
	deploy/completion/install --remove $(DEST)
	rm -rf $(DEST)/include/pushrod
clean: ## remove $(BUILD)
	rm -rf $(BUILD)
format: ## clang-format
	clang-format -i $(sources)
help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

-include $(shell find $(O) -name '*.d' 2>/dev/null)
