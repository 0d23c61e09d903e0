/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lmdb: the insides of the LMDB store, shared by its files and nobody else.
 *
 * The caller's thread packs operations into chunks and hands them over in batches. The commit
 * thread owns all else here: it takes the operations into the index, writes their chunks to the
 * journal table (one commit for a group of batches), and about a second later applies what is
 * still alive to the tables. Two generations of the journal exist at the most: the `fresh` one,
 * which grows, and the `aging` one, which is being applied in the order of its ids.
 *
 * After a crash the journal is read into the index again. Rows of the aging generation whose id
 * is not above meta "applied" are in the tables already and are passed over, so each row has its
 * effect once. While only the generation's rows are left, which go bit by bit, all ids are not
 * above it; a PURGE among them finds an empty index, and does nothing.
 *
 * Rule: what an operation does to `tasks`, `ready`, `agenda` (due, expiry) and small results waits
 * for its application; what it does to parts, unique, dead and large results is done within its
 * commit, and not again on replay.
 */
#ifndef SERVER_STORE_LMDB_H
#define SERVER_STORE_LMDB_H

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include "common/heap.h"
#include "common/map.h"
#include "server/store/arena.h"
#include "server/store/packed.h"
#include "server/store/reply.h"
#include "server/store/store.h"

#define LMDB_FORMAT        UINT64_C(1)
#define LMDB_CHUNK         ((size_t)64 << 10) /* bytes of a journal row, and of a part */
#define LMDB_RESULT_TABLES 16u
#define LMDB_RANKS         10u
#define LMDB_DELAYED       0x10u /* added to the rank in `ready`: a row that is not fetched */
#define LMDB_NEVER         UINT64_MAX

enum table {
    TABLE_META,    /* name -> u64 */
    TABLE_QUEUES,  /* number -> settings, counts, edge, name */
    TABLE_WORKERS, /* instance -> nothing */
    TABLE_JOURNAL, /* sequence -> operations */
    TABLE_TASKS,   /* id -> queue number, packed record */
    TABLE_READY,   /* queue number, rank, id -> nothing */
    TABLE_AGENDA,  /* Unix ms, kind, id -> key in `unique`, if it is about one */
    TABLE_DEAD,    /* id -> size of the record, packed record, packed finish */
    TABLE_BURIED,  /* queue name, NUL, id -> nothing */
    TABLE_PARTS,   /* id, number -> 64 KiB of a payload; with bit 63 of a dead letter's result */
    TABLE_UNIQUE,  /* queue number, key -> holder, until */
    TABLE_RESULTS, /* the first of 16: id, 0 -> packed finish; id, 1... -> its body's parts */
    TABLE_COUNT = TABLE_RESULTS + LMDB_RESULT_TABLES
};

/* Operations of a journal row: a header, then `size` bytes. */
enum row_kind { ROW_VOID, ROW_APPEND, ROW_FINISH, ROW_RESCHEDULE, ROW_FORGET, ROW_PURGE };

struct row {
    uint32_t size; /* of what follows the header */
    uint8_t kind;  /* enum row_kind */
    uint8_t spare[3];
};

/* Some operations, as they go to the journal. Counted: by its batch and by index entries. */
struct chunk {
    struct chunk *next; /* in its batch */
    uint32_t references;
    size_t size;
    size_t live; /* bytes of operations that are not void */
    size_t capacity;
    uint8_t data[];
};

/* An operation on its way. APPEND, FINISH, RESCHEDULE and FORGET lie in the chunk. */
struct item {
    enum store_op_kind kind;
    bool async;    /* its event need not wait for the commit */
    bool told;     /* its event was given before the commit ... */
    bool answered; /* ... and said STORED: it must not get lost */
    uint64_t token;
    uint64_t id;
    struct chunk *chunk;       /* where it lies; of DUE, PURGE, REVIVE: where their own rows go */
    size_t offset;             /* of its struct row */
    struct body *body;         /* one reference, or NULL */
    const struct store_op *op; /* copied; NULL for those that lie in the chunk */
};

struct batch {
    struct batch *next;
    struct arena arena;
    struct item *items;
    size_t count;
    struct chunk *chunks;
    struct chunk *last_chunk;
    uint64_t bytes;
    uint64_t now_ms;
};

struct entry;

/* An entry without a look-up; it went, or is another id's, if its id is not this one. */
struct place {
    uint64_t id;
    struct entry *entry;
};

