// What a wheel's systems lack: manylinux_2_28 has glibc 2.28 and the libstdc++ of GCC 8. Under the headers of
// a newer system the module would ask for these symbols of it, and load nowhere older. Defined here and
// hidden, they are asked of no system. Weak: where a toolchain links its own (the manylinux images' does),
// that is as good. tools/wheel.py holds the result to the tag.
#include <new>

#if defined(__gnu_linux__) && defined(__GLIBCXX__) && (defined(__x86_64__) || defined(__aarch64__))

#define FUSEGEN_OWN __attribute__((weak, visibility("hidden")))

// glibc 2.32. "Not known to be single-threaded" is always true: std::shared_ptr counts with atomics then.
extern "C" {
FUSEGEN_OWN char __libc_single_threaded = 0;
}

// glibc 2.29 has an exp that does not set errno beside the one that all have; its numbers are the same. The
// linker's --wrap (CMakeLists.txt) leads calls of exp here: no name can be both defined and asked for.
#if defined(__x86_64__)
__asm__(".symver exp_of_every_glibc, exp@GLIBC_2.2.5");
#else
__asm__(".symver exp_of_every_glibc, exp@GLIBC_2.17");  // aarch64's first
#endif
extern "C" double exp_of_every_glibc(double);
extern "C" FUSEGEN_OWN double __wrap_exp(double x) { return exp_of_every_glibc(x); }

#if __GNUC__ >= 11

// GCC 11: std::allocator's refusal of a size.
extern "C" [[noreturn]] FUSEGEN_OWN void refuse_array() __asm__("_ZSt28__throw_bad_array_new_lengthv");
extern "C" void refuse_array() { throw std::bad_array_new_length(); }

// GCC 11: std::exception_ptr's copy and destructor became inline, around exported halves, _M_addref and
// _M_release, which are made here of what was never inline. An exception_ptr is a pointer to the exception,
// which counts; of null these are not called.
struct Counted {  // as an exception_ptr is passed and returned
  void* exception;
  Counted(const Counted&);
  ~Counted() {}
};
extern "C" [[noreturn]] void rethrow(const void* pointer) __asm__(
    "_ZSt17rethrow_exceptionNSt15__exception_ptr13exception_ptrE");
Counted current() __asm__("_ZSt17current_exceptionv");
extern "C" void destroy_nested(void* nested) __asm__("_ZNSt16nested_exceptionD1Ev");

extern "C" FUSEGEN_OWN void count(const void*) __asm__("_ZNSt15__exception_ptr13exception_ptr9_M_addrefEv");
extern "C" void count(const void* pointer) {
  try {
    rethrow(pointer);
  } catch (...) {
    current();  // counts, and what it gives is not destroyed
  }
}
extern "C" FUSEGEN_OWN void release(void*) __asm__("_ZNSt15__exception_ptr13exception_ptr10_M_releaseEv");
extern "C" void release(void* pointer) {
  struct {
    void* table;
    void* exception;
  } nested{nullptr, *static_cast<void**>(pointer)};  // a std::nested_exception, whose end releases
  destroy_nested(&nested);
}

#endif
#endif
