/* LD_PRELOAD: this process's calendar is wrong by CLOCK_SHIFT_S seconds; what it measures durations with is right. With
   CLOCK_SHIFT_FILE the seconds are those in that file, eight bytes, and may change while the process runs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>

static long shift(void) {
  static long known, is_known;
  static volatile long *cell = &known;
  if (!is_known) {
    const char *given = getenv("CLOCK_SHIFT_S"), *file = getenv("CLOCK_SHIFT_FILE");
    known = given ? atol(given) : 0;
    int opened = file ? open(file, O_RDONLY) : -1;
    void *mapped = opened < 0 ? MAP_FAILED : mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, opened, 0);
    if (mapped != MAP_FAILED) cell = mapped;
    is_known = 1;
  }
  return *cell;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(clock, now);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += shift();
  return result;
}

int gettimeofday(struct timeval *now, void *zone) {
  static int (*real)(struct timeval *, void *);
  if (!real) real = dlsym(RTLD_NEXT, "gettimeofday");
  int result = real(now, zone);
  if (result == 0) now->tv_sec += shift();
  return result;
}

time_t time(time_t *out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}

/* Deadlines of waits are given in calendar time and have to be converted for the kernel, whose clock is right. Times
   of the steady clock are small numbers and stay as they are. */
static struct timespec real_deadline(const struct timespec *given) {
  struct timespec deadline = *given;
  if (deadline.tv_sec > 1000000000L) deadline.tv_sec -= shift();
  return deadline;
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *given) {
  static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
  if (!real) real = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
  if (!real) real = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
  struct timespec deadline = real_deadline(given);
  return real(condition, mutex, &deadline);
}

int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *given) {
  static int (*real)(cnd_t *, mtx_t *, const struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "cnd_timedwait");
  struct timespec deadline = real_deadline(given);
  return real(condition, mutex, &deadline);
}

int timespec_get(struct timespec *now, int base) {
  return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}