/* What is in the index of one queue and rank; ended ones are passed over. */
struct rank_places {
    struct place *places;
    size_t first; /* all before it are gone */
    size_t count;
    size_t capacity;
    bool unsorted;
};

struct lmdb_queue {
    uint32_t number; /* rows of a purged queue lie under a number that nobody uses */
    struct slice name;
    enum durability durability;
    bool paused;
    bool changed; /* its row must be written with the next commit: in lmdb.changed */
    struct lmdb_queue *next_changed;
    uint64_t ready; /* in the tables, not in the index */
    uint64_t delayed;
    uint64_t dead;
    struct order_key edge;
    struct order_key edge_at_open;
    struct rank_places ranks[LMDB_RANKS];
};

enum entry_state { ENTRY_READY, ENTRY_DELAYED, ENTRY_ENDED };

struct entry_agenda {
    struct heap_node due; /* key: agenda_moment(), tie: id */
    struct heap_node expiry;
    struct entry *entry;
};

/* The newest state of a task that the tables do not know yet. */
struct entry {
    uint64_t id; /* 0: it is free */
    union {
        struct chunk *chunk; /* NULL: ended without a finish to keep */
        struct entry *next_free;
    };
    uint32_t offset; /* of the packed record, or finish if ended */
    uint32_t size;
    struct lmdb_queue *queue;
    struct entry_agenda *agenda; /* NULL: no moment of interest */
    uint32_t generation;
    uint32_t group; /* in which it was appended, its struct row lies before `offset`; 0: changed,
                       or ended before */
    uint8_t state;  /* enum entry_state */
    uint8_t rank;
    bool in_tables; /* an older state of the task is in the tables */
    bool listed;    /* it is in queue->ranks[rank] */
};

struct index {
    struct idmap entries; /* id -> struct entry */
    struct heap agenda;
    struct entry *free;
    struct arena slabs;  /* memory of all entries */
    uint64_t bytes;      /* of chunks and entries, about */
    struct place *fresh; /* in the order in which they came */
    size_t fresh_count;
    size_t fresh_capacity;
    struct place *aging; /* sorted once the generation ages */
    size_t aging_count;
    size_t aging_next;
    uint32_t generation;     /* of the fresh one; the aging one is one less */
    bool applying;           /* there is an aging generation */
    uint64_t aging_seq;      /* last journal row of the aging generation */
    uint64_t fresh_since_ns; /* LMDB_NEVER: nothing fresh */
};

struct lmdb {
    const struct store_ops *ops; /* first, as store.h asks */
    char *path;
    uint64_t max_bytes;
    uint64_t settle_ns;
    uint64_t index_bound; /* bytes */
    uint32_t id_block;
    int lock_fd;
    dev_t device; /* and inode of the data file; 0: it was not opened yet */
    ino_t file;

    /* shared with the caller's thread, under the lock */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct batch *incoming;
    struct batch *incoming_last;
    struct reply_queue replies;
    bool stop;
    int event_fd;
    atomic_uint_fast64_t unsettled; /* as in struct store_usage */
    atomic_uint_fast64_t used;
    pthread_t thread;
    struct arena opened; /* the caller's: what open() told */

