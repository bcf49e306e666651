/*
 * Records what a program does to the files below one directory, in order, and ends it at a chosen moment.
 *
 * Owns: the calls of libc that change files, names and their durability, the log of them. Loaded by LD_PRELOAD.
 * Does not own: what a disk would have kept of all that (disk.rs), who reads the log (recording.rs).
 *
 * OBJFS_RECORD_DIR   the directory
 * OBJFS_RECORD_LOG   the log, outside of the directory
 * OBJFS_RECORD_KILL  the operation before which the process is killed, counted from 1; 0 or nothing: none
 *
 * A record: kind (1 byte), count of operations so far, file id, offset or size (8 bytes each), length of the path,
 * length of the data (4 bytes each), path relative to the directory, data. Numbers as this machine has them.
 *
 * All that is recorded happens under one lock, the call and its record together. Descriptors that lead elsewhere take
 * no lock: between fork and exec nobody can be waited for. Names that end in "-shm" are memory that SQLite shares, and
 * nothing of it is expected to last: they are not recorded.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* That of libc: programs reach copy_file_range(2) by the one below. */
typedef long (*syscall_fn)(long number, ...);
static syscall_fn libc_syscall(void) {
    static syscall_fn found;
    if (!found) found = (syscall_fn)dlsym(RTLD_NEXT, "syscall");
    if (!found) abort();
    return found;
}
#define syscall(...) libc_syscall()(__VA_ARGS__)

#define FDS_MAX 65536
#define FILES_MAX 65536
#define NOTHING 0

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *dir;
static size_t dir_len;
static const char *log_path;
static int log_fd = -1;
static uint64_t kill_at;
static uint64_t count;

/* By id, from 1 on: the path at which it is found now, or NULL; and whether it is a directory. */
static char *path_of[FILES_MAX];
static char is_dir[FILES_MAX];
static uint32_t files = 1;
/* By descriptor: an id, or NOTHING. */
static volatile uint32_t file_of[FDS_MAX];

__attribute__((constructor)) static void begin(void) {
    const char *at = getenv("OBJFS_RECORD_KILL");
    log_path = getenv("OBJFS_RECORD_LOG");
    kill_at = at ? strtoull(at, NULL, 10) : 0;
    const char *wanted = getenv("OBJFS_RECORD_DIR");
    if (wanted && log_path) {
        dir_len = strlen(wanted);
        dir = wanted;
    }
}

static void write_log(const void *from, size_t len) {
    const char *at = from;
    while (len > 0) {
        long done = syscall(SYS_write, log_fd, at, len);
        if (done <= 0) {
            if (done < 0 && errno == EINTR) continue;
            abort();
        }
        at += done;
        len -= (size_t)done;
    }
}

