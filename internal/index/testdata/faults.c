/* Makes one call of libnotmuch fail, the FAULT_AT-th, with the status FAULT_STATUS;
 * of functions that give a pointer it makes that NULL. Loaded before libnotmuch
 * (LD_PRELOAD). FAULT_LOG gets the number of calls, and the name of the one that failed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <notmuch.h>
#include <stdio.h>
#include <stdlib.h>

static int calls, at = -1, status;
static const char *failed = "none";

static int
fails (const char *name)
{
    if (at < 0) {
	at = atoi (getenv ("FAULT_AT"));
	status = atoi (getenv ("FAULT_STATUS"));
    }
    if (++calls == at)
	failed = name;
    /* A Go program ends without C's exit. */
    FILE *f = fopen (getenv ("FAULT_LOG"), "w");
    fprintf (f, "%d %s\n", calls, failed);
    fclose (f);
    return calls == at;
}

#define REAL(name) ((__typeof__ (&name)) dlsym (RTLD_NEXT, #name))
#define STATUS(name, params, args, none)		\
    notmuch_status_t name params			\
    {							\
	if (fails (#name)) {				\
	    none;					\
	    return status;				\
	}						\
	return REAL (name) args;			\
    }
#define POINTER(type, name, params, args)		\
    type *name params					\
    {							\
	return fails (#name) ? NULL : REAL (name) args;	\
    }

STATUS (notmuch_database_open_with_config,
	(const char *path, notmuch_database_mode_t mode, const char *config, const char *profile, notmuch_database_t **db, char **text),
	(path, mode, config, profile, db, text), *db = NULL; *text = NULL)
STATUS (notmuch_database_begin_atomic, (notmuch_database_t *db), (db), )
STATUS (notmuch_database_end_atomic, (notmuch_database_t *db), (db), )
STATUS (notmuch_database_index_file, (notmuch_database_t *db, const char *file, notmuch_indexopts_t *opts, notmuch_message_t **m), (db, file, opts, m), *m = NULL)
STATUS (notmuch_database_remove_message, (notmuch_database_t *db, const char *file), (db, file), )
STATUS (notmuch_database_find_message, (notmuch_database_t *db, const char *id, notmuch_message_t **m), (db, id, m), *m = NULL)
STATUS (notmuch_database_find_message_by_filename, (notmuch_database_t *db, const char *file, notmuch_message_t **m), (db, file, m), *m = NULL)
STATUS (notmuch_database_get_directory, (notmuch_database_t *db, const char *path, notmuch_directory_t **dir), (db, path, dir), *dir = NULL)
STATUS (notmuch_message_add_tag, (notmuch_message_t *m, const char *tag), (m, tag), )
STATUS (notmuch_message_remove_tag, (notmuch_message_t *m, const char *tag), (m, tag), )
STATUS (notmuch_message_freeze, (notmuch_message_t *m), (m), )
STATUS (notmuch_message_thaw, (notmuch_message_t *m), (m), )
STATUS (notmuch_message_reindex, (notmuch_message_t *m, notmuch_indexopts_t *opts), (m, opts), )
STATUS (notmuch_message_tags_to_maildir_flags, (notmuch_message_t *m), (m), )
STATUS (notmuch_message_get_flag_st, (notmuch_message_t *m, notmuch_message_flag_t flag, notmuch_bool_t *is), (m, flag, is), )
STATUS (notmuch_query_search_messages, (notmuch_query_t *q, notmuch_messages_t **out), (q, out), *out = NULL)
STATUS (notmuch_query_count_messages, (notmuch_query_t *q, unsigned *n), (q, n), )
POINTER (notmuch_query_t, notmuch_query_create, (notmuch_database_t *db, const char *query), (db, query))
POINTER (notmuch_tags_t, notmuch_message_get_tags, (notmuch_message_t *m), (m))
POINTER (notmuch_filenames_t, notmuch_message_get_filenames, (notmuch_message_t *m), (m))
POINTER (notmuch_filenames_t, notmuch_directory_get_child_files, (notmuch_directory_t *d), (d))

/* Closing commits, also where it then fails. */
notmuch_status_t
notmuch_database_destroy (notmuch_database_t *db)
{
    int fail = fails ("notmuch_database_destroy");
    notmuch_status_t real = REAL (notmuch_database_destroy) (db);

    return fail ? status : real;
}
