//! What the memory allocator keeps. glibc gives each thread a heap of its own, and holds on to what was freed; most of what a VMM ever allocates
//! it frees before its guest runs (the filters of its threads, its command line).

/// Makes the threads that are started from now on share one heap: they allocate next to nothing while a guest runs.
/// With heaps of their own the library would open a file of `/sys` at the ninth, which is the end of a thread that starts under its filter.
pub(crate) fn share_one_heap() {
    // SAFETY: the call changes a number of the allocator's own, and takes the allocator's lock.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Gives what was freed back to the kernel.
pub(crate) fn give_back() {
    // SAFETY: the call takes the allocator's lock, and gives back only pages in which nothing is allocated.
    unsafe { libc::malloc_trim(0) };
}