static void record(char kind, uint32_t id, uint64_t number, const char *path, const struct iovec *data,
                   size_t data_len) {
    static char *buffer;
    static size_t size;
    uint32_t path_len = path ? (uint32_t)strlen(path) : 0;
    uint32_t len = (uint32_t)data_len;
    uint64_t wide_id = id;
    size_t whole = 33 + path_len + data_len;
    int before = errno;
    if (log_fd < 0) {
        log_fd = (int)syscall(SYS_openat, AT_FDCWD, log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (log_fd < 0) abort();
    }
    if (size < whole) {
        size = whole * 2;
        buffer = realloc(buffer, size);
        if (!buffer) abort();
    }
    char *at = buffer;
    *at++ = kind;
    memcpy(at, &count, 8), at += 8;
    memcpy(at, &wide_id, 8), at += 8;
    memcpy(at, &number, 8), at += 8;
    memcpy(at, &path_len, 4), at += 4;
    memcpy(at, &len, 4), at += 4;
    if (path_len) memcpy(at, path, path_len), at += path_len;
    for (size_t left = data_len, i = 0; left > 0; i++) {
        size_t piece = data[i].iov_len < left ? data[i].iov_len : left;
        memcpy(at, data[i].iov_base, piece);
        at += piece;
        left -= piece;
    }
    write_log(buffer, whole);
    errno = before;
}

/* One more operation is about to happen. */
static void count_one(void) {
    if (++count == kill_at) {
        syscall(SYS_kill, getpid(), SIGKILL);
        for (;;) pause();
    }
}

/* The path relative to the directory, within `full`; NULL if it leads elsewhere or does not count. */
static const char *inside(int at, const char *path, char *full) {
    if (!dir || !path) return NULL;
    size_t len = 0;
    if (path[0] != '/') {
        int before = errno;
        if (at == AT_FDCWD) {
            if (!getcwd(full, PATH_MAX)) return NULL;
            len = strlen(full);
        } else {
            if (at < 0 || at >= FDS_MAX || file_of[at] == NOTHING) return NULL;
            const char *base = path_of[file_of[at]];
            len = dir_len;
            memcpy(full, dir, dir_len);
            if (base && *base) {
                full[len++] = '/';
                memcpy(full + len, base, strlen(base));
                len += strlen(base);
            }
        }
        errno = before;
        full[len++] = '/';
    }
    size_t path_len = strlen(path);
    if (len + path_len >= PATH_MAX) return NULL;
    memcpy(full + len, path, path_len + 1);
    len += path_len;
    while (len > 1 && full[len - 1] == '/') full[--len] = 0;
    if (strncmp(full, dir, dir_len) != 0 || (full[dir_len] != '/' && full[dir_len] != 0)) return NULL;
    if (len > 4 && strcmp(full + len - 4, "-shm") == 0) return NULL;
    return full[dir_len] == 0 ? full + dir_len : full + dir_len + 1;
}

static uint32_t find(const char *path) {
    for (uint32_t id = 1; id < files; id++) {
        if (path_of[id] && strcmp(path_of[id], path) == 0) return id;
    }
    return NOTHING;
}

static uint32_t add(const char *path, int directory) {
    if (files == FILES_MAX) abort();
    path_of[files] = strdup(path);
    is_dir[files] = (char)directory;
    return files++;
}

static void forget(const char *path) {
    uint32_t id = find(path);
    /* The string stays: a descriptor of a directory may still be asked for its path. */
    if (id != NOTHING) path_of[id] = NULL;
}

static uint32_t tracked(int fd) {
    return fd >= 0 && fd < FDS_MAX ? file_of[fd] : NOTHING;
}

static int open_at(int at, const char *path, int flags, mode_t mode) {
    char full[PATH_MAX];
    const char *name = (flags & O_TMPFILE) == O_TMPFILE ? NULL : inside(at, path, full);
    if (!name) return (int)syscall(SYS_openat, at, path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat info;
    int was_there = fstatat(AT_FDCWD, full, &info, 0) == 0;
    int makes = !was_there && (flags & O_CREAT);
    int empties = was_there && (flags & O_TRUNC) && (flags & O_ACCMODE) != O_RDONLY && info.st_size > 0;
    errno = 0;
    if (makes || empties) count_one();
    int fd = (int)syscall(SYS_openat, at, path, flags, mode);
    if (fd >= 0 && fd < FDS_MAX) {
        uint32_t id = find(name);
        if (makes) {
            forget(name);
            id = add(name, 0);
            record('C', id, 0, name, NULL, 0);
        } else if (id == NOTHING) {
            int directory = was_there && S_ISDIR(info.st_mode);
            id = add(name, directory);
            /* A file that somebody else made: nobody knows what is in it. */
            if (!directory) record('?', id, 0, name, NULL, 0);
        }
        if (empties) record('T', id, 0, NULL, NULL, 0);
        file_of[fd] = id;
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

static mode_t mode_of(int flags, va_list more) {
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(more, mode_t) : 0;
}

#define OPEN(name)                                     \
    int name(const char *path, int flags, ...) {       \
        va_list more;                                  \
        va_start(more, flags);                         \
        mode_t mode = mode_of(flags, more);            \
        va_end(more);                                  \
        return open_at(AT_FDCWD, path, flags, mode);   \
    }
#define OPENAT(name)                                       \
    int name(int at, const char *path, int flags, ...) {   \
        va_list more;                                      \
        va_start(more, flags);                             \
        mode_t mode = mode_of(flags, more);                \
        va_end(more);                                      \
        return open_at(at, path, flags, mode);             \
    }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

int creat(const char *path, mode_t mode) {
    return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int creat64(const char *path, mode_t mode) {
    return creat(path, mode);
}

int close(int fd) {
    if (tracked(fd) != NOTHING) {
        pthread_mutex_lock(&lock);
        file_of[fd] = NOTHING;
        int answer = (int)syscall(SYS_close, fd);
        pthread_mutex_unlock(&lock);
        return answer;
    }
    return (int)syscall(SYS_close, fd);
}

static int duplicated(int from, int to) {
    if (to >= 0 && to < FDS_MAX && (tracked(from) != NOTHING || file_of[to] != NOTHING)) {
        file_of[to] = tracked(from);
    }
    return to;
}

int dup(int fd) {
    return duplicated(fd, (int)syscall(SYS_dup, fd));
}

int dup3(int from, int to, int flags) {
    return duplicated(from, (int)syscall(SYS_dup3, from, to, flags));
}

int dup2(int from, int to) {
    if (from == to) return syscall(SYS_fcntl, from, F_GETFD) < 0 ? -1 : to;
    return dup3(from, to, 0);
}

int fcntl(int fd, int command, ...) {
    va_list more;
    va_start(more, command);
    void *argument = va_arg(more, void *);
    va_end(more);
    int answer = (int)syscall(SYS_fcntl, fd, command, argument);
    if (command == F_DUPFD || command == F_DUPFD_CLOEXEC) return duplicated(fd, answer);
    return answer;
}

int fcntl64(int fd, int command, ...) __attribute__((alias("fcntl")));

/* `offset` -1: where the descriptor is. */
static ssize_t write_at(int fd, const struct iovec *data, int pieces, off_t offset) {
    uint32_t id = tracked(fd);
    if (id == NOTHING) {
        return offset < 0 ? syscall(SYS_writev, fd, data, pieces) : syscall(SYS_pwritev, fd, data, pieces, offset, 0);
    }
    pthread_mutex_lock(&lock);
    count_one();
    off_t at = offset;
    struct stat info;
    if ((syscall(SYS_fcntl, fd, F_GETFL) & O_APPEND) && fstat(fd, &info) == 0) {
        at = info.st_size;
    } else if (at < 0) {
        at = (off_t)syscall(SYS_lseek, fd, 0, SEEK_CUR);
    }
    errno = 0;
    ssize_t done =
        offset < 0 ? syscall(SYS_writev, fd, data, pieces) : syscall(SYS_pwritev, fd, data, pieces, offset, 0);
    if (done > 0) record('W', id, (uint64_t)at, NULL, data, (size_t)done);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t write(int fd, const void *data, size_t len) {
    if (tracked(fd) == NOTHING) return syscall(SYS_write, fd, data, len);
    struct iovec whole = {(void *)data, len};
    return write_at(fd, &whole, 1, -1);
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t offset) {
    if (tracked(fd) == NOTHING) return syscall(SYS_pwrite64, fd, data, len, offset);
    struct iovec whole = {(void *)data, len};
    return write_at(fd, &whole, 1, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t len, off64_t offset) __attribute__((alias("pwrite")));

ssize_t writev(int fd, const struct iovec *data, int pieces) {
    return write_at(fd, data, pieces, -1);
}

ssize_t pwritev(int fd, const struct iovec *data, int pieces, off_t offset) {
    return write_at(fd, data, pieces, offset);
}

ssize_t pwritev64(int fd, const struct iovec *data, int pieces, off64_t offset) __attribute__((alias("pwritev")));

int ftruncate(int fd, off_t size) {
    uint32_t id = tracked(fd);
    if (id == NOTHING) return (int)syscall(SYS_ftruncate, fd, size);
    pthread_mutex_lock(&lock);
    count_one();
    int answer = (int)syscall(SYS_ftruncate, fd, size);
    if (answer == 0) record('T', id, (uint64_t)size, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    return answer;
}

int ftruncate64(int fd, off64_t size) __attribute__((alias("ftruncate")));

int truncate(const char *path, off_t size) {
    char full[PATH_MAX];
    if (!inside(AT_FDCWD, path, full)) return (int)syscall(SYS_truncate, path, size);
    int fd = open_at(AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0) return -1;
    int answer = ftruncate(fd, size);
    int before = errno;
    close(fd);
    errno = before;
    return answer;
}

int truncate64(const char *path, off64_t size) __attribute__((alias("truncate")));

int fallocate(int fd, int mode, off_t offset, off_t len) {
    uint32_t id = tracked(fd);
    if (id == NOTHING) return (int)syscall(SYS_fallocate, fd, mode, offset, len);
    pthread_mutex_lock(&lock);
    count_one();
    struct stat info;
    int answer = (int)syscall(SYS_fallocate, fd, mode, offset, len);
    if (answer == 0) {
        uint64_t hole = (uint64_t)len;
        struct iovec data = {&hole, sizeof hole};
        if (mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)) {
            record('H', id, (uint64_t)offset, NULL, &data, sizeof hole);
        } else if (mode & ~FALLOC_FL_KEEP_SIZE) {
            /* Others change bytes as well: the log has no word for that. */
            record('?', id, 0, path_of[id], NULL, 0);
        }
        if (!(mode & FALLOC_FL_KEEP_SIZE) && fstat(fd, &info) == 0 && info.st_size == offset + len) {
            record('T', id, (uint64_t)info.st_size, NULL, NULL, 0);
        }
    }
    pthread_mutex_unlock(&lock);
    return answer;
}

int fallocate64(int fd, int mode, off64_t offset, off64_t len) __attribute__((alias("fallocate")));

static int make_durable(int fd, long number) {
    uint32_t id = tracked(fd);
    if (id == NOTHING) return (int)syscall(number, fd);
    pthread_mutex_lock(&lock);
    count_one();
    int answer = (int)syscall(number, fd);
    if (answer == 0) record(is_dir[id] ? 'D' : 'S', id, 0, is_dir[id] ? path_of[id] : NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    return answer;
}

int fsync(int fd) {
    return make_durable(fd, SYS_fsync);
}

int fdatasync(int fd) {
    return make_durable(fd, SYS_fdatasync);
}

/* sync_file_range promises nothing that outlives a power loss (its manual page says so): it is left alone. */

static int rename_at(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    char full_from[PATH_MAX], full_to[PATH_MAX];
    const char *old = inside(from_at, from, full_from), *new = inside(to_at, to, full_to);
    if (!old && !new) return (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    pthread_mutex_lock(&lock);
    count_one();
    int answer = (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    if (answer == 0) {
        struct iovec target = {(void *)(new ? new : ""), new ? strlen(new) : 0};
        uint32_t id = old ? find(old) : NOTHING;
        /* In or out, directories, exchanges: the log has no word for that. */
        char kind = old && new && flags == 0 && id != NOTHING && !is_dir[id] ? 'R' : '?';
        record(kind, id, 0, old ? old : new, &target, target.iov_len);
        if (new) forget(new);
        if (id != NOTHING) path_of[id] = new ? strdup(new) : NULL;
    }
    pthread_mutex_unlock(&lock);
    return answer;
}

int rename(const char *from, const char *to) {
    return rename_at(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int renameat(int from_at, const char *from, int to_at, const char *to) {
    return rename_at(from_at, from, to_at, to, 0);
}

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    return rename_at(from_at, from, to_at, to, flags);
}

static int remove_at(int at, const char *path, int flags) {
    char full[PATH_MAX];
    const char *name = inside(at, path, full);
    if (!name) return (int)syscall(SYS_unlinkat, at, path, flags);
    pthread_mutex_lock(&lock);
    /* What is not there is no change. */
    struct stat info;
    if (fstatat(AT_FDCWD, full, &info, AT_SYMLINK_NOFOLLOW) == 0) count_one();
    int answer = (int)syscall(SYS_unlinkat, at, path, flags);
    if (answer == 0) {
        record(flags & AT_REMOVEDIR ? 'V' : 'U', find(name), 0, name, NULL, 0);
        forget(name);
    }
    pthread_mutex_unlock(&lock);
    return answer;
}

int unlink(const char *path) {
    return remove_at(AT_FDCWD, path, 0);
}

int unlinkat(int at, const char *path, int flags) {
    return remove_at(at, path, flags);
}

int rmdir(const char *path) {
    return remove_at(AT_FDCWD, path, AT_REMOVEDIR);
}

static int make_dir(int at, const char *path, mode_t mode) {
    char full[PATH_MAX];
    const char *name = inside(at, path, full);
    if (!name) return (int)syscall(SYS_mkdirat, at, path, mode);
    pthread_mutex_lock(&lock);
    struct stat info;
    if (fstatat(AT_FDCWD, full, &info, AT_SYMLINK_NOFOLLOW) != 0) count_one();
    errno = 0;
    int answer = (int)syscall(SYS_mkdirat, at, path, mode);
    if (answer == 0) record('M', find(name) == NOTHING ? add(name, 1) : find(name), 0, name, NULL, 0);
    pthread_mutex_unlock(&lock);
    return answer;
}

int mkdir(const char *path, mode_t mode) {
    return make_dir(AT_FDCWD, path, mode);
}

int mkdirat(int at, const char *path, mode_t mode) {
    return make_dir(at, path, mode);
}

/* What is copied is read and written: one operation, and one record of what came of it. */
static ssize_t copy(int from, off64_t *from_at, int to, off64_t *to_at, size_t len) {
    static __thread char buffer[1 << 20];
    ssize_t got = syscall(SYS_pread64, from, buffer, len < sizeof buffer ? len : sizeof buffer, *from_at);
    if (got <= 0) return got;
    ssize_t done = pwrite(to, buffer, (size_t)got, *to_at);
    if (done > 0) *from_at += done, *to_at += done;
    return done;
}

#undef syscall
long syscall(long number, ...) {
    long a[6];
    va_list rest;
    va_start(rest, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(rest, long);
    va_end(rest);
    if (number == SYS_copy_file_range && a[1] && a[3] && tracked((int)a[2]) != NOTHING) {
        return copy((int)a[0], (off64_t *)a[1], (int)a[2], (off64_t *)a[3], (size_t)a[4]);
    }
    return libc_syscall()(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