    /* the commit thread's */
    MDB_env *env;
    MDB_txn *txn;       /* the group's; NULL between groups */
    MDB_cursor *finder; /* in `tasks`, for look-ups; opened when needed, ends with the txn */
    MDB_dbi tables[TABLE_COUNT];
    int error;      /* sticky within a group: the first LMDB error, or 0 */
    bool replaying; /* direct effects are in the tables already */
    bool dirty;     /* the transaction has something to write */
    uint32_t down;  /* enum pushrod_error, as EVENT_STORE_DOWN told: submissions are refused */
    char text[256]; /* why */
    uint32_t group;
    uint64_t boot;
    uint64_t id_ceiling; /* ids from here on were never given out */
    uint64_t max_id;     /* the greatest that any APPEND has had, or could have had */
    uint64_t max_table_id;
    uint64_t sequence; /* of the last journal row */
    uint64_t now_ms;   /* of the batch at hand */
    uint64_t heard_ns; /* when the last batches had been run */
    struct index index;
    struct lmdb_queue **queues;
    size_t queue_count;
    size_t queue_capacity;
    struct lmdb_queue *changed; /* of a hundred thousand queues, a few with each commit */
    struct strmap queue_names;
    struct idmap queue_numbers; /* number -> struct lmdb_queue */
    uint32_t next_queue;
    struct arena life;       /* what was found when this life began: */
    struct lmdb_edge *edges; /* of queues; NULL: it has not begun */
    size_t edge_count;
    uint32_t *garbage; /* numbers of purged queues, whose rows go bit by bit */
    size_t garbage_count;
    size_t garbage_capacity;
    uint64_t result_period[LMDB_RESULT_TABLES]; /* 0: the table is empty */
    struct batch *pending;                      /* executed, not committed */
    struct batch *pending_last;
    bool pending_sync;         /* somebody waits for the commit */
    uint64_t pending_since_ns; /* if anything is */
    struct reply *late;        /* events that wait for the commit */
    struct reply *early;
    struct arena scratch; /* until the group is over */
    uint64_t commit_ns;   /* when the last commit began */
    uint64_t group_ops;   /* operations in the group */
    uint64_t group_bytes;
    uint64_t group_bodies;   /* bytes of bodies that it writes */
    uint64_t group_looked;   /* bytes of bodies that LOOKUPs have given */
    uint64_t misfit;         /* as many group_bodies did not fit; UINT64_MAX: all did */
    uint64_t misfit_left;    /* ... when so much was left */
    size_t group_rows;       /* of the journal, written with it */
    uint64_t unlooked_bytes; /* submitted since the last look at the room that is left */
    uint64_t spare;          /* bytes that may be, each of which is written twice */
    bool busy;               /* the last group was a large one */
    uint64_t room_ns;        /* of the last look at the disk, or try to come up again */
    uint64_t failed_ns;      /* of the last commit that could not be written */
    uint64_t swept_ns;       /* of the last look at expired results and resident pages */
    uint64_t swept_commits;
    uint64_t trimmed; /* rows of the journal that were deleted */
    uintptr_t map;    /* address and size of the map, for madvise(); 0: unknown */
    size_t map_size;
    uint64_t commits;
};

/* ---- lmdb_table.c: rows, with a sticky error ---- */
bool table_get(struct lmdb *l, enum table t, const void *key, size_t size, struct slice *value);
/* A copy in l->scratch: other rows may be written while it is used. */
bool table_copy(struct lmdb *l, enum table t, const void *key, size_t size, struct slice *value);
void table_put(struct lmdb *l, enum table t, const void *key, size_t size, struct slice value);
uint8_t *table_reserve(struct lmdb *l, enum table t, const void *key, size_t size, size_t bytes);
bool table_delete(struct lmdb *l, enum table t, const void *key, size_t size); /* was it there? */
MDB_cursor *table_cursor(struct lmdb *l, enum table t);                        /* NULL: error */
/* False at the end or on an error. */
bool cursor_get(
    struct lmdb *l, MDB_cursor *c, struct slice *key, struct slice *value, MDB_cursor_op);
bool cursor_seek(struct lmdb *l, MDB_cursor *c, const void *key, size_t size, struct slice *value);
bool cursor_delete(struct lmdb *l, MDB_cursor *c);
void cursor_close(MDB_cursor *c); /* NULL is fine */
uint64_t meta_get(struct lmdb *l, const char *name, uint64_t otherwise);
void meta_put(struct lmdb *l, const char *name, uint64_t value);
void key_u32(uint8_t *to, uint32_t value); /* big-endian: sorts as the number does */
void key_u64(uint8_t *to, uint64_t value);
uint64_t key_read(const uint8_t *from, size_t bytes);
void ready_key(uint8_t key[13], uint32_t queue, uint8_t rank, uint64_t id);
void ready_key_of(uint8_t key[13], uint32_t queue, const struct record *r); /* ready or delayed */
void agenda_key(uint8_t key[17], uint64_t when_ms, enum agenda_kind kind, uint64_t id);
void part_key(uint8_t key[12], uint64_t id, uint32_t number);
void parts_put(struct lmdb *l, enum table t, uint64_t id, uint32_t first, const struct body *b);
struct body *parts_get(struct lmdb *l, enum table t, uint64_t id, uint32_t first, size_t size);
void parts_delete(struct lmdb *l, enum table t, uint64_t id, uint32_t first, size_t size);

