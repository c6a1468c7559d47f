// Lets a module that was built on a newer Linux run on glibc 2.28 with GCC 8's libstdc++. The linker sends every call
// of the functions below here (-Wl,--wrap in CMakeLists.txt), and they go on to the version that old and new systems
// have; `npm run check:binaries -- --strict` says when one is missing from both lists.
#include <pthread.h>
#include <sys/stat.h>

#include <condition_variable>
#include <mutex>
#include <stdexcept>

#if defined(__x86_64__)
#define C2C_OLDEST "GLIBC_2.2.5"
#define C2C_OLDEST_DLINFO "GLIBC_2.3.3"
#define C2C_STAT_VERSION 1
#elif defined(__aarch64__)
#define C2C_OLDEST "GLIBC_2.17"
#define C2C_OLDEST_DLINFO C2C_OLDEST
#define C2C_STAT_VERSION 0
#else
#error "which version of a symbol is the oldest is not known for this architecture"
#endif

// NAME of the C library as `oldest_NAME`, in its first version.
#define C2C_OLD(name) __asm__(".symver oldest_" #name "," #name "@" C2C_OLDEST)

extern "C" {

double oldest_exp(double);
double oldest_exp2(double);
double oldest_log(double);
double oldest_log2(double);
double oldest_pow(double, double);
void* oldest_dlopen(const char*, int);
char* oldest_dlerror();
int oldest_dlinfo(void*, int, void*);
int oldest_pthread_mutex_trylock(pthread_mutex_t*);
int oldest___fxstat(int version, int file, struct stat* info);
void oldest_wait(std::condition_variable*, std::unique_lock<std::mutex>*);
void copy_runtime_error(void* self, const std::runtime_error& from) __asm__("_ZNSt13runtime_errorC2ERKS_");

C2C_OLD(exp);
C2C_OLD(exp2);
C2C_OLD(log);
C2C_OLD(log2);
C2C_OLD(pow);
C2C_OLD(dlopen);
C2C_OLD(dlerror);
C2C_OLD(pthread_mutex_trylock);
C2C_OLD(__fxstat);
__asm__(".symver oldest_dlinfo,dlinfo@" C2C_OLDEST_DLINFO);
__asm__(".symver oldest_wait,_ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE@GLIBCXX_3.4.11");

// glibc 2.29: the same functions without the error handling of System V.
double __wrap_exp(double x) { return oldest_exp(x); }
double __wrap_exp2(double x) { return oldest_exp2(x); }
double __wrap_log(double x) { return oldest_log(x); }
double __wrap_log2(double x) { return oldest_log2(x); }
double __wrap_pow(double x, double y) { return oldest_pow(x, y); }

// glibc 2.33: a function of its own; before, a number said which `struct stat` is meant.
int __wrap_fstat(int file, struct stat* info) { return oldest___fxstat(C2C_STAT_VERSION, file, info); }

// glibc 2.34: moved from libdl and libpthread into libc.
void* __wrap_dlopen(const char* path, int flags) { return oldest_dlopen(path, flags); }
char* __wrap_dlerror() { return oldest_dlerror(); }
int __wrap_dlinfo(void* handle, int what, void* out) { return oldest_dlinfo(handle, what, out); }
int __wrap_pthread_mutex_trylock(pthread_mutex_t* mutex) { return oldest_pthread_mutex_trylock(mutex); }

// glibc 2.32: shared_ptr counts without atomic instructions where it says so. It never does: libtorch has threads.
extern __attribute__((visibility("hidden"))) char __libc_single_threaded;
char __libc_single_threaded = 0;

// GCC 12: waiting no longer ends the program where the thread is cancelled.
void __wrap__ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE(std::condition_variable* condition,
                                                                      std::unique_lock<std::mutex>* lock) {
  oldest_wait(condition, lock);
}

// GCC 9: a runtime_error that is moved; the message is counted, so that a copy does as well.
void __wrap__ZNSt13runtime_errorC2EOS_(void* self, const std::runtime_error& from) { copy_runtime_error(self, from); }
void __wrap__ZNSt13runtime_errorC1EOS_(void* self, const std::runtime_error& from) { copy_runtime_error(self, from); }

}  // extern "C"