/* ---- lmdb_env.c: the directory, the environment, the room that is left ---- */
char *lmdb_directory_take(struct lmdb *l); /* NULL, or an error text that the caller frees */
void lmdb_directory_release(struct lmdb *l);
/* The same; l->txn is open afterwards. Once opened, only the same file will do. */
char *lmdb_env_open(struct lmdb *l);
char *lmdb_open_failed(const struct lmdb *l, int rc); /* what to say, of an error of LMDB; owned */
void lmdb_env_close(struct lmdb *l);
bool lmdb_begin(struct lmdb *l);
bool lmdb_is_away(struct lmdb *l); /* true: somebody took the file away; l->text says so */
/* True: there is room for submissions. Else l->text says what is full. */
bool lmdb_room(struct lmdb *l);
void lmdb_measure(struct lmdb *l);  /* how much is used, for whoever asks on another thread */
uint64_t lmdb_left(struct lmdb *l); /* bytes that may yet be written, whatever they are for */
void lmdb_text_errno(struct lmdb *l, const char *what, int error);
void lmdb_release_pages(struct lmdb *l);

/* ---- lmdb_queue.c ---- */
void queues_load(struct lmdb *l);
void queues_keep_edges(struct lmdb *l); /* as of now, over all that is loaded in this life */
void lmdb_queue_touch(struct lmdb *l, struct lmdb_queue *q); /* it has changed */
void queues_save(struct lmdb *l);                            /* those that did */
void queues_free(struct lmdb *l);
struct lmdb_queue *lmdb_queue_get(struct lmdb *l, struct slice name);
struct lmdb_queue *lmdb_queue_find(struct lmdb *l, struct slice name); /* NULL: never heard of it */
struct lmdb_queue *queue_numbered(struct lmdb *l, uint32_t number);    /* NULL: purged */
void queue_renumber(struct lmdb *l, struct lmdb_queue *q); /* its old rows become garbage */
void queue_garbage_step(struct lmdb *l, uint32_t rows);

/* ---- lmdb_index.c ---- */
struct entry *index_get(const struct lmdb *l, uint64_t id);
void places_sort(struct place *places, size_t count); /* by id; cheap if they are in order */
/* The entry of an id that has none yet; its place in the order is set by index_record(). */
struct entry *index_add(struct lmdb *l, uint64_t id, struct lmdb_queue *q, bool in_tables);
/* It is this record now; takes a reference of the chunk. */
void index_record(struct lmdb *l, struct entry *e, struct chunk *chunk, size_t offset, size_t size);
/* It ended, with this finish, which is to be kept. */
void index_ended(struct lmdb *l, struct entry *e, struct chunk *chunk, size_t offset, size_t size);
/* It ended, and nothing is to be kept: only the tables may have to hear of it. */
void index_forget(struct lmdb *l, struct entry *e);
void index_remove(struct lmdb *l, struct entry *e);
void index_clear(struct lmdb *l);
void index_rest(struct lmdb *l); /* gives its memory back if nothing is in it; not while applying */
void index_load(const struct entry *e, struct record *r, struct packed_state *state);
/* A sorted view of what is ready in one rank: from the first id above `after`. */
size_t index_rank_seek(struct lmdb_queue *q, uint8_t rank, uint64_t after);
struct entry *index_rank_next(const struct lmdb_queue *q, uint8_t rank, size_t *place);

/* ---- lmdb_journal.c ---- */
struct chunk *chunk_new(size_t capacity);
void chunk_unref(struct lmdb *l, struct chunk *c);
uint8_t *chunk_add(struct chunk *c, enum row_kind kind, size_t size, size_t *offset);
/* Makes it an operation of that kind; ROW_VOID: it did not happen. */
void chunk_turn(struct chunk *c, size_t offset, enum row_kind kind);
/* Room for a row of the item's own; *chunk is where it lies. */
uint8_t *journal_own(struct lmdb *l, struct item *item, enum row_kind kind, size_t size,
    struct chunk **chunk, size_t *offset);
void journal_write(struct lmdb *l); /* what is pending */
void journal_replay(struct lmdb *l);
void journal_rotate(struct lmdb *l);
void batch_free(struct lmdb *l, struct batch *b);

/* ---- lmdb_apply.c ---- */
void apply_step(struct lmdb *l, size_t entries);

/* ---- lmdb_task.c: what a task is in now, index or tables ---- */
struct found {
    struct entry *entry; /* NULL: in the tables only */
    struct lmdb_queue *queue;
    struct record record; /* borrows from the index or l->scratch; body NULL */
    struct packed_state state;
    struct slice packed; /* the same as bytes, until the record is changed */
};
/* A row of `tasks` in its two parts; false: it is none. */
bool task_row_split(struct slice row, uint32_t *queue_number, struct slice *packed);
bool task_find(struct lmdb *l, uint64_t id, struct found *f); /* live ones only */
/* The same for a live entry, and for a row of `tasks`; its bytes are LMDB's until the next write.
 */
void task_of_entry(struct entry *e, struct found *f);
bool task_of_row(struct lmdb *l, MDB_cursor *tasks, uint64_t id, struct found *f);
bool task_in_tables(struct lmdb *l, uint64_t id);
/* Packs the changed record into a chunk of its own, and the index takes it. */
void task_change(struct lmdb *l, struct found *f);
bool task_maybe_running(const struct lmdb *l, const struct found *f);
void task_give(struct lmdb *l, struct reply_records *list, const struct found *f);

/* ---- lmdb_unique.c ---- */
bool unique_holder(struct lmdb *l, struct lmdb_queue *q, const struct record *r, uint64_t *holder);
void unique_take(struct lmdb *l, struct lmdb_queue *q, const struct record *r);
void lmdb_unique_release(struct lmdb *l, struct lmdb_queue *q, const struct record *r);
void unique_move(struct lmdb *l, uint32_t from, uint32_t to, const struct record *r);
void unique_ended(struct lmdb *l, struct slice key, uint64_t id, uint64_t when_ms);

/* ---- lmdb_result.c ---- */
void results_load(struct lmdb *l);
void result_put(struct lmdb *l, const struct finish *f, struct slice packed, const struct body *b);
void result_put_entry(struct lmdb *l, const struct entry *e); /* the finish of an ended one */
bool result_get(struct lmdb *l, uint64_t id, struct slice *packed, enum table *table);
bool result_delete(struct lmdb *l, uint64_t id);
void results_sweep(struct lmdb *l, uint64_t now_ms);

/* ---- the operations; each sets the event's outcome ---- */
void op_append(struct lmdb *l, struct item *item, struct reply *r, struct store_event *e);
void op_finish(struct lmdb *l, struct item *item, struct store_event *e);
void op_reschedule(struct lmdb *l, struct item *item, struct store_event *e);
void op_forget(struct lmdb *l, struct item *item, struct store_event *e);
void op_fetch(struct lmdb *l, struct item *item, struct reply *r, struct store_event *e);
void op_due(struct lmdb *l, struct item *item, struct reply *r, struct store_event *e);
void op_lookup(struct lmdb *l, struct item *item, struct reply *r, struct store_event *e);
void op_scan(struct lmdb *l, struct item *item, struct reply *r, struct store_event *e);
void op_revive(struct lmdb *l, struct item *item, struct reply *r, struct store_event *e);
void op_drop(struct lmdb *l, struct item *item, struct reply *r, struct store_event *e);
void op_purge(struct lmdb *l, struct item *item, struct store_event *e);
uint64_t agenda_next(struct lmdb *l); /* Unix time of the first entry; 0: none */
void dead_put(struct lmdb *l, struct found *f, const struct finish *fin, const struct body *result);
struct finish *dead_finish(
    struct lmdb *l, uint64_t id, struct slice packed, struct reply *r, bool bare);
bool dead_get(struct lmdb *l, uint64_t id, struct slice *record, struct slice *finish);
void purge_index(struct lmdb *l, struct lmdb_queue *q, const uint64_t *keep, size_t count);
void op_run(struct lmdb *l, struct item *item, struct reply *r);

/* ---- lmdb_load.c: everything that open() and a reopening have in common ---- */
char *lmdb_load(struct lmdb *l); /* NULL, or an error text that the caller frees; l->txn is open */
void lmdb_unload(struct lmdb *l);
void lmdb_tell_opened(struct lmdb *l, struct store_opened *opened);

/* ---- lmdb_group.c: what is committed together ---- */
void group_run(struct lmdb *l, struct batch *taken);
void group_commit(struct lmdb *l, uint64_t now_ns, size_t apply);
bool group_waits(const struct lmdb *l);             /* something is executed and not committed */
void group_announce(struct lmdb *l, uint32_t code); /* down with this code; 0: up */
bool group_reopen(struct lmdb *l);                  /* after a failure; false: not yet */

/* ---- lmdb_thread.c ---- */
void *lmdb_thread(void *store);

#endif
